"""Text files of a dist that a run writes: start-up files and the first lines of scripts."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class TextKind(enum.Enum):
    """The kinds of text files. The value is the text people read."""

    STARTUP = "start-up file"
    """a ``.pth`` that nixpatch makes: it answers for the libraries that the dist opens by name"""
    SCRIPT = "script"
    """a script of the dist whose ``#!`` line names a program"""


@dataclass(frozen=True, slots=True)
class TextPlan:
    """The plan for one text file."""

    path: str
    info: str
    """the ``.dist-info`` of its dist"""
    kind: TextKind
    content: bytes | None
    """after the run; None: the file goes"""
    program: str = ""
    """of a script: the program that its line named as it was installed"""
    uses: tuple[str, ...] = ()
    """files outside the tree that the content names, sorted"""
    answers: tuple[tuple[str, str], ...] = ()
    """of a start-up file: the names that it answers, each with a path or a soname"""
    is_restored: bool = False
    """after the run the file is as it was installed: not there, or with its own program"""
    link: str = ""
    """the text of the link that the script is, to a file outside the tree; "" for a file"""
    pending: bool = True
    """the file, RECORD or provenance has to be written"""
