{
  description = "auditwheel in reverse: link installed wheels against the Nix store, in place";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      of = pkgs: import ./default.nix { inherit pkgs; };
      all = pkgs: {
        inherit (of pkgs) nixpatch nixpatchHook nixpatchUv;
        nixpatchBundle = (of pkgs).bundle;
        nixpatchWheel = (of pkgs).wheel;
        nixpatchEnvironment = (of pkgs).environment;
        # For another Python: nixpatchEnvironmentFor pkgs.python312 { ... }
        nixpatchWheelFor = (of pkgs).wheelFor;
        nixpatchEnvironmentFor = (of pkgs).environmentFor;
      };
    in
    {
      overlays.default = final: _: all final;
      # For the Python sets of pyproject.nix and uv2nix, which have nixpkgs under the name pkgs.
      overlays.pyproject = final: (of final.pkgs).pyprojectOverlay final;

      packages = each (pkgs: {
        inherit (all pkgs) nixpatch nixpatchHook nixpatchUv nixpatchBundle;
        default = (of pkgs).nixpatch;
      });
      legacyPackages = each all;

      apps = each (pkgs:
        let app = program: description: { type = "app"; program = "${program}"; meta = { inherit description; }; }; in
        {
          default = app "${(of pkgs).nixpatch}/bin/nixpatch" "link installed wheels against the Nix store";
          uv = app "${(of pkgs).nixpatchUv}/bin/uv" "uv that links what it installs";
        });

      checks = each (pkgs: {
        inherit (of pkgs) nixpatch;
        # The programs start, and the hook defines its function.
        hook = pkgs.runCommand "nixpatch-hook-check"
          { nativeBuildInputs = [ (of pkgs).nixpatchHook (of pkgs).nixpatch (of pkgs).nixpatchUv ]; }
          ''
            declare -F nixpatchPatch
            nixpatch --version | tee $out
            uv --version | tee -a $out
          '';
      });

      templates = {
        default = self.templates.uv2nix;
        uv2nix = {
          path = ./templates/uv2nix;
          description = (import ./templates/uv2nix/flake.nix).description;
          welcomeText = "Put the address of nixpatch into flake.nix, then: uv lock, git add ., nix build, result/bin/python.";
        };
        shell = {
          path = ./templates/shell;
          description = (import ./templates/shell/flake.nix).description;
          welcomeText = "Put the address of nixpatch into flake.nix, then: git add ., nix develop, uv sync.";
        };
      };

      formatter = each (pkgs: pkgs.nixfmt-tree or pkgs.nixfmt-rfc-style or pkgs.nixfmt);

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
        # For projects: nix develop NIXPATCH#uv, then uv sync.
        uv = pkgs.mkShell { packages = [ (of pkgs).nixpatchUv pkgs.python3 ]; };
      });
    };
}
