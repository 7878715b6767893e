"""The world of the command line's tests, and ways to run nixpatch as somebody else."""

from __future__ import annotations

from cli.conftest import nixpatch, world

__all__ = ["nixpatch", "world"]
