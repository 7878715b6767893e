"""The command line: the only place that prints, exits or reads the process's environment."""

from nixpatch.cli.app import run

__all__ = ["run"]
