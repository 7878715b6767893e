"""The man page and the completions, made from the command line itself.

usage: python docs/manual.py [DIR]

Writes ``nixpatch.1``, ``nixpatch.bash``, ``_nixpatch`` and ``nixpatch.fish`` into DIR, by default the folder
of this file. A test holds the committed ones against what this makes. The wheel has them below ``share``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import typer

from nixpatch import __version__
from nixpatch.cli.app import command_line

NAME = "nixpatch"
_RUN = "from nixpatch.cli import run; run([])"
COMPLETIONS = {"bash": "nixpatch.bash", "zsh": "_nixpatch", "fish": "nixpatch.fish"}

_INTRODUCTION = """\
Wheels from PyPI are linked for /lib64 and /usr/lib, which NixOS and Nix builds do not have. nixpatch reads
the ELF files of an installed tree, maps every needed soname to a library of the wheel itself, of another
wheel, or of a store path, rewrites RPATH or RUNPATH and PT_INTERP in place, and brings RECORD up to date."""

_TAIL = r"""
.SH EXIT STATUS
.TP
.B 0
Satisfied.
.TP
.B 1
Something remains: a library that nothing provides, a file that failed, a finding; with \-\-check also:
changes are pending.
.TP
.B 2
The request is wrong: a path, an option, a file that was named.
.TP
.B 3
The machine is wrong: no store, no permission, Nix failed.
.TP
.B 130
Interrupted. Every file is whole; run it again to finish.
.SH ENVIRONMENT
.TP
.B NIX_STORE_DIR
The store directory, if it is not /nix/store; \-\-store goes before it.
.TP
.B PATH
Where the target Python is looked for last, and nix\-store.
.TP
.BR XDG_CACHE_HOME ", " HOME
Where what is known of the store is kept: nixpatch/providers.sqlite. It may be deleted at any time.
.TP
.BR NIX_BUILD_TOP ", " IN_NIX_SHELL
In a Nix build the local store at large is not searched, as with \-\-pure, and nothing is kept.
.TP
.BR VIRTUAL_ENV
The venv of \fBnixpatch pip\fR and \fBnixpatch wrap\fR.
.TP
.BR NO_COLOR ", " CI
No colour; no progress bar.
.SH FILES
.TP
.I nixpatch.lock
What \fBnixpatch lock\fR writes: soname, store path, sha256, what chose it.
.TP
.I *.dist\-info/nixpatch.json
What was done to the files of a dist. It is in RECORD and goes with pip uninstall.
.TP
.I pyproject.toml
[tool.nixpatch] adds rules, in the form of policy.toml.
.SH EXAMPLES
.TP
.B nixpatch .venv
Patch a virtual environment against the local store.
.TP
.B nixpatch plan \-v .venv
Show every file that would change, and write nothing.
.TP
.B nixpatch uv sync
Run uv, then patch what it installed.
.TP
.B nixpatch missing \-\-format nix .venv > missing.nix
A Nix function from nixpkgs to the list of what is missing.
.TP
.B nixpatch lock .venv && nixpatch \-\-locked nixpatch.lock .venv
Write down which store path serves what, and obey it.
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
    """Return what is to be said of a command's options; those that patch has too are only named."""
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
        lines += [".PP", f"Of the options of nixpatch patch it takes {', '.join(shared)}."]
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
    """Escape what groff would read as its own (groff(7))."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def completion(shell: str) -> str:
    """Return the completion script of a shell."""
    # What click documents for it; the function behind has no public name.
    asked = {**os.environ, "_NIXPATCH_COMPLETE": f"source_{shell}"}
    done = subprocess.run([sys.executable, "-c", _RUN], env=asked, capture_output=True, text=True, check=True)
    return done.stdout.strip() + "\n"


def files() -> dict[str, str]:
    """Return every file by name."""
    return {
        f"{NAME}.1": page(),
        **{name: completion(shell) for shell, name in COMPLETIONS.items()},
    }


def main() -> None:
    """Write them."""
    directory = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    for name, text in files().items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
