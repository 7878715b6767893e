{
  description = "A uv project as a Nix package by uv2nix, its wheels linked by nixpatch";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    pyproject-nix.url = "github:pyproject-nix/pyproject.nix";
    pyproject-nix.inputs.nixpkgs.follows = "nixpkgs";
    uv2nix.url = "github:pyproject-nix/uv2nix";
    uv2nix.inputs.nixpkgs.follows = "nixpkgs";
    uv2nix.inputs.pyproject-nix.follows = "pyproject-nix";
    pyproject-build-systems.url = "github:pyproject-nix/build-system-pkgs";
    pyproject-build-systems.inputs.nixpkgs.follows = "nixpkgs";
    pyproject-build-systems.inputs.pyproject-nix.follows = "pyproject-nix";
    pyproject-build-systems.inputs.uv2nix.follows = "uv2nix";
    nixpatch.url = "github:OWNER/nixpatch";
    nixpatch.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs = { nixpkgs, pyproject-nix, uv2nix, pyproject-build-systems, nixpatch, ... }:
    let
      inherit (nixpkgs) lib;
      workspace = uv2nix.lib.workspace.loadWorkspace { workspaceRoot = ./.; };
      each = make: lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system: make nixpkgs.legacyPackages.${system});
      pythonSet = pkgs: (pkgs.callPackage pyproject-nix.build.packages { python = pkgs.python3; }).overrideScope
        (lib.composeManyExtensions [
          pyproject-build-systems.overlays.default
          (workspace.mkPyprojectOverlay { sourcePreference = "wheel"; })
          nixpatch.overlays.pyproject
          # More libraries for wheels: (_: _: { nixpatchLibraries = [ pkgs.libpq ]; })
        ]);
    in
    {
      packages = each (pkgs: { default = (pythonSet pkgs).mkVirtualEnv "env" workspace.deps.default; });
      devShells = each (pkgs: {
        default = pkgs.mkShell { packages = [ ((pythonSet pkgs).mkVirtualEnv "dev-env" workspace.deps.all) pkgs.uv ]; };
      });
    };
}
