"""nixpatch: link installed wheels against the Nix store, in place."""

__version__ = "0.1.0"
