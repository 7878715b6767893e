"""``nixpatch completion``: print a completion script, which docs/manual.py has made."""

from __future__ import annotations

import enum
import sys
from importlib import resources
from typing import Annotated

import typer

from nixpatch.cli.exit_codes import ExitCode
from nixpatch.cli.session import guarded


class Shell(enum.StrEnum):
    """Shells that have a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@guarded
def completion_command(
    shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", help="The shell.")],
) -> ExitCode:
    """Print the completion script of a shell: source <(nixpatch completion bash)."""
    sys.stdout.write(resources.files("nixpatch").joinpath("data", "completions", shell).read_text("utf-8"))
    return ExitCode.SATISFIED
