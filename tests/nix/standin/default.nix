# A small stand-in for nixpkgs: a stdenv and what the hook and the derivations of src/nixpatch/nix ask for, made of
# the test store. `store` is its store.json, `tool` a site-packages with nixpatch, `installer` one with the PyPI
# package of that name, `strip` a directory with Debian's strip and its libraries.
{ store, tool, installer, strip }:
let
  packages = builtins.mapAttrs (_: path: { outPath = builtins.storePath path; type = "derivation"; name = path; })
    (builtins.fromJSON (builtins.readFile store));
  setup = builtins.path { path = ./setup.sh; name = "standin-setup.sh"; };
  mkDerivation = arguments: derivation ({
    system = "x86_64-linux";
    builder = "${packages.bash}/bin/bash";
    args = [ setup ];
    initialPath = with packages; [ coreutils findutils gnugrep gnused patchelf ];
    loader = "${packages.glibc}/lib/ld-linux-x86-64.so.2";
    stripTool = builtins.path { path = strip; name = "debian-strip"; };
    outputs = [ "out" ];
  } // arguments);
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
  nixpatch = mkDerivation {
    name = "nixpatch";
    site = builtins.path { path = tool; name = "nixpatch-site-packages"; };
    unpackPhase = ":";
    installPhase = ''
      mkdir -p $out/bin
      printf '%s\n' '#!${packages.bash}/bin/bash' 'export PYTHONPATH='$site' PYTHONDONTWRITEBYTECODE=1' \
        'exec ${python}/bin/python3 -m nixpatch "$@"' >$out/bin/nixpatch
      chmod +x $out/bin/nixpatch
    '';
    dontStrip = true;
  };
  nixpatchHook = import ../../../src/nixpatch/nix/hook.nix { inherit makeSetupHook nixpatch; };
  stdenv = { inherit mkDerivation; };
  scope = { inherit stdenv python nixpatchHook; };
in
{
  inherit packages stdenv python nixpatch nixpatchHook;
  wheel = import ../../../src/nixpatch/nix/wheel.nix scope;
  environment = import ../../../src/nixpatch/nix/environment.nix scope;
}
