# nixpatch for people without flakes: `(import ./. { inherit pkgs; }).nixpatchHook`, or `nix-build -A nixpatch`.
{ pkgs ? import <nixpkgs> { } }:
let
  version = builtins.head (builtins.match ".*__version__ = \"([^\"]+)\".*"
    (builtins.readFile ./src/nixpatch/__init__.py));
  # Only what the package is made of: a change of a test rebuilds nothing.
  parts = [ "pyproject.toml" "README.md" "LICENSE" "src" "docs" ];
  root = toString ./. + "/";
  part = path: builtins.head (builtins.split "/" (builtins.substring (builtins.stringLength root) (-1) path));
  src = builtins.path {
    path = ./.;
    name = "nixpatch-source";
    filter = path: _: builtins.elem (part path) parts && baseNameOf path != "__pycache__";
  };
in
rec {
  nixpatch = pkgs.callPackage ./src/nixpatch/nix/package.nix { inherit src version; };
  nixpatchHook = pkgs.callPackage ./src/nixpatch/nix/hook.nix {
    # The hook runs where the build does, also in a cross build.
    nixpatch = pkgs.buildPackages.callPackage ./src/nixpatch/nix/package.nix { inherit src version; };
  };
  # For the Python of nixpkgs; `wheelFor python` for another one.
  wheel = wheelFor pkgs.python3;
  environment = environmentFor pkgs.python3;
  wheelFor = python: import ./src/nixpatch/nix/wheel.nix { inherit (pkgs) stdenv; inherit python nixpatchHook; };
  environmentFor = python:
    import ./src/nixpatch/nix/environment.nix { inherit (pkgs) stdenv; inherit python nixpatchHook; };
}
