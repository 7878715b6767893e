"""From a name of a Python to the ELF file behind it: links and wrapper scripts, read and never run."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator

from nixpatch.errors import MachineError
from nixpatch.escape import of_the_machine, shown, why
from nixpatch.fs import read_head
from nixpatch.installed import python_layout
from nixpatch.installed.elf_files import ELF_MAGIC

_MAX_HOPS = 8
_SCRIPT_HEAD = 64 << 10
_MAX_LINE = 8 << 10

# Nix's wrapProgram moves the program itself to ".python3.11-wrapped".
_PYTHON_NAME = re.compile(r"\.*((?:python|pypy)\d*(?:\.\d+)?t?)(?:-wrapped)*")


class Unusable(Exception):  # noqa: N818 - the answer to "is it this one?", not an error
    """A file cannot be the target; the message says why, to be read after the file's name."""


def unreadable(path: str, error: OSError | ValueError) -> Unusable:
    """Return what a Python that cannot be read comes to.

    Raises:
        MachineError: that is no fault of the file, and another Python would be a guess.

    """
    if of_the_machine(error):
        text = f"cannot be read: {why(error)}; mend this and run nixpatch again"
        raise MachineError(f"{path}: {text}") from error
    return Unusable(f"cannot be read: {why(error)}")


def follow(start: str) -> str:
    """Return the real path of the ELF file that runs when ``start`` is called.

    Raises:
        Unusable: it does not exist, or leads to something else than an ELF file.
        MachineError: the disk fails, or there are no more descriptors.

    """
    path = start
    for _ in range(_MAX_HOPS):
        try:
            real = os.path.realpath(path)
            head = read_head(real, _SCRIPT_HEAD)
        except FileNotFoundError as error:
            reason = "does not exist" if path == start else f"leads to {shown(path)}, which does not exist"
            raise Unusable(reason) from error
        except (OSError, ValueError) as error:
            raise unreadable(path, error) from error
        if head.startswith(ELF_MAGIC):
            return real
        named = python_of_script(head)
        if named is None:
            raise Unusable("is a script that names no Python" if head.startswith(b"#!") else "is no program")
        path = named
    raise Unusable(f"is a chain of more than {_MAX_HOPS} scripts")


def python_of_script(head: bytes) -> str | None:
    """Return the Python that a script says it is run by, from its first bytes.

    That is the absolute path in ``#!/.../python3.11``, else in the first ``exec ... "/.../bin/python3.11"``
    of a shell script: a wrapper made by Nix, or what pip writes where the path is too long for a ``#!``
    line. None where it names none, as ``#!/usr/bin/env python3`` and pyenv's shims.
    """
    if not head.startswith(b"#!"):
        return None
    first, *lines = os.fsdecode(head).split("\n")
    words = first.removeprefix("#!").split()
    if words and _is_python(words[0]):
        return words[0]
    return next(
        (word for line in lines if "exec" in line for word in _executed(line) if _is_python(word)), None
    )


def version_of(python: str) -> tuple[int, int] | None:
    """Return the version of an interpreter by its name, else by the ``lib/pythonX.Y`` beside it."""
    name = _PYTHON_NAME.fullmatch(os.path.basename(python))
    version = python_layout.version_in_name(name[1]) if name else None
    return version or python_layout.only_version(os.path.dirname(os.path.dirname(python)))


def _is_python(word: str) -> bool:
    return word.startswith("/") and _PYTHON_NAME.fullmatch(os.path.basename(word)) is not None


def _executed(line: str) -> Iterator[str]:
    """Yield the words after ``exec`` of one line of shell."""
    if len(line) > _MAX_LINE:
        return
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a string that goes on in the next line
        return
    if "exec" in words:
        yield from words[words.index("exec") + 1 :]
