{
  description = "auditwheel in reverse: link installed wheels against the Nix store, in place";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      of = pkgs: import ./default.nix { inherit pkgs; };
    in
    {
      overlays.default = final: _: {
        inherit (of final) nixpatch nixpatchHook;
        nixpatchWheel = (of final).wheel;
        nixpatchEnvironment = (of final).environment;
        nixpatchBundle = (of final).bundle;
      };

      # For the Python sets of pyproject.nix and uv2nix, which have nixpkgs under the name pkgs.
      overlays.pyproject = final: (of final.pkgs).pyprojectOverlay final;

      packages = each (pkgs: {
        inherit (of pkgs) nixpatch nixpatchHook;
        nixpatchBundle = (of pkgs).bundle;
        default = (of pkgs).nixpatch;
      });

      checks = each (pkgs: {
        inherit (of pkgs) nixpatch;
        # The program starts, and the hook defines its function.
        hook = pkgs.runCommand "nixpatch-hook-check"
          { nativeBuildInputs = [ (of pkgs).nixpatchHook (of pkgs).nixpatch ]; }
          ''
            declare -F nixpatchPatch
            nixpatch --version | tee $out
          '';
      });

      devShells = each (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ (of pkgs).nixpatch ];
          packages = with pkgs; [
            (python3.withPackages (python: with python; [
              hatchling
              hypothesis
              jsonschema
              mypy
              pytest
              pytest-xdist
            ]))
            patchelf
            ruff
            uv
          ];
        };
      });
    };
}
