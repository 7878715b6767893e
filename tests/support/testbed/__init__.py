"""A real Nix store made of Debian packages, and a NixOS-like root to run programs in."""
