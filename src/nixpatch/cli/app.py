"""The table of commands, and ``run``, which starts one of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nixpatch.cli.exit_codes import ExitCode
from nixpatch.version import __version__

_TREES = "Trees"
_INSPECT = "Inspect"
_WRAP = "Wrap an installer"
_PYTHON = "Python and its environment"
_NIX = "Lockfiles and Nix expressions"
_FILES = "Single files"
_DEMO = "Try it"

_ANY_GRAFT = "--unvendor=*"
_TOP_OPTIONS = frozenset({"--help", "-h", "--version", "--install-completion", "--show-completion"})
_COMPLETING = "_NIXPATCH_COMPLETE"
"""the variable that a shell sets to ask for completions (click, "Shell Completion")"""

# The options of nixpatch end at the first word that is no option. From there on every word belongs to the
# wrapped command, `--help` and `--python` too. So does an option before it that nixpatch does not know.
_VERBATIM = {"allow_interspersed_args": False, "ignore_unknown_options": True}


@dataclass(frozen=True, slots=True)
class _Command:
    """The module of a command, so that a run imports no other."""

    module: str
    """name below ``nixpatch.cli``"""
    panel: str
    """heading in ``nixpatch --help``"""
    verbatim: bool = False
    """it wraps another command, whose words it passes on"""
    group: bool = False
    """it has subcommands"""


COMMANDS = {
    "patch": _Command("patch", _TREES),
    "plan": _Command("patch", _TREES),
    "restore": _Command("patch", _TREES),
    "verify": _Command("patch", _TREES),
    "tree": _Command("tree", _INSPECT),
    "missing": _Command("missing", _INSPECT),
    "diff": _Command("diff", _INSPECT),
    "pip": _Command("installers", _WRAP, verbatim=True),
    "uv": _Command("installers", _WRAP, verbatim=True),
    "uvx": _Command("installers", _WRAP, verbatim=True),
    "wrap": _Command("installers", _WRAP, verbatim=True),
    "manylinux": _Command("manylinux", _PYTHON, group=True),
    "env": _Command("env", _PYTHON, verbatim=True),
    "lock": _Command("lockfile", _NIX),
    "bundle": _Command("bundle", _NIX),
    "elf": _Command("elf_edit", _FILES),
    "demo": _Command("demo", _DEMO),
}


class _Shorthand(TyperGroup):
    """Accepts ``nixpatch PATH`` for ``nixpatch patch PATH``, in a run and in shell completion."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the omitted command, and replace ``plan`` by what it is short for."""
        return super().parse_args(ctx, _spelled_out(args))


def _spelled_out(args: list[str]) -> list[str]:
    first = next(iter(args), "--help")
    if first == "plan":
        args = ["patch", "--dry-run", *args[1:]]
    elif first not in COMMANDS and first not in _TOP_OPTIONS:
        args = ["patch", *args]
    if args[:1] == ["patch"]:
        # typer has no options with an optional value.
        args = [_ANY_GRAFT if word == "--unvendor" else word for word in args]
    return args


def command_line(names: Collection[str] = COMMANDS) -> typer.Typer:
    """Build the command line with some of its commands; the modules of the others are not imported."""
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
    except (ImportError, OSError) as error:  # a failing disk, no free descriptor, an incomplete installation
        text = f"its own files cannot be read ({error}); nothing was changed: fix this or install it again"
        sys.stderr.write(f"nixpatch: {text}\n")
        return ExitCode.MACHINE
    try:
        app(list(arguments), prog_name="nixpatch")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return ExitCode.SATISFIED


def _wanted(arguments: Sequence[str]) -> Collection[str]:
    """Return the commands to build: all of them for the help and for completion."""
    first = next(iter(_spelled_out(list(arguments))), "--help")
    return COMMANDS if _COMPLETING in os.environ or first in _TOP_OPTIONS else {first}


def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        sys.stdout.write(f"nixpatch {__version__}\n")
        raise typer.Exit
