"""What needs a Nix store."""
