"""Generate the man page and the shell completions from the command line.

usage: python docs/manual.py [DIR]

Writes ``docs/nixpatch.1`` and ``src/nixpatch/data/completions/*`` below DIR, by default the checkout.
A test compares the committed files with the generated ones. The wheel has them in ``share``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import completions
import typer

from nixpatch.cli.app import command_line
from nixpatch.version import __version__

_INTRODUCTION = """\
Wheels from PyPI are linked for /lib64 and /usr/lib, which NixOS and Nix builds do not have. nixpatch reads
the ELF files of an installed tree, finds a library for every needed soname (in the wheel itself, in another
wheel, or in a store path), rewrites RPATH or RUNPATH and PT_INTERP in place, and updates RECORD."""

_TAIL = r"""
.SH EXIT STATUS
.TP
.B 0
Satisfied.
.TP
.B 1
A library is missing, a file failed, or there is an error finding; with \-\-check also: changes are pending.
.TP
.B 2
The request is wrong: a path, an option, a file that was named.
.TP
.B 3
The machine lacks something: a store, a permission, a working Nix.
.TP
.B 130
Interrupted. Every file is whole; run nixpatch again to finish.
.SH ENVIRONMENT
.TP
.B NIX_STORE_DIR
The store directory, if it is not /nix/store; \-\-store overrides it.
.TP
.B PATH
Searched for nix\-store and, last, for the target Python.
.TP
.BR XDG_CACHE_HOME ", " HOME
The directory of the cache of the store's contents, nixpatch/providers.sqlite. It can be deleted at any time.
.TP
.BR NIX_BUILD_TOP ", " IN_NIX_SHELL
In a Nix build the local store is not searched, as with \-\-pure, and nothing is cached.
.TP
.BR VIRTUAL_ENV
The active venv: what commands without a path are about, before ./.venv.
.TP
.BR NO_COLOR ", " CI
No colour; no progress bar.
.SH FILES
.TP
.I nixpatch.lock
The lockfile of \fBnixpatch lock\fR: soname, store path, sha256 and source of each library.
.TP
.I *.dist\-info/nixpatch.json
The changes to the files of a dist. It is in RECORD, so pip uninstall removes it.
.TP
.I pyproject.toml
[tool.nixpatch] adds rules of the form of policy.toml.
.SH EXAMPLES
.TP
.B nixpatch .venv
Patch a virtual environment against the local store.
.TP
.B nixpatch plan \-v .venv
Show every file that would change; write nothing.
.TP
.B nixpatch uv sync
Run uv, then patch what it installed.
.TP
.B nixpatch missing \-\-format nix .venv > missing.nix
Print a Nix function from nixpkgs to the list of missing packages.
.TP
.B nixpatch lock .venv && nixpatch \-\-locked nixpatch.lock .venv
Write a lockfile, and use only its store paths.
.SH SEE ALSO
.BR ld.so (8),
.BR patchelf (1),
.BR nix\-store (1)
"""


def page() -> str:
    """Return the man page (man(7)) as text."""
    command: Any = typer.main.get_command(command_line())
    lines = [f'.TH NIXPATCH 1 "" "nixpatch {__version__}" "User Commands"']
    lines += [
        ".SH NAME",
        rf"nixpatch \- {_plain(command.help).rstrip('.')[0].lower()}{_plain(command.help)[1:-1]}",
    ]
    lines += [".SH SYNOPSIS", r"\fBnixpatch\fR [\fIOPTION\fR...] \fIPATH\fR...", ".br"]
    lines += [r"\fBnixpatch\fR \fICOMMAND\fR [\fIOPTION\fR...] [\fIARGUMENT\fR...]"]
    lines += [".SH DESCRIPTION", *_plain(_INTRODUCTION).splitlines()]
    lines += [".PP", _plain(command.epilog)]
    lines += [".SH COMMANDS"]
    patch = command.commands["patch"]
    for name, each in _commands(command):
        lines += _command(name, each)
        if each is patch:
            lines += _options(each)
        elif name != "plan":
            lines += _options(each, known=_spelled(patch))
    return "\n".join(lines) + _TAIL


def _commands(group: Any) -> Iterator[tuple[str, Any]]:
    for name, each in group.commands.items():
        if hasattr(each, "commands"):
            for inner, command in each.commands.items():
                yield f"{name} {inner}", command
        else:
            yield name, each


def _command(name: str, command: Any) -> list[str]:
    words = [parameter.metavar for parameter in command.params if parameter.param_type_name == "argument"]
    title = " ".join(map(_plain, ["nixpatch", name, *words]))
    return [f".SS {title}", _plain(" ".join((command.help or "").split()))]


def _options(command: Any, known: frozenset[str] = frozenset()) -> list[str]:
    """Return the options of a command; options that patch has, too, are only listed."""
    lines: list[str] = []
    shared: list[str] = []
    for parameter in command.params:
        if parameter.param_type_name != "option" or parameter.hidden or "--help" in parameter.opts:
            continue
        if _spelling(parameter) in known:
            shared.append(rf"\fB{_plain(parameter.opts[0])}\fR")
            continue
        spelled = ", ".join(rf"\fB{_plain(word)}\fR" for word in parameter.opts)
        value = "" if parameter.is_flag or parameter.count else rf" \fI{_plain(_value(parameter))}\fR"
        lines += [".TP", spelled + value, _plain(parameter.help or "")]
    if shared:
        lines += [".PP", f"Options of nixpatch patch that it takes: {', '.join(shared)}."]
    return lines


def _spelled(command: Any) -> frozenset[str]:
    return frozenset(_spelling(each) for each in command.params if each.param_type_name == "option")


def _spelling(parameter: Any) -> str:
    return f"{parameter.opts} {parameter.help}"


def _value(parameter: Any) -> str:
    if parameter.metavar:
        return str(parameter.metavar)
    choices = getattr(parameter.type, "choices", None)
    if choices:
        return "|".join(getattr(choice, "value", choice) for choice in choices)
    return {"int range": "N", "int": "N", "integer": "N"}.get(parameter.type.name, "WORD")


def _plain(text: str) -> str:
    """Escape the characters that groff interprets (groff(7))."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def files() -> dict[str, str]:
    """Return every file by its path in the checkout."""
    texts = completions.scripts()
    paths = {f"src/nixpatch/data/completions/{shell}": text for shell, text in texts.items()}
    return {"docs/nixpatch.1": page(), **paths}


def main() -> None:
    """Write all files."""
    checkout = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    directory = sys.argv[1] if len(sys.argv) > 1 else checkout
    for name, text in files().items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
