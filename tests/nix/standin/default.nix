# A small stand-in for nixpkgs: a stdenv and what the hook and the derivations of src/nixpatch/nix ask for, made of
# the test store. `store` is its store.json, `tool` a site-packages with nixpatch, `installer` one with the PyPI
# package of that name, `strip` a directory with Debian's strip and its libraries.
{ store, tool, installer, strip }:
let
  packages = builtins.mapAttrs (_: path: { outPath = builtins.storePath path; type = "derivation"; name = path; })
    (builtins.fromJSON (builtins.readFile store));
  setup = builtins.path { path = ./setup.sh; name = "standin-setup.sh"; };
  bintools = derivation {
    name = "bintools";
    system = "x86_64-linux";
    builder = "${packages.bash}/bin/bash";
    PATH = "${packages.coreutils}/bin";
    args = [ "-c" "mkdir -p $out/nix-support; echo ${packages.glibc}/lib/ld-linux-x86-64.so.2 >$out/nix-support/dynamic-linker" ];
  };
  mkDerivation = arguments: derivation ({
    system = "x86_64-linux";
    builder = "${packages.bash}/bin/bash";
    args = [ setup ];
    initialPath = with packages; [ coreutils findutils gnugrep gnused patchelf ];
    loader = "${packages.glibc}/lib/ld-linux-x86-64.so.2";
    stripTool = builtins.path { path = strip; name = "debian-strip"; };
    NIX_BINTOOLS = bintools;
    outputs = [ "out" ];
  } // removeAttrs arguments [ "passthru" ]) // arguments.passthru or { };
  makeSetupHook = { name, substitutions ? { } }: script: mkDerivation {
    inherit name script;
    unpackPhase = ":";
    installPhase = ''
      mkdir -p $out/nix-support
      sed ${builtins.concatStringsSep " " (map (key: "-e 's#@${key}@#${substitutions.${key}}#g'")
        (builtins.attrNames substitutions))} "$script" >$out/nix-support/setup-hook
    '';
  };
  python = packages.python3 // {
    sitePackages = "lib/python3.11/site-packages";
    # PYTHONPATH takes a directory below a package; this one is no more than that.
    pkgs.installer = mkDerivation {
      name = "installer";
      site = builtins.path { path = installer; name = "installer-site-packages"; };
      unpackPhase = ":";
      installPhase = "mkdir -p $out/lib/python3.11; ln -s $site $out/lib/python3.11/site-packages";
    };
  };
  site = builtins.path { path = tool; name = "nixpatch-site-packages"; };
  # What nixpatch depends on, as one package.
  dependencies = mkDerivation {
    name = "nixpatch-dependencies";
    unpackPhase = ":";
    installPhase = ''
      mkdir -p $out/lib/python3.11 $out/bin
      cp -r ${site} $out/${python.sitePackages}
      chmod -R u+w $out
      rm -r $out/${python.sitePackages}/nixpatch*
      ${python}/bin/python3 -m compileall -q --invalidation-mode unchecked-hash $out
    '';
    dontStrip = true;
    dontPatchELF = true;
  };
  # As nixpkgs makes a program of Python: unless told otherwise, in a wrapper that puts its Python first into PATH; and
  # its packages are propagated.
  buildPythonApplication = { pname, version, dependencies, ... }@arguments: mkDerivation (builtins.intersectAttrs { postFixup = 0; dontWrapPythonPrograms = 0; } arguments // {
    name = "${pname}-${version}";
    pythonPath = dependencies;
    propagatedBuildInputs = dependencies ++ [ python ];
    unpackPhase = ":";
    installPhase = ''
      mkdir -p $out/bin $out/${python.sitePackages}
      cp -r ${site}/nixpatch* $out/${python.sitePackages}/
      chmod -R u+w $out
      ${python}/bin/python3 -m compileall -q --invalidation-mode unchecked-hash $out
      printf '%s\n' '#!${python}/bin/python3' 'import sys' 'from nixpatch.__main__ import main' 'sys.exit(main())' >$out/bin/nixpatch
      chmod +x $out/bin/nixpatch

      buildPythonPath() {
        local package
        program_PYTHONPATH= program_PATH=${python}/bin
        for package in $1; do
          program_PYTHONPATH+=''${program_PYTHONPATH:+:}$package/${python.sitePackages}
          program_PATH+=:$package/bin
        done
      }
      patchPythonScript() { sed -i "1a import site; [site.addsitedir(path) for path in '$program_PYTHONPATH'.split(':')]" "$1"; }
      wrapPythonPrograms() {
        buildPythonPath "$out $pythonPath"
        patchPythonScript $out/bin/nixpatch
        mv $out/bin/nixpatch $out/bin/.nixpatch-wrapped
        printf '%s\n' "#!${packages.bash}/bin/bash" "export PATH=$program_PATH:\$PATH" "exec $out/bin/.nixpatch-wrapped \"\$@\"" >$out/bin/nixpatch
        chmod +x $out/bin/nixpatch
      }
      if [ -z "''${dontWrapPythonPrograms-}" ]; then wrapPythonPrograms; fi
    '';
    dontStrip = true;
    dontPatchELF = true;
  });
  nixpatch = import ../../../src/nixpatch/nix/package.nix {
    python3Packages = {
      inherit buildPythonApplication;
      hatchling = null;
      lief = dependencies;
      packaging = dependencies;
      pyelftools = dependencies;
      typer = dependencies;
    };
    src = site;
    version = "0";
  };
  # nixpkgs' builder for a wheel: an output with the wheel, dependencies in PYTHONPATH and propagated.
  buildPythonPackage = { name, wheel, dependencies ? [ ], nativeBuildInputs ? [ ], outputs ? [ "out" ], ... }@arguments:
    mkDerivation (removeAttrs arguments [ "wheel" "dependencies" ] // {
      src = wheel;
      outputs = outputs ++ [ "dist" ];
      strictDeps = arguments.strictDeps or true;
      nativeBuildInputs = [ python ] ++ nativeBuildInputs;
      propagatedBuildInputs = dependencies ++ [ python ];
      installPhase = ''
        for wheel in *.whl; do
          PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=${python.pkgs.installer}/${python.sitePackages} \
            ${python}/bin/python3 -m installer --no-compile-bytecode --prefix "$out" "$wheel"
        done
        mkdir $dist
        cp *.whl $dist/
        eval "''${postInstall-}"
      '';
    });
  # nixpkgs' environment of packages: a directory is linked whole where one package has it.
  withPackages = modules: mkDerivation {
    name = "python3-env";
    inherit modules;
    unpackPhase = ":";
    installPhase = ''
      mkdir -p $out/bin $out/${python.sitePackages}
      for file in ${python}/lib/python3.11/*; do
        if [ ! -e $out/lib/python3.11/''${file##*/} ]; then ln -s $file $out/lib/python3.11/; fi
      done
      for module in $modules; do
        ln -s $module/${python.sitePackages}/* $out/${python.sitePackages}/
        if [ -d $module/bin ]; then ln -s $module/bin/* $out/bin/; fi
      done
      printf '%s\n' "#!${packages.bash}/bin/bash" "export PYTHONPATH=$out/${python.sitePackages}" 'exec ${python}/bin/python3.11 "$@"' >$out/bin/python3
      chmod +x $out/bin/python3
    '';
    dontStrip = true;
    dontPatchELF = true;
  };
  nixpatchHook = import ../../../src/nixpatch/nix/hook.nix { inherit makeSetupHook nixpatch; };
  stdenv = { inherit mkDerivation; };
  scope = { inherit stdenv python nixpatchHook; };
in
{
  inherit packages stdenv python nixpatch nixpatchHook buildPythonPackage withPackages;
  wheel = import ../../../src/nixpatch/nix/wheel.nix scope;
  environment = import ../../../src/nixpatch/nix/environment.nix scope;
}
