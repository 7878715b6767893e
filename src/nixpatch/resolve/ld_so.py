"""What a process maps in the end, computed without running anything: glibc's ld.so from the first file on.

``loader`` answers for one file on its own; here the whole process counts: which file asked first, whose
DT_RPATH it inherits, what is loaded under the soname already. The rules are those of ld.so(8), and of
dl-load.c and dl-deps.c where the manual is silent. Left out are what a wheel has no part in: LD_PRELOAD,
audit modules, ``glibc-hwcaps`` directories, filters, ``$LIB`` and ``$PLATFORM``.

Where glibc's ld.so finds one need of one file, computed without running anything.

The rules are those of ld.so(8) for a file that is loaded on its own: its own DT_RUNPATH, else its own
DT_RPATH, then the directories built into the loader. What a parent's DT_RPATH, LD_LIBRARY_PATH or an
already loaded library of the same soname would add is left out on purpose: nixpatch makes every file
self-contained, so that the answer does not depend on them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from nixpatch.model import ElfFacts, Machine, Tag
from nixpatch.model.trace import How, Need, Place
from nixpatch.resolve.search_path import expand, substitute


@dataclass(frozen=True, slots=True)
class Mapped:
    """One file in the process."""

    name: str
    """what was asked for when it was opened, ``$ORIGIN`` already expanded"""
    path: str
    """as ld.so spells it: ``..`` and all"""
    by: str | None
    """the file that needed it; None for what was opened on its own"""


@dataclass(frozen=True, slots=True)
class Unmet:
    """A need for which ld.so found nothing."""

    need: str
    by: str


@dataclass(frozen=True, slots=True)
class Process:
    """The end of it."""

    mapped: tuple[Mapped, ...]
    """in the order of loading; the program is the first"""
    unmet: tuple[Unmet, ...] = ()
    """of the program: every one. Of an opened library: the first, as ld.so then gives the library up"""
    needs: tuple[Need, ...] = ()
    """every need that was looked up, in that order, with the places"""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What ld.so knows besides the files."""

    read: Callable[[str], ElfFacts | None]
    """the facts of the ELF file at a path, which need not be normalised; None where there is none"""
    identity: Callable[[str], Hashable] = os.path.normpath
    """equal for two paths of one file: ld.so compares device and inode"""
    default_dirs: tuple[str, ...] = ()
    library_path: tuple[str, ...] = ()
    """LD_LIBRARY_PATH"""
    loader: str | None = None
    """ld.so itself, which is in every process"""
    directory: str | None = None
    """the current directory, for relative entries and needs; None finds nothing by them"""
    cache: str | None = None
    """the file of ld.so.cache(8), None where the loader has none"""
    cached: Callable[[str], Sequence[str]] = lambda _: ()
    """what the cache has under a name"""


def simulate(
    program: str, around: Surroundings, opened: Sequence[str] = (), *, whole: bool = False
) -> Process:
    """Start a program (or, as ``ld.so --list`` does, a library), then let it dlopen() some files in order.

    ``whole`` goes on after a need that is not met, and keeps what could not have been opened for lack of it:
    not what a process has, but what a person wants to see.

    Raises:
        FileNotFoundError: there is no ELF file at ``program``.

    """
    facts = around.read(program)
    if facts is None:
        raise FileNotFoundError(program)
    state = _State(around, [_Map(program, program, facts, None)])
    if around.loader is not None and (itself := around.read(around.loader)) is not None:
        state.maps.append(_Map(around.loader, around.loader, itself, None))
    main = state.maps[0]
    main.names.clear()  # its name is "" to ld.so; only its soname can serve a need
    unmet = list(state.load_needs(main, stop=False))
    for path in opened:
        before = len(state.maps)
        root = state.open(path, main)
        failed = [Unmet(path, program)] if root is None else list(state.load_needs(root, stop=not whole))
        if failed and not whole:
            del state.maps[before:]
        unmet += failed
    return Process(
        tuple(Mapped(m.name, m.path, m.asker.path if m.asker else None) for m in state.maps),
        tuple(unmet),
        tuple(state.needs),
    )


@dataclass(eq=False, slots=True)
class _Map:
    """glibc's ``struct link_map``, as far as it decides what is opened."""

    name: str
    path: str
    facts: ElfFacts
    asker: _Map | None
    """``l_loader``: its DT_RPATH is inherited"""
    names: set[str] = field(default_factory=set)
    """every name under which it was found so far"""

    def __post_init__(self) -> None:
        self.names |= {self.name, self.path}

    @property
    def origin(self) -> str:
        """What ``$ORIGIN`` stands for: no link is resolved on the way."""
        return os.path.dirname(self.path)


