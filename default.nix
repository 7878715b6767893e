# nixpatch without flakes: `(import ./. { inherit pkgs; }).nixpatchHook`, or `nix-build -A nixpatch`.
{ pkgs ? import <nixpkgs> { } }:
let
  version = builtins.head (builtins.match ".*__version__ = \"([^\"]+)\".*"
    (builtins.readFile ./src/nixpatch/version.py));
  # Only the files of the package, so that a change of a test does not rebuild it.
  parts = [ "pyproject.toml" "README.md" "LICENSE" "src" "docs" ];
  root = toString ./. + "/";
  part = path: builtins.head (builtins.split "/" (builtins.substring (builtins.stringLength root) (-1) path));
  src = builtins.path {
    path = ./.;
    name = "nixpatch-source";
    # Of docs only the man page is installed: a change of another page must not rebuild every wheel.
    filter = path: _: builtins.elem (part path) parts && baseNameOf path != "__pycache__"
      && (part path != "docs" || builtins.elem (baseNameOf path) [ "docs" "nixpatch.1" ]);
  };
in
rec {
  nixpatch = pkgs.callPackage ./src/nixpatch/nix/package.nix { inherit src version; };
  nixpatchHook = pkgs.callPackage ./src/nixpatch/nix/hook.nix {
    # The hook runs on the build platform.
    nixpatch = pkgs.buildPackages.callPackage ./src/nixpatch/nix/package.nix { inherit src version; };
  };
  # The system libraries of manylinux wheels; `nixpatch bundle` prints it for other policies.
  bundle = import ./src/nixpatch/nix/bundle.nix { inherit pkgs; };
  # For the Python sets of pyproject.nix and uv2nix: one line of their composeManyExtensions.
  pyprojectOverlay = import ./src/nixpatch/nix/pyproject-overlay.nix { inherit pkgs nixpatchHook; };
  # uv for shells: nixpatchUv.override { libraries = [ ... ]; }
  nixpatchUv = pkgs.callPackage ./src/nixpatch/nix/uv.nix {
    inherit nixpatch;
    libraryBundle = (import ./src/nixpatch/nix/wheel-libraries.nix { inherit pkgs; }).bundle;
  };
  # For python3 of nixpkgs; `wheelFor python` is for another Python.
  wheel = wheelFor pkgs.python3;
  environment = environmentFor pkgs.python3;
  wheelFor = python: import ./src/nixpatch/nix/wheel.nix { inherit (pkgs) stdenv; inherit python nixpatchHook; };
  environmentFor = python:
    import ./src/nixpatch/nix/environment.nix { inherit (pkgs) stdenv; inherit python nixpatchHook; };
}
