{
  description = "uv in a development shell: `uv sync` leaves wheels that load on NixOS";
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.nixpatch.url = "github:OWNER/nixpatch";
  inputs.nixpatch.inputs.nixpkgs.follows = "nixpkgs";

  outputs = { nixpkgs, nixpatch, ... }: {
    devShells = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system:
      let pkgs = nixpkgs.legacyPackages.${system}.extend nixpatch.overlays.default; in
      {
        # More libraries: (pkgs.nixpatchUv.override { libraries = [ pkgs.libpq ]; })
        default = pkgs.mkShell { packages = [ pkgs.python3 pkgs.nixpatchUv ]; };
      });
  };
}