@dataclass(eq=False, slots=True)
class _State:
    around: Surroundings
    maps: list[_Map]
    needs: list[Need] = field(default_factory=list)

    def load_needs(self, root: _Map, *, stop: bool) -> Iterator[Unmet]:
        """Load what a file needs, breadth first (dl-deps.c)."""
        listed = {root: None}
        queue = [root]
        for current in queue:
            for need in current.facts.needed:
                name = substitute(need, current.origin)
                places: list[Place] = []
                found = None if name is None else self.open(name, current, places)
                self.needs.append(Need(current.path, need, found.path if found else None, tuple(places)))
                if found is None:
                    yield Unmet(name or need, current.path)
                    if stop:
                        return
                elif found not in listed:
                    listed[found] = None
                    queue.append(found)

    def open(self, name: str, asker: _Map, places: list[Place] | None = None) -> _Map | None:
        """Return what serves a name: a loaded file of that name or soname, else the first one on the disk.

        Adds the places it looked at to ``places``.
        """
        places = [] if places is None else places
        for known in self.maps:
            if name in known.names or name == known.facts.soname:
                known.names.add(name)
                places.append(Place(How.LOADED, known.path, known.asker.path if known.asker else known.path))
                return known
        for place in self._places(name, asker):
            places.append(place)
            facts = self.around.read(place.path) if place.path is not None else None
            if place.path is not None and facts is not None and facts.machine == self.maps[0].facts.machine:
                return self._mapped(name, place.path, facts, asker)
        return None

    def _mapped(self, name: str, path: str, facts: ElfFacts, asker: _Map) -> _Map:
        for known in self.maps[1:]:  # ld.so does not know which file the program is
            if self.around.identity(known.path) == self.around.identity(path):
                known.names.add(name)
                return known
        self.maps.append(_Map(name, path, facts, asker))
        return self.maps[-1]

    def _places(self, name: str, asker: _Map) -> Iterator[Place]:
        """Yield where a need of ``asker`` is looked for, in order (_dl_map_object in dl-load.c)."""
        if "/" in name:
            for path in self._anchored(name):
                yield Place(How.NAMED, path, asker.path, name)
            return
        if asker.facts.current.tag is not Tag.RUNPATH:
            # Only the asker's own DT_RUNPATH stops this walk; one on the way merely has no DT_RPATH.
            chain: list[_Map] = []
            at: _Map | None = asker
            while at is not None:
                chain.append(at)
                at = at.asker
            if self.maps[0] not in chain:
                chain.append(self.maps[0])
            for link in chain:
                how = How.RPATH if link is asker else How.PARENT_RPATH
                yield from self._entries(name, link, Tag.RPATH, how)
        for directory in self.around.library_path:
            for path in self._anchored(directory):
                yield Place(How.LIBRARY_PATH, _in(path, name), "", directory)
        yield from self._entries(name, asker, Tag.RUNPATH, How.RUNPATH)
        yield from self._built_in(name, asker)

    def _entries(self, name: str, of: _Map, tag: Tag, how: How) -> Iterator[Place]:
        current = of.facts.current
        if current.tag is tag and current.search_path:
            for entry in current.search_path.split(":"):
                path = substitute(entry, of.origin)
                if path is not None:
                    for directory in self._anchored(path):
                        yield Place(how, _in(directory, name), of.path, entry)

    def _built_in(self, name: str, asker: _Map) -> Iterator[Place]:
        """Yield what the loader knows by itself; under DF_1_NODEFLIB the cache, less its directories."""
        bare = asker.facts.no_default_lib
        directories = self.around.default_dirs
        if self.around.cache is not None:
            known: list[str | None] = [
                path
                for path in self.around.cached(name)
                if not (bare and path.startswith(tuple(f"{directory}/" for directory in directories)))
            ]
            for path in known or [None]:
                yield Place(How.CACHE, path, self.around.cache)
        for directory in () if bare else directories:
            yield Place(How.DEFAULT, _in(directory, name), "", directory)

    def _anchored(self, path: str) -> Iterator[str]:
        if path.startswith("/"):
            yield path
        elif self.around.directory is not None:
            yield os.path.join(self.around.directory, path)


def _in(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"


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
