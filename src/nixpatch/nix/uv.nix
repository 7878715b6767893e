# uv for development shells and devenv: what it installs is linked, and nothing else about it is changed.
#
# `libraries` are packages with more libraries than those of wheel-libraries.json, `flags` options of `nixpatch uv`.
{ lib
, runCommand
, runtimeShell
, uv
, python3
, nixpatch
, libraryBundle
, libraries ? [ ]
, flags ? [ ]
}:
let
  options = flags ++ [ "--pure" ]
    ++ lib.concatMap (package: [ "--lib" "${package}" ]) (map (package: package.lib or package.out or package) libraries ++ [ libraryBundle ]);
in
runCommand "uv-with-nixpatch-${uv.version or "0"}"
{
  pname = "uv-with-nixpatch";
  version = uv.version or "0";
  passthru.unwrapped = uv;
  meta = { description = "uv, with wheels linked by nixpatch"; mainProgram = "uv"; };
  uvScript = ''
    #!${runtimeShell}
    # nixpatch runs uv by its name, and finds this script: then it is to be uv itself.
    if [ -n "''${NIXPATCH_UV-}" ]; then
      unset NIXPATCH_UV
      exec ${uv}/bin/uv "$@"
    fi
    # The Pythons that uv downloads do not start on NixOS.
    export UV_PYTHON_DOWNLOADS=''${UV_PYTHON_DOWNLOADS-never} UV_PYTHON_PREFERENCE=''${UV_PYTHON_PREFERENCE-only-system}
    if ! command -v python3 >/dev/null; then PATH=$PATH:${python3}/bin; fi
    case ''${1-} in
      add | pip | remove | run | sync | tool | venv | --[!hv]*) ;;
      *) exec ${uv}/bin/uv "$@" ;;
    esac
    export PATH=@out@/bin:$PATH NIXPATCH_UV=1
    exec ${nixpatch}/bin/nixpatch uv ${lib.escapeShellArgs options} -- "$@"
  '';
  uvxScript = ''
    #!${runtimeShell}
    exec @out@/bin/uv tool run "$@"
  '';
  passAsFile = [ "uvScript" "uvxScript" ];
  __structuredAttrs = false;
} ''
  mkdir -p $out/bin
  ln -s ${uv}/bin/* $out/bin/
  if [ -d ${uv}/share ]; then ln -s ${uv}/share $out/; fi
  rm -f $out/bin/uv $out/bin/uvx
  sed "s#@out@#$out#g" "$uvScriptPath" >$out/bin/uv
  sed "s#@out@#$out#g" "$uvxScriptPath" >$out/bin/uvx
  chmod +x $out/bin/uv $out/bin/uvx
''
