# A stand-in for the Python sets of pyproject.nix as uv2nix fills them: a fixed point of packages that overlays extend,
# a derivation for each wheel, and environments made of links. `spec` is JSON: name -> { wheel, dependencies,
# extras, more }. `overlays` is Nix: what users write after nixpatch's overlay, as pkgs -> final -> prev -> { ... }.
{ store, tool, installer, strip, spec, user ? "_: _: _: { }", libraries ? "zlib" }:
let
  nixpkgs = import ./. { inherit store tool installer strip; };
  inherit (nixpkgs) packages python;
  words = text: builtins.filter (word: builtins.isString word && word != "") (builtins.split " " text);
  # As in nixpkgs: attributes stay readable, and overrideAttrs makes another derivation.
  mkDerivation = arguments:
    let attributes = if builtins.isFunction arguments then let self = arguments self; in self else arguments; in
    attributes // nixpkgs.stdenv.mkDerivation (removeAttrs attributes [ "passthru" ]) // attributes.passthru or { } // {
      passthru = attributes.passthru or { };
      overrideAttrs = change: mkDerivation (attributes // change attributes);
    };
  pkgs = builtins.listToAttrs (map (name: { inherit name; value = packages.${name}; }) (words libraries)) // {
    # An attribute that nixpkgs has removed
    glib = throw "glib has been removed";
    stdenv.cc.cc.lib = packages.gccLib;
    pythonManylinuxPackages.manylinux2014 = [ packages.expat ];
    runCommand = name: attributes: script: mkDerivation ({ inherit name; unpackPhase = ":"; installPhase = script; dontStrip = true; dontPatchELF = true; } // attributes);
    autoPatchelfHook = throw "autoPatchelfHook is not used";
  };
  wheelHook = mkDerivation {
    name = "pyproject-hook";
    unpackPhase = ":";
    installPhase = ''
      mkdir -p $out/nix-support
      cat >$out/nix-support/setup-hook <<'EOF'
      pyprojectWheelDist() { mkdir -p dist; cp "$src" "dist/''${src#*-}"; }
      pyprojectInstallPhase() {
        for wheel in dist/*.whl; do
          PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=${python.pkgs.installer}/${python.sitePackages} \
            ${python}/bin/python3 -m installer --no-compile-bytecode --prefix "$out" "$wheel"
        done
      }
      if [ -z "''${buildPhase-}" ]; then unpackPhase=:; installPhase='pyprojectWheelDist; pyprojectInstallPhase'; fi
      EOF
    '';
  };
  packageOf = name: { wheel ? null, dependencies ? { }, extras ? { }, more ? { } }: final:
    mkDerivation ({
      inherit name;
      src = if wheel == null then null else builtins.path { path = wheel; name = baseNameOf wheel; };
      nativeBuildInputs = if wheel == null then [ ] else [ wheelHook final.autoPatchelfHook ];
      buildInputs = pkgs.pythonManylinuxPackages.manylinux2014;
      passthru = { inherit dependencies; optional-dependencies = extras; } // (if wheel == null then { } else { format = "wheel"; });
    } // more);
  # Directories of one package are linked, those of several are made.
  mkVirtualEnv = final: name: specification: pkgs.runCommand name { members = final.resolveVirtualEnv specification; } ''
    link() {
      local entry name
      for entry in "$1"/*; do
        name=''${entry##*/}
        if [ ! -e "$2/$name" ]; then
          ln -s "$entry" "$2/$name"
        elif [ -d "$entry" ]; then
          if [ -L "$2/$name" ]; then
            local old=$(readlink "$2/$name")
            rm "$2/$name"
            mkdir "$2/$name"
            link "$old" "$2/$name"
          fi
          link "$entry" "$2/$name"
        fi
      done
    }
    mkdir -p $out/${python.sitePackages}
    for member in $members; do
      if [ -d "$member/${python.sitePackages}" ]; then link "$member/${python.sitePackages}" "$out/${python.sitePackages}"; fi
    done
  '';
  resolve = final: specification:
    let
      keys' = name: extras: [ { key = name; inherit name; extra = null; } ]
        ++ map (extra: { key = "${name}@${extra}"; inherit name extra; }) extras;
      ofSpec = spec: builtins.concatMap (name: keys' name spec.${name}) (builtins.attrNames spec);
      reached = builtins.genericClosure {
        startSet = ofSpec specification;
        operator = { name, extra, ... }:
          let passthru = final.${name}.passthru; in
          ofSpec (if extra == null then passthru.dependencies else passthru.optional-dependencies.${extra});
      };
    in
    map (entry: final.${entry.name}) (builtins.filter (entry: entry.extra == null) reached);
  base = final: builtins.mapAttrs (name: package: packageOf name package final) (builtins.fromJSON spec) // {
    inherit pkgs python;
    stdenv = nixpkgs.stdenv;
    resolveVirtualEnv = resolve final;
    mkVirtualEnv = mkVirtualEnv final;
  };
  extend = set: overlay: final: let prev = set final; in prev // overlay final prev;
  nixpatchOverlay = import ../../../src/nixpatch/nix/pyproject-overlay.nix { inherit pkgs; inherit (nixpkgs) nixpatchHook; };
  users = import (builtins.toFile "user.nix" user) packages;
  set = let final = builtins.foldl' extend base [ nixpatchOverlay users ] final; in final;
in
set
