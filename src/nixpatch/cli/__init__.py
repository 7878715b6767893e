"""The command line. Nothing below it prints or exits."""

from nixpatch.cli.app import run

__all__ = ["run"]
