"""The search of glibc's ld.so, computed without running anything.

``locate`` answers for one need of a file that is loaded on its own, by its search path and the directories of
the loader. What a parent's DT_RPATH, LD_LIBRARY_PATH or a loaded library of the same soname would add is left
out on purpose: nixpatch makes every file self-contained, so that the answer does not depend on them.

``simulate`` follows a whole process, where all of that counts. The rules are those of ld.so(8), and of
dl-load.c and dl-deps.c where the manual is silent. LD_PRELOAD, audit modules, ``glibc-hwcaps`` directories,
filters, ``$LIB`` and ``$PLATFORM`` are left out: wheels do not depend on them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from nixpatch.model import ElfFacts, Machine, SearchStop, Tag
from nixpatch.model.trace import (
    MappedFile,
    SearchedPlace,
    SearchStep,
    SimulatedProcess,
    TracedNeed,
    UnmetNeed,
)
from nixpatch.resolve.search_path import expand, names_path, substitute


@dataclass(frozen=True, slots=True)
class LocatedFile:
    """A file that ld.so opens for a need."""

    path: str
    entry: str | None
    """the search path entry that led to it; None for a need that is a path, or a default directory"""
    stop: SearchStop | None = None
    """why the load fails at this file"""


def locate(
    need: str,
    *,
    search_path: str | None,
    directory: str,
    machine: Machine,
    machine_of: Callable[[str], Machine | None],
    default_dirs: tuple[str, ...] = (),
    stop_at: Callable[[str, Machine], SearchStop | None] = lambda *_: None,
) -> LocatedFile | None:
    """Return the file that ld.so opens for a need, or fails to open; None if it finds nothing.

    Args:
        need: the DT_NEEDED of a file.
        search_path: that of the file.
        directory: that of the file, a real path.
        machine: that of the file: ld.so skips files of another class or machine and searches on.
        machine_of: returns the machine of the ELF file at a path, None where there is none.
        default_dirs: the directories built into the loader.
        stop_at: returns why ld.so ends the search at a path for files of a machine.

    """
    if names_path(need):
        path = expand(need, directory)  # a relative one depends on the process's current directory
        if path is None:
            return None
        stop = stop_at(path, machine)
        return LocatedFile(path, None, stop) if stop is not None or machine_of(path) == machine else None
    entries = [(entry, expand(entry, directory)) for entry in search_path.split(":")] if search_path else []
    for places in (entries, [(None, default) for default in default_dirs]):
        for entry, place in places:
            if place is None:
                continue
            path = f"{place}/{need}"
            stop = stop_at(path, machine)
            if stop is not None and not stop.is_fatal:
                break
            if stop is not None or machine_of(path) == machine:
                return LocatedFile(path, entry, stop)
    return None


@dataclass(frozen=True, slots=True)
class LoaderConfig:
    """Everything besides the files themselves that affects the search of ld.so."""

    read: Callable[[str], ElfFacts | None]
    """returns the facts of the ELF file at a path, which need not be normalised; None where there is none"""
    identity: Callable[[str], Hashable] = os.path.normpath
    """equal for two paths of one file: ld.so compares device and inode"""
    default_dirs: tuple[str, ...] = ()
    ld_library_path: tuple[str, ...] = ()
    loader: str | None = None
    """ld.so itself, which is in every process"""
    current_directory: str | None = None
    """for relative entries and needs; None finds nothing by them"""
    cache: str | None = None
    """the file of ld.so.cache(8), None where the loader has none"""
    cached: Callable[[str], Sequence[str]] = lambda _: ()
    """returns the paths in the cache under a name"""
    stop_at: Callable[[str, Machine], SearchStop | None] = lambda *_: None
    """returns why ld.so ends a search at a path for files of a machine"""


def simulate(
    program: str, config: LoaderConfig, opened: Sequence[str] = (), *, whole: bool = False
) -> SimulatedProcess:
    """Start a program and let it dlopen() some files in order.

    Args:
        program: the program; a library is mapped as by ``ld.so --list``.
        config: the loader and its environment.
        opened: the files to open.
        whole: continue after an unmet need, and keep files that could not be opened because of it. A process
            does not have these, but a person wants to see them.

    Raises:
        FileNotFoundError: there is no ELF file at ``program``.

    """
    namespace, main = _started(program, config)
    loader_facts = config.read(config.loader) if config.loader is not None else None
    if config.loader is not None and loader_facts is not None:
        namespace.maps.append(_LinkMap(config.loader, config.loader, loader_facts, None))
    main.names.clear()  # its name is "" to ld.so; only its soname can serve a need
    unmet = list(namespace.load_needs(main, stop=False))
    for path in opened:
        before = len(namespace.maps)
        root = namespace.open(path, main)
        if root is None:
            failed = [UnmetNeed(path, program)]
        else:
            failed = list(namespace.load_needs(root, stop=not whole))
        if failed and not whole:
            del namespace.maps[before:]
        unmet += failed
    return SimulatedProcess(
        tuple(MappedFile(m.name, m.path, m.parent.path if m.parent else None) for m in namespace.maps),
        tuple(unmet),
        tuple(namespace.needs),
    )


def _started(program: str, config: LoaderConfig) -> tuple[_Namespace, _LinkMap]:
    facts = config.read(program)
    if facts is None:
        raise FileNotFoundError(program)
    main = _LinkMap(program, program, facts, None)
    return _Namespace(config, [main]), main


def search_opened(
    program: str, config: LoaderConfig, caller: str, needs: Iterable[tuple[Sequence[str], str]]
) -> Iterator[TracedNeed]:
    """Yield where a file of a process finds the libraries that it opens by name.

    Args:
        program: the program that the process runs.
        config: the loader and its environment.
        caller: the file that calls dlopen: its search path counts, and those of its parents.
        needs: names of each library, of which the first that is found serves, and the code that opens it.

    Raises:
        FileNotFoundError: there is no ELF file at ``program``.

    """
    namespace, main = _started(program, config)
    list(namespace.load_needs(main, stop=False))
    opening = namespace.open(caller, main) or main
    list(namespace.load_needs(opening, stop=False))
    before = len(namespace.maps)
    for names, opener in needs:
        results: list[TracedNeed] = []
        for name in names:
            places: list[SearchedPlace] = []
            library = namespace.open(name, opening, places)
            path = library.path if library is not None else None
            results.append(TracedNeed(opening.path, name, path, tuple(places), opener))
            if library is not None:
                break
        del namespace.maps[before:]
        yield results[-1] if results[-1].path is not None else results[0]


@dataclass(eq=False, slots=True)
class _LinkMap:
    """The part of glibc's ``struct link_map`` that decides which files are opened."""

    name: str
    path: str
    facts: ElfFacts
    parent: _LinkMap | None
    """``l_loader``: its DT_RPATH is inherited"""
    names: set[str] = field(default_factory=set)
    """every name under which it was found so far"""

    def __post_init__(self) -> None:
        self.names |= {self.name, self.path}

    @property
    def origin(self) -> str:
        """The value of ``$ORIGIN``: the directory of the path as it was opened, links and all."""
        return os.path.dirname(self.path)


