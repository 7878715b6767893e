"""Ask pyelftools and LIEF, each in a child process that may die."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nixpatch.elf.child_process import ChildProcess, died, limits, package_directory, seconds_for
from nixpatch.errors import FileRefused
from nixpatch.model.elf_description import ElfDescription

_ANSWER: Final = 8 << 20  # bytes; the description of a file with 65,536 sections has 5 MiB
_FAILURES: Final = 3  # per call: each may take all the time that a file has


@dataclass(frozen=True, slots=True)
class OtherReader:
    """A package that can read ELF."""

    name: str
    package: str
    largest: float
    """bytes of the largest file to hand to it"""


# LIEF reads a whole file into memory, and of a section only the first 2 GiB.
OTHERS: Final = (OtherReader("pyelftools", "elftools", math.inf), OtherReader("LIEF", "lief", 2 << 30))


@dataclass(frozen=True, slots=True)
class Unread:
    """The reason why a reader has not described a file."""

    reason: str
    blames_file: bool = True
    """False: the reader crashed, or took too much time or memory"""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file to describe."""

    fd: int
    symbols: int | None
    """number of dynamic symbols to digest; None for all"""

    @property
    def size(self) -> int:
        """Return its size in bytes."""
        return os.fstat(self.fd).st_size


def version_of(reader: OtherReader) -> str:
    """Return name and version of a reader.

    Raises:
        FileRefused: it is not installed or cannot be imported, as LIEF on NixOS before its wheel is patched.
        OSError: no process can be started.

    """
    with _child(reader, ()) as child:
        return str(_answer(child, seconds_for(0)).get("name", reader.name))


def describe_all(reader: OtherReader, files: Sequence[OpenFile]) -> Iterator[ElfDescription | Unread]:
    """Yield the description of each file by one reader."""
    answers = _answers(reader, [file for file in files if file.size <= reader.largest])
    for file in files:
        if file.size <= reader.largest:
            yield next(answers)
        else:
            yield Unread(f"{reader.name} is not used for files of {file.size} bytes", blames_file=False)


def _answers(reader: OtherReader, files: Sequence[OpenFile]) -> Iterator[ElfDescription | Unread]:
    done = failures = 0
    while done < len(files) and failures < _FAILURES:
        try:
            with _child(reader, files[done:]) as child:
                _answer(child, seconds_for(0))
                for file in files[done:]:
                    answer = _answer(child, seconds_for(file.size))
                    yield _described(answer)
                    done += 1
        except (FileRefused, OSError) as error:
            failures += 1
            done += 1
            yield Unread(str(error), blames_file=False)
    for _ in files[done:]:
        yield Unread(f"{reader.name} failed {failures} times and was given up", blames_file=False)


def _child(reader: OtherReader, files: Sequence[OpenFile]) -> ChildProcess:
    seconds = seconds_for(0) + sum(seconds_for(file.size) for file in files)
    request = {
        "reader": f"nixpatch.elf.readers.{reader.name.lower()}",
        "files": [(file.fd, file.symbols) for file in files],
        "limits": limits(max((file.size for file in files), default=0), seconds),
    }
    directory = package_directory(reader.package, reader.name)
    descriptors = [file.fd for file in files]
    return ChildProcess(reader.name, "nixpatch.elf.readers.child", directory, request, descriptors, _ANSWER)


def _answer(child: ChildProcess, seconds: float) -> dict[str, Any]:
    line = child.answer(seconds)
    if not line:
        raise died(child.name, *child.end(seconds))
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise FileRefused(f"{child.name} gave an answer that is no JSON object")
    if "refused" in answer:
        raise FileRefused(str(answer["refused"]))
    return answer


def _described(answer: dict[str, Any]) -> ElfDescription | Unread:
    if "unreadable" in answer:
        return Unread(str(answer["unreadable"]))
    try:
        return ElfDescription.from_json(answer["description"])
    except (KeyError, ValueError) as error:
        raise FileRefused(f"it gave an answer that is no description: {error!r}") from None
