"""What a trace says: each need of the files that were asked about, what serves it, where it was sought.

The places where ld.so looks for a need, and by which rule: what a simulated process remembers of it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from nixpatch.model import BuiltIn, ElfFacts, Skip, Tree


@dataclass(frozen=True, slots=True)
class Sought:
    """One place, and what was there."""

    how: How
    path: str | None
    """None where the step names no file"""
    of: str
    entry: str
    why: str | None
    """why it does not serve; None for the one that does"""


@dataclass(frozen=True, slots=True)
class Link:
    """One need of one file and what serves it. Paths are without ``..``; links to files are kept."""

    by: str
    need: str
    path: str | None
    how: How | None
    sought: tuple[Sought, ...]
    """in order; where something serves, the last one did"""


@dataclass(frozen=True, slots=True)
class Start:
    """The process that the search is made in."""

    program: str | None
    """the Python that opens the file; None where the file itself is the first one"""
    found_by: str
    """how the program or the loader was found"""
    loader: str | None
    """None: none is known, so no default directory is"""
    known: BuiltIn
    """what that loader knows by itself"""
    library_path: tuple[str, ...] = ()
    """LD_LIBRARY_PATH"""


@dataclass(frozen=True, slots=True)
class Trace:
    """What was found for the files that were asked about."""

    root: str
    """the file, or the tree's root"""
    files: Mapping[str, ElfFacts]
    """every file that was asked about or found, by path"""
    asked: tuple[str, ...]
    """the files that were asked about"""
    start: Start
    links: tuple[Link, ...]
    """of every file found where one file was asked about; of the tree's own files where it was a tree"""
    tree: Tree | None = None
    skipped: Mapping[str, Skip] = field(default_factory=dict)
    """files of the tree that are not for this process, or no ELF file that could be read"""

    @property
    def unmet(self) -> tuple[Link, ...]:
        """The needs for which nothing was found."""
        return tuple(link for link in self.links if link.path is None)


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
