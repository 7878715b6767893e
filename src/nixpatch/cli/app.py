"""The command line: which commands there are, and the one of them that a run is about."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nixpatch import __version__
from nixpatch.cli.exit_codes import ExitCode

_PATCHING = "Trees"
_LOOKING = "Seeing what is and what lacks"
_INSTALLING = "Round installers and processes"
_STORE = "The store"
_OTHERS = "Single files, and a try"

_ANY_GRAFT = "--unvendor=*"
_TOP_OPTIONS = frozenset({"--help", "-h", "--version", "--install-completion", "--show-completion"})
_COMPLETING = "_NIXPATCH_COMPLETE"
"""what a shell sets where it asks for words (click, "Shell Completion")"""

# nixpatch's own options end at the first word that is no option: from the installer's command on every word
# is the installer's, `--help` and `--python` too. So is an option before it that nixpatch does not know.
_VERBATIM = {"allow_interspersed_args": False, "ignore_unknown_options": True}


@dataclass(frozen=True, slots=True)
class _Command:
    """Where a command is, so that a run need not import the others."""

    module: str
    """of ``nixpatch.cli``"""
    panel: str
    verbatim: bool = False
    group: bool = False
    """a command of commands"""


COMMANDS = {
    "patch": _Command("patch", _PATCHING),
    "plan": _Command("patch", _PATCHING),
    "restore": _Command("patch", _PATCHING),
    "verify": _Command("patch", _PATCHING),
    "tree": _Command("tree", _LOOKING),
    "missing": _Command("missing", _LOOKING),
    "diff": _Command("diff", _LOOKING),
    "pip": _Command("installers", _INSTALLING, verbatim=True),
    "uv": _Command("installers", _INSTALLING, verbatim=True),
    "wrap": _Command("installers", _INSTALLING, verbatim=True),
    "manylinux": _Command("manylinux", _INSTALLING, group=True),
    "env": _Command("env", _INSTALLING, verbatim=True),
    "lock": _Command("lockfile", _STORE),
    "bundle": _Command("bundle", _STORE),
    "elf": _Command("elf_edit", _OTHERS),
    "demo": _Command("demo", _OTHERS),
}


class _Shorthand(TyperGroup):
    """Knows ``nixpatch PATH`` for ``nixpatch patch PATH``, when it runs and when a shell completes words."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in that was left out, and what ``plan`` is short for."""
        return super().parse_args(ctx, _spelled_out(args))


def _spelled_out(args: list[str]) -> list[str]:
    first = next(iter(args), "--help")
    if first == "plan":
        args = ["patch", "--dry-run", *args[1:]]
    elif first not in COMMANDS and first not in _TOP_OPTIONS:
        args = ["patch", *args]
    if args[:1] == ["patch"]:
        # An option with an optional value, which typer has no notion of.
        args = [_ANY_GRAFT if word == "--unvendor" else word for word in args]
    return args


def command_line(names: Collection[str] = COMMANDS) -> typer.Typer:
    """Build the command line with some of its commands; what is not wanted costs nothing."""
    app = typer.Typer(
        name="nixpatch",
        cls=_Shorthand,
        help="Link installed wheels against the Nix store, in place: auditwheel in reverse.",
        epilog="nixpatch PATH... is short for nixpatch patch PATH...",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_top)
    for name, command in COMMANDS.items():
        if name not in names:
            continue
        module = import_module(f"nixpatch.cli.{command.module}")
        if command.group:
            app.add_typer(getattr(module, f"{name}_app"), name=name, rich_help_panel=command.panel)
        else:
            settings = _VERBATIM if command.verbatim else None
            function = getattr(module, f"{name}_command")
            app.command(name, rich_help_panel=command.panel, context_settings=settings)(function)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        app = command_line(_wanted(arguments))
    except (ImportError, OSError) as error:  # a failing disk, no more descriptors, half an installation
        text = f"its own files cannot be read ({error}); nothing was changed: mend this, or install it again"
        sys.stderr.write(f"nixpatch: {text}\n")
        return ExitCode.MACHINE
    try:
        app(list(arguments), prog_name="nixpatch")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return ExitCode.SATISFIED


def _wanted(arguments: Sequence[str]) -> Collection[str]:
    """Return the commands that a command line can be about: all of them where it asks what there is."""
    first = next(iter(_spelled_out(list(arguments))), "--help")
    return COMMANDS if _COMPLETING in os.environ or first in _TOP_OPTIONS else {first}


def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        sys.stdout.write(f"nixpatch {__version__}\n")
        raise typer.Exit
