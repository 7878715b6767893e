"""The first line of a script, as the kernel reads it (execve(2); fs/binfmt_script.c). Pure."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

HEAD_SIZE = 256
"""bytes that the kernel looks at (BINPRM_BUF_SIZE; 128 before Linux 5.1): the line has to end within"""

ON_NIXOS = frozenset({"/bin/sh", "/usr/bin/env"})
"""the programs outside the store that every NixOS has (``environment.binsh``, ``environment.usrbinenv``)"""

_OF_SYSTEM = ("/bin/", "/sbin/", "/usr/")
_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*t?\Z")

_LINE = re.compile(rb"#![ \t]*([^ \t\0\n]+)[ \t\0]*([^\n]*?)[ \t]*(?:\n|\Z)")


@dataclass(frozen=True, slots=True)
class Shebang:
    """The program that runs a script."""

    program: str
    """as it stands there; a name without a slash is looked for in the working directory"""
    argument: str
    """all that follows, one argument for the kernel; ``""`` where there is none"""

    @property
    def absent_program(self) -> str | None:
        """The file name of the program if NixOS may lack it; None for one that stays as it is.

        ``/usr/bin/env X`` looks in PATH and stays. So does what is no absolute path: installers put the path
        of a Python in its place, or nothing ever runs the script. A Python that is none of the system was put
        there by an installer: the script belongs to that environment, also in a copy of it elsewhere.
        """
        program, name = self.program, os.path.basename(self.program)
        stays = program in ON_NIXOS or not program.startswith("/") or not name or "\r" in program
        is_launcher = _PYTHON.match(name) is not None and not self.is_of_system
        return None if stays or is_launcher else name

    @property
    def is_of_system(self) -> bool:
        """Whether the program lies where distributions other than NixOS have theirs."""
        return self.program.startswith(_OF_SYSTEM)

    def runs_in(self, *directories: str) -> bool:
        """Whether the program lies below one of these directories: those of the tree and of the store."""
        return any(self.program.startswith(f"{directory.rstrip('/')}/") for directory in directories)


def read_shebang(head: bytes) -> Shebang | None:
    """Parse the first bytes of a file, at least ``HEAD_SIZE`` of a longer one.

    None for a file that does not begin so, or whose program reaches beyond what the kernel reads: it runs
    neither.
    """
    line = head[:HEAD_SIZE]
    match = _LINE.match(line)
    if match is None or (match.end(1) == HEAD_SIZE and b"\n" not in line):
        return None
    return Shebang(os.fsdecode(match[1]), os.fsdecode(match[2]))


def with_program(content: bytes, program: str) -> bytes:
    """Return a script that another program runs, with the same argument; all but the first line is the same.

    Raises:
        ValueError: there is no such line, the program has a space in its path, or the line is or gets longer
            than the kernel reads: it would cut the argument.

    """
    match = _LINE.match(content)
    path = os.fsencode(program)
    if match is None or not path.startswith(b"/") or re.search(rb"[ \t\0\n]", path):
        raise ValueError(f"no line that {program} could stand in")
    changed = content[: match.start(1)] + path + content[match.end(1) :]
    for script, verb in ((content, "has"), (changed, "would have")):
        length = script.find(b"\n") + 1 or len(script)
        if length > HEAD_SIZE:
            raise ValueError(f"the first line {verb} {length} bytes, the kernel reads {HEAD_SIZE}")
    return changed