@dataclass(eq=False, slots=True)
class _Namespace:
    """The files of the process so far."""

    config: LoaderConfig
    maps: list[_LinkMap]
    needs: list[TracedNeed] = field(default_factory=list)

    def load_needs(self, root: _LinkMap, *, stop: bool) -> Iterator[UnmetNeed]:
        """Load the needs of a file, breadth first (dl-deps.c)."""
        listed = {root: None}
        queue = [root]
        for current in queue:
            for need in current.facts.needed:
                name = substitute(need, current.origin)
                places: list[SearchedPlace] = []
                library = None if name is None else self.open(name, current, places)
                path = library.path if library is not None else None
                self.needs.append(TracedNeed(current.path, need, path, tuple(places)))
                if library is None:
                    yield UnmetNeed(name or need, current.path, self._stop_of(places))
                    if stop:
                        return
                elif library not in listed:
                    listed[library] = None
                    queue.append(library)

    def open(self, name: str, parent: _LinkMap, places: list[SearchedPlace] | None = None) -> _LinkMap | None:
        """Return the loaded file of this name or soname, else load the first one on the disk.

        Adds the places that were searched to ``places``.
        """
        places = [] if places is None else places
        for loaded in self.maps:
            if name in loaded.names or name == loaded.facts.soname:
                loaded.names.add(name)
                first = loaded.parent or loaded
                places.append(SearchedPlace(SearchStep.LOADED, loaded.path, first.path))
                return loaded
        ended: set[tuple[SearchStep, str]] = set()
        for place in self._places(name, parent):
            if (place.how, place.of) in ended:
                continue
            places.append(place)
            stop = self.config.stop_at(place.path, self.maps[0].facts.machine) if place.path else None
            if stop is not None:
                if stop.is_fatal:
                    return None
                ended.add((place.how, place.of))
                continue
            facts = self.config.read(place.path) if place.path is not None else None
            if place.path is not None and facts is not None and facts.machine == self.maps[0].facts.machine:
                return self._map(name, place.path, facts, parent)
        return None

    def _stop_of(self, places: Sequence[SearchedPlace]) -> str:
        path = places[-1].path if places else None
        stop = self.config.stop_at(path, self.maps[0].facts.machine) if path is not None else None
        return f"{path}, which {stop.why}" if stop is not None and stop.is_fatal else ""

    def _map(self, name: str, path: str, facts: ElfFacts, parent: _LinkMap) -> _LinkMap:
        for loaded in self.maps[1:]:  # ld.so does not know which file the program is
            if self.config.identity(loaded.path) == self.config.identity(path):
                loaded.names.add(name)
                return loaded
        self.maps.append(_LinkMap(name, path, facts, parent))
        return self.maps[-1]

    def _places(self, name: str, parent: _LinkMap) -> Iterator[SearchedPlace]:
        """Yield the places where a need of ``parent`` is searched, in order (_dl_map_object in dl-load.c)."""
        if "/" in name:
            for path in self._absolute(name):
                yield SearchedPlace(SearchStep.NAMED, path, parent.path, name)
            return
        if parent.facts.current.tag is not Tag.RUNPATH:
            # Only the parent's own DT_RUNPATH stops this walk; one on the way merely has no DT_RPATH.
            chain: list[_LinkMap] = []
            ancestor: _LinkMap | None = parent
            while ancestor is not None:
                chain.append(ancestor)
                ancestor = ancestor.parent
            if self.maps[0] not in chain:
                chain.append(self.maps[0])
            for link in chain:
                how = SearchStep.RPATH if link is parent else SearchStep.PARENT_RPATH
                yield from self._entries(name, link, Tag.RPATH, how)
        for entry in self.config.ld_library_path:
            for directory in self._absolute(entry):
                yield SearchedPlace(SearchStep.LIBRARY_PATH, _in(directory, name), "", entry)
        yield from self._entries(name, parent, Tag.RUNPATH, SearchStep.RUNPATH)
        yield from self._defaults(name, parent)

    def _entries(self, name: str, link: _LinkMap, tag: Tag, how: SearchStep) -> Iterator[SearchedPlace]:
        current = link.facts.current
        if current.tag is tag and current.search_path:
            for entry in current.search_path.split(":"):
                path = substitute(entry, link.origin)
                if path is not None:
                    for directory in self._absolute(path):
                        yield SearchedPlace(how, _in(directory, name), link.path, entry)

    def _defaults(self, name: str, parent: _LinkMap) -> Iterator[SearchedPlace]:
        """Yield the cache and the loader's directories; under DF_1_NODEFLIB the cache without the latter."""
        directories = self.config.default_dirs
        no_default_lib = parent.facts.no_default_lib
        if self.config.cache is not None:
            prefixes = tuple(f"{directory}/" for directory in directories) if no_default_lib else ()
            paths = [path for path in self.config.cached(name) if not path.startswith(prefixes)]
            for path in paths or (None,):
                yield SearchedPlace(SearchStep.CACHE, path, self.config.cache)
        for directory in () if no_default_lib else directories:
            yield SearchedPlace(SearchStep.DEFAULT, _in(directory, name), "", directory)

    def _absolute(self, path: str) -> Iterator[str]:
        if path.startswith("/"):
            yield path
        elif self.config.current_directory is not None:
            yield os.path.join(self.config.current_directory, path)


def _in(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"
