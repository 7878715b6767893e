"""Where glibc's ld.so finds one need of one file, computed without running anything.

The rules are those of ld.so(8) for a file that is loaded on its own: its own DT_RUNPATH, else its own
DT_RPATH, then the directories built into the loader. What a parent's DT_RPATH, LD_LIBRARY_PATH or an
already loaded library of the same soname would add is left out on purpose: nixpatch makes every file
self-contained, so that the answer does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nixpatch.model import Machine
from nixpatch.resolve.search_path import expand


@dataclass(frozen=True, slots=True)
class Found:
    """A file that ld.so opens for a need."""

    path: str
    entry: str | None
    """the search path entry that led there; None for a need with a slash or a default directory"""


def find(
    need: str,
    *,
    search_path: str | None,
    directory: str,
    machine: Machine,
    machine_of: Callable[[str], Machine | None],
    default_dirs: tuple[str, ...] = (),
) -> Found | None:
    """Return what ld.so opens for ``need`` of a file in ``directory``, a real path; None if it finds nothing.

    ``machine_of`` tells the machine of the ELF file at a path, None where there is none: ld.so passes over
    a file of another class or machine and goes on searching.
    """
    if "/" in need:
        path = expand(need, directory)  # a relative one depends on the process's current directory
        return Found(path, None) if path is not None and machine_of(path) == machine else None
    for entry in search_path.split(":") if search_path else ():
        where = expand(entry, directory)
        if where is not None and machine_of(f"{where}/{need}") == machine:
            return Found(f"{where}/{need}", entry)
    for where in default_dirs:
        if machine_of(f"{where}/{need}") == machine:
            return Found(f"{where}/{need}", None)
    return None
