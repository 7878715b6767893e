"""The search for libraries by the rules of ld.so(8): its steps, each place, and the process that results."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from nixpatch.model import ElfFacts, LoadConflict, LoaderDefaults, Skip, Target, Tree


class SearchStep(enum.Enum):
    """The steps of ld.so's search in its order (ld.so(8)). The value is the text people read."""

    STARTUP = "start-up file"
    """not of ld.so: nixpatch's file answers for a name that Python code opens"""
    LOADED = "loaded already"
    NAMED = "named by path"
    RPATH = "RPATH"
    PARENT_RPATH = "RPATH of a parent"
    LIBRARY_PATH = "LD_LIBRARY_PATH"
    RUNPATH = "RUNPATH"
    CACHE = "ld.so.cache"
    DEFAULT = "default directory"


@dataclass(frozen=True, slots=True)
class SearchedPlace:
    """One place where a need was searched."""

    how: SearchStep
    path: str | None
    """the file that would have been opened; None where there is none, as in a cache without the soname"""
    of: str = ""
    """the file with the search path or the need, the cache, or the first file that needed a loaded one"""
    entry: str = ""
    """the search path entry as written, ``$ORIGIN`` and all"""
    why: str | None = None
    """why it does not serve; None for the one that does, and in a simulated process"""


@dataclass(frozen=True, slots=True)
class TracedNeed:
    """One DT_NEEDED of one file and the file that serves it."""

    by: str
    """the file that has the need; for one that is opened by name, the object that calls dlopen"""
    need: str
    """as in DT_NEEDED, or as the code spells it"""
    path: str | None
    """the file that serves; None where none does"""
    places: tuple[SearchedPlace, ...] = ()
    """in the order of the search; where a file serves, the last one led to it"""
    opener: str | None = None
    """the file whose code opens it by name, a source with its line; None for a DT_NEEDED"""

    @property
    def how(self) -> SearchStep | None:
        """The step that found it."""
        return self.places[-1].how if self.path is not None else None


@dataclass(frozen=True, slots=True)
class MappedFile:
    """One file in a simulated process."""

    name: str
    """the name under which it was opened, ``$ORIGIN`` already expanded"""
    path: str
    """as ld.so has it: ``..`` and all"""
    by: str | None
    """the file that needed it; None for one that was opened on its own"""


@dataclass(frozen=True, slots=True)
class UnmetNeed:
    """A need for which ld.so found nothing."""

    need: str
    by: str
    stop: str = ""
    """the place at which ld.so ended its search, and why; "" where it searched everywhere"""


@dataclass(frozen=True, slots=True)
class SimulatedProcess:
    """The files of a process after its start and some calls of dlopen."""

    mapped: tuple[MappedFile, ...]
    """in the order of loading; the program is the first"""
    unmet: tuple[UnmetNeed, ...] = ()
    """of the program: all. Of an opened library: the first, as ld.so then gives the library up"""
    needs: tuple[TracedNeed, ...] = ()
    """every need that was searched, in that order; paths are as ld.so has them"""


@dataclass(frozen=True, slots=True)
class Start:
    """The process that the search is made in."""

    program: str | None
    """the Python that opens the file; None where the file itself is the first one"""
    found_by: str
    """how the program or the loader was found"""
    loader: str | None
    """None: none is known, so no default directory is"""
    known: LoaderDefaults
    """what that loader knows by itself"""
    library_path: tuple[str, ...] = ()
    """LD_LIBRARY_PATH"""
    target: Target | None = None
    """the same Python as ``program`` with its libc"""


@dataclass(frozen=True, slots=True)
class Trace:
    """The needs of the traced files."""

    root: str
    """the file, or the tree's root"""
    files: Mapping[str, ElfFacts]
    """every traced file and every library that serves one, by path"""
    asked: tuple[str, ...]
    """the traced files"""
    start: Start
    links: tuple[TracedNeed, ...]
    """of every file in ``files`` if one file was traced; of the tree's own files if it was a tree. Paths are
    without ``..``; links to files are kept"""
    opened: tuple[TracedNeed, ...] = ()
    """what code opens by name: the process starts without it, and may do without it"""
    tree: Tree | None = None
    skipped: Mapping[str, Skip] = field(default_factory=dict)
    """files of the tree that are not for this process, or no ELF file that could be read"""
    conflicts: tuple[LoadConflict, ...] = ()
    """what does not load after another library of the same soname"""

    def needs_of(self, soname: str) -> tuple[TracedNeed, ...]:
        """Return the needs of this name, last those that code opens."""
        return tuple(link for link in (*self.links, *self.opened) if link.need == soname)

    @property
    def unmet(self) -> tuple[TracedNeed, ...]:
        """The needs for which nothing was found."""
        return tuple(link for link in self.links if link.path is None)
