"""What a process maps in the end, computed without running anything: glibc's ld.so from the first file on.

``loader`` answers for one file on its own; here the whole process counts: which file asked first, whose
DT_RPATH it inherits, what is loaded under the soname already. The rules are those of ld.so(8), and of
dl-load.c and dl-deps.c where the manual is silent. Left out are what a wheel has no part in: ld.so.cache,
LD_PRELOAD, audit modules, ``glibc-hwcaps`` directories, filters, ``$LIB`` and ``$PLATFORM``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from nixpatch.model import ElfFacts, Tag
from nixpatch.resolve.search_path import substitute


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


def simulate(program: str, around: Surroundings, opened: Sequence[str] = ()) -> Process:
    """Start a program (or, as ``ld.so --list`` does, a library), then let it dlopen() some files in order.

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
        failed = [Unmet(path, program)] if root is None else list(state.load_needs(root, stop=True))
        if failed:
            del state.maps[before:]
            unmet += failed
    return Process(
        tuple(Mapped(m.name, m.path, m.asker.path if m.asker else None) for m in state.maps), tuple(unmet)
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

    def load_needs(self, root: _Map, *, stop: bool) -> Iterator[Unmet]:
        """Load what a file needs, breadth first (dl-deps.c)."""
        listed = {root: None}
        queue = [root]
        for current in queue:
            for need in current.facts.needed:
                name = substitute(need, current.origin)
                found = None if name is None else self.open(name, current)
                if found is None:
                    yield Unmet(name or need, current.path)
                    if stop:
                        return
                elif found not in listed:
                    listed[found] = None
                    queue.append(found)

    def open(self, name: str, asker: _Map) -> _Map | None:
        """Return what serves a name: a loaded file of that name or soname, else the first one on the disk."""
        for known in self.maps:
            if name in known.names or name == known.facts.soname:
                known.names.add(name)
                return known
        for path in self._paths(name, asker):
            facts = self.around.read(path)
            if facts is not None and facts.machine == self.maps[0].facts.machine:
                break
        else:
            return None
        for known in self.maps[1:]:  # nor does ld.so know which file the program is
            if self.around.identity(known.path) == self.around.identity(path):
                known.names.add(name)
                return known
        self.maps.append(_Map(name, path, facts, asker))
        return self.maps[-1]

    def _paths(self, name: str, asker: _Map) -> Iterator[str]:
        if "/" in name:
            yield from self._anchored(name)
            return
        for directory in self._directories(asker):
            yield f"{directory.rstrip('/')}/{name}"

    def _directories(self, asker: _Map) -> Iterator[str]:
        """Yield where a need of ``asker`` is looked for, in order (_dl_map_object in dl-load.c)."""
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
                yield from self._entries(link, Tag.RPATH)
        yield from self.around.library_path
        yield from self._entries(asker, Tag.RUNPATH)
        if not asker.facts.no_default_lib:
            yield from self.around.default_dirs

    def _entries(self, of: _Map, tag: Tag) -> Iterator[str]:
        current = of.facts.current
        if current.tag is tag and current.search_path:
            for entry in current.search_path.split(":"):
                path = substitute(entry, of.origin)
                if path is not None:
                    yield from self._anchored(path)

    def _anchored(self, path: str) -> Iterator[str]:
        if path.startswith("/"):
            yield path
        elif self.around.directory is not None:
            yield os.path.join(self.around.directory, path)
