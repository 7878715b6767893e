"""The places where ld.so looks for a need, and by which rule: what a simulated process remembers of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class How(enum.Enum):
    """The steps of ld.so's search in its order (ld.so(8)). The value is the text people read."""

    LOADED = "loaded already"
    NAMED = "named by path"
    RPATH = "RPATH"
    PARENT_RPATH = "RPATH of a parent"
    LIBRARY_PATH = "LD_LIBRARY_PATH"
    RUNPATH = "RUNPATH"
    CACHE = "ld.so.cache"
    DEFAULT = "default directory"


@dataclass(frozen=True, slots=True)
class Place:
    """One place that was looked at."""

    how: How
    path: str | None
    """the file that would have been opened; None where the step names none, as a cache without the soname"""
    of: str = ""
    """the file whose search path or need it is, the cache; for a loaded one who asked for it first"""
    entry: str = ""
    """the search path entry as written, ``$ORIGIN`` and all"""


@dataclass(frozen=True, slots=True)
class Need:
    """One DT_NEEDED of one file of a process, and what became of it."""

    by: str
    """the file that has the need"""
    name: str
    """as DT_NEEDED has it"""
    path: str | None
    """the file in the process that serves; None where nothing does"""
    places: tuple[Place, ...] = ()
    """in the order of the search; where something serves, the last one did"""

    @property
    def how(self) -> How | None:
        """By which rule it was found."""
        return self.places[-1].how if self.path is not None else None
