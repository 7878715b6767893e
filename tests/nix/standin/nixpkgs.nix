# A stub for evaluation: the names that flake.nix and default.nix ask nixpkgs for, with nothing behind them.
let
  genAttrs = names: make: builtins.listToAttrs (map (name: { inherit name; value = make name; }) names);
  package = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; };
  # Derivations differ by what they are made of, as real ones do.
  make = arguments: derivation {
    name = arguments.name or "${arguments.pname}-${arguments.version}";
    system = "x86_64-linux";
    builder = "/bin/sh";
    made = builtins.toJSON (removeAttrs arguments [ "meta" ]);
  };
  call = scope: file: more:
    let function = if builtins.isFunction file then file else import file; in
    function (builtins.intersectAttrs (builtins.functionArgs function) scope // more);
  python = genAttrs
    [ "hatchling" "hypothesis" "jsonschema" "lief" "mypy" "packaging" "pyelftools" "pytest" "pytest-xdist" "typer" ]
    package // { buildPythonApplication = make; };
  libraries = genAttrs
    [ "expat" "glib" "libGL" "libice" "libsm" "libx11" "libxext" "libxrender" "zlib" ]
    package;
  pkgs = libraries // {
    extend = overlay: pkgs // overlay pkgs pkgs;
    callPackage = call pkgs;
    lib = { inherit (builtins) concatMap; escapeShellArgs = toString; };
    runtimeShell = "/bin/sh";
    nixfmt = package "nixfmt";
    buildPackages = pkgs;
    stdenv = { mkDerivation = make; cc.cc.lib = package "gcc-lib"; };
    python3 = package "python3" // {
      sitePackages = "lib/python3/site-packages";
      pkgs.installer = package "installer";
      withPackages = choose: make { name = "python3-env"; packages = choose python; };
    };
    python3Packages = python;
    makeSetupHook = arguments: script: make (arguments // { inherit script; });
    runCommand = name: arguments: script: make (arguments // { inherit name script; });
    mkShell = arguments: make ({ name = "shell"; } // arguments);
    patchelf = package "patchelf";
    ruff = package "ruff";
    uv = package "uv";
  };
in
{
  lib = { inherit genAttrs; };
  legacyPackages = genAttrs [ "x86_64-linux" "aarch64-linux" ] (_: pkgs);
}
