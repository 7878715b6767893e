"""The table of commands, and ``run``, which starts one of them."""

from __future__ import annotations

import difflib
import functools
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, ClassVar, get_args

import typer
from typer.core import TyperGroup

from nixpatch.cli.exit_codes import ExitCode
from nixpatch.errors import RequestError
from nixpatch.escape import shown
from nixpatch.operations.patch_options import PatchOptions, types_of, words_of
from nixpatch.version import __version__

_TREES = "Trees"
_INSPECT = "Inspect"
_WRAP = "Wrap an installer"
_PYTHON = "Python and its environment"
_NIX = "Lockfiles and Nix expressions"
_FILES = "Single files"
_DEMO = "Try it"

_ANY_GRAFT = "--unvendor=*"
_TOP_OPTIONS = frozenset({"--help", "-h", "--version"})
_DOCUMENTED = ("patch", "plan", "restore", "verify", "missing", "tree", "lock", "diff", "manylinux", "wheel")
"""commands that have a JSON document"""

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
    "wheel": _Command("wheel", _FILES),
    "demo": _Command("demo", _DEMO),
    "completion": _Command("completion", _DEMO),
}


class _Shorthand(TyperGroup):
    """Accepts ``nixpatch PATH`` for ``nixpatch patch PATH``."""

    usage_error: ClassVar[str] = ""
    """what was wrong with the command line of the last run, as typer says it"""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the omitted command, and put options behind it."""
        return super().parse_args(ctx, _spelled_out(args))

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and keep the text of a usage error for the JSON document."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            _Shorthand.usage_error = getattr(error, "format_message", str)()
            raise


def _spelled_out(args: list[str]) -> list[str]:
    """Return the words with the command first: options may come before it, and ``patch`` may be left out."""
    index = _first_word(args)
    if args and args[0] in _TOP_OPTIONS:
        return args
    if index < len(args) and args[index] in COMMANDS:
        args = [args[index], *args[:index], *args[index + 1 :]]
    else:
        args = ["patch", *args]
    if args[0] in {"patch", "plan", "wheel"}:
        # typer has no options with an optional value.
        args = [_ANY_GRAFT if word == "--unvendor" else word for word in args]
    return args


def _first_word(args: Sequence[str]) -> int:
    """Return the index of the first word that is neither an option nor the value of one."""
    index = 0
    while index < len(args) and args[index].startswith("-") and args[index] not in {"-", "--"}:
        index += 2 if args[index] in _with_value() else 1
    return index


@functools.cache
def _with_value() -> frozenset[str]:
    """Return the options that take the next word for their value."""
    flags = {"--html", "--output", "-o", "--tree", "--format", "--why", "--depth"}
    for name, annotated in types_of(PatchOptions).items():
        words = words_of(annotated)
        if words is not None and get_args(annotated)[0] is not bool and name != "unvendor":
            flags.update(words.flags or ("--" + name.replace("_", "-"),))
    return frozenset(flags)


def _misspelled(args: Sequence[str]) -> str | None:
    """Return the message for a first word that is no command and no file, but looks like a command."""
    index = _first_word(args)
    word = args[index] if index < len(args) else ""
    if word in COMMANDS or not word.isidentifier() or os.path.lexists(word):
        return None
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    hint = f"did you mean nixpatch {near[0]}?" if near else "nixpatch --help lists the commands"
    return f"{word}: no such command, and no such path: {hint}"


def command_line(names: Collection[str] = COMMANDS) -> typer.Typer:
    """Build the command line with some of its commands; the modules of the others are not imported."""
    app = typer.Typer(
        name="nixpatch",
        cls=_Shorthand,
        help="Link installed wheels against the Nix store, in place: auditwheel in reverse.",
        epilog="nixpatch PATH... is short for nixpatch patch PATH..., and nixpatch alone for nixpatch patch.",
        pretty_exceptions_enable=False,
        add_completion=False,  # typer's scripts start Python for each Tab
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
    misspelled = _misspelled(arguments)
    if misspelled is not None:
        sys.stderr.write(f"nixpatch: {shown(misspelled)}\n")
        _document_usage_error(arguments, misspelled)
        return ExitCode.REQUEST
    _Shorthand.usage_error = ""
    try:
        app(list(arguments), prog_name="nixpatch")
    except SystemExit as end:
        if _Shorthand.usage_error:
            _document_usage_error(arguments, _Shorthand.usage_error)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return ExitCode.SATISFIED


def _document_usage_error(arguments: Sequence[str], text: str) -> None:
    """Print a JSON document with the error if one was asked for: who reads it gets a whole one."""
    if "--json" in arguments:
        from nixpatch.cli.session import print_document  # noqa: PLC0415 - for an error only

        command = _spelled_out(list(arguments))[0]
        known = command if command in _DOCUMENTED else "patch"
        print_document(known, (), error=RequestError(text))


def _wanted(arguments: Sequence[str]) -> Collection[str]:
    """Return the commands to build: all of them for the help."""
    first = _spelled_out(list(arguments))[0]
    return COMMANDS if first in _TOP_OPTIONS else {first}


def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        sys.stdout.write(f"nixpatch {__version__}\n")
        raise typer.Exit
