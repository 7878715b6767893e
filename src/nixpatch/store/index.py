"""The index of providers: from the file name that ld.so looks for to the files that can serve it."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from heapq import merge
from itertools import groupby, islice, takewhile
from types import TracebackType
from typing import Self

from nixpatch.model import Provider, Source, Target
from nixpatch.policy import default_policy
from nixpatch.store import whole_store
from nixpatch.store.cache import Cache
from nixpatch.store.cached_reads import CachedHeaders, CachedListings, ElfReader, LibraryHeader
from nixpatch.store.nix_store import Store
from nixpatch.store.sources import (
    LibraryDirectory,
    LibrarySources,
    given_closures,
    is_stubs,
    library_directories,
    target_closure,
)
from nixpatch.store.whole_store import StoreNames
from nixpatch.store_paths import (
    library_stem,
    library_version,
    package_of_entry,
    version_key,
    version_of,
)

_MAX_NAMES = 256  # names that begin alike
_MAX_OTHER_VERSIONS = 8  # that a report names for a missing library: dozens would hide the rest


class ProviderIndex:
    """The providers of every library name; a context manager that saves the cache. See :func:`open_index`.

    All names are known from the start. The headers of a library are read when its name is asked for.
    """

    def __init__(
        self,
        store: Store,
        *,
        named: Sequence[LibraryDirectory],
        store_names: StoreNames,
        target_paths: frozenset[str],
        closure_paths: Sequence[str] = (),
        headers: CachedHeaders,
        listings: CachedListings,
        cache: Cache,
    ) -> None:
        self.target_closure = target_paths
        """store paths of the target Python's closure"""
        self.closure_paths = tuple(closure_paths)
        """store paths of all ``--closure``"""
        self._store_names = store_names
        self._store = store
        self._headers = headers
        self._listings = listings
        self._cache = cache
        self._providers: dict[str, tuple[Provider, ...]] = {}
        self._rejected: dict[str, tuple[str, ...]] = {}
        self._named: dict[bytes, list[LibraryDirectory]] = {}
        self._named_paths = {directory.path for directory in named}
        locked = {os.fsencode(name) for directory in named for name in directory.names or ()}
        for directory in named:
            real = directory.path if directory.package else os.path.realpath(directory.path)
            only = None if directory.names is None else {os.fsencode(name) for name in directory.names}
            for name in (listings.raw_names(real) or b"").split(b"\0")[:-1]:
                if name in only if only is not None else name not in locked:
                    self._named.setdefault(name, []).append(directory)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Save the cache, after an error as well: its rows are right."""
        self.save()

    def save(self) -> None:
        """Write the new rows into the cache file; never fails."""
        self._cache.save()

    def providers(self, name: str) -> tuple[Provider, ...]:
        """Return every shared library of this file name, of any machine, best first.

        Order: source, what the target's closure holds, newest version of the package, path; several ``--lib``
        as they were given. A library with the DT_SONAME ``name`` but another file name is not among them:
        ld.so opens file names.
        """
        if name not in self._providers:
            self._providers[name], self._rejected[name] = self._find(name)
        return self._providers[name]

    def considered(self, name: str) -> tuple[str, ...]:
        """Return lines on files of this name that cannot serve, then on other versions of the library."""
        self.providers(name)
        stem = os.fsencode(library_stem(name))
        others: list[str] = []
        for other in self._names_from(stem):
            if not other.startswith(stem) or len(others) == _MAX_OTHER_VERSIONS:
                break
            text = os.fsdecode(other)
            if text != name and other[len(stem) :][:1] in (b"", b"."):
                others.extend(f"{best.directory}/{text}: another name" for best in self.providers(text)[:1])
        return (*self._rejected[name], *others)

    @property
    def looked_at(self) -> frozenset[str]:
        """The files and directories whose contents counted, whether they were read or known by their state.

        Of the store at large those that Nix has not sealed; what is sealed does not change.
        """
        return self._headers.paths | self._listings.paths | frozenset(self._store_names.changeable)

    @property
    def cache(self) -> Cache:
        """The cache that the index reads from and saves."""
        return self._cache

    def beginning(self, start: str) -> tuple[str, ...]:
        """Return the library names that begin so, sorted; so many at most that a report can list them."""
        prefix = os.fsencode(start)
        names = takewhile(lambda name: name.startswith(prefix), self._names_from(prefix))
        return tuple(os.fsdecode(name) for name in islice(names, _MAX_NAMES))

    def versions(self, stem: str) -> tuple[str, ...]:
        """Return the names that are ``libz.so`` or a version of it, the newest first."""
        start = os.fsencode(stem)
        names = [
            os.fsdecode(name)
            for name in islice(self._names_from(start), _MAX_NAMES)
            if name == start or name.startswith(start + b".")
        ]
        return tuple(sorted(names, key=lambda name: version_key(library_version(name)), reverse=True))

    def _names_from(self, start: bytes) -> Iterator[bytes]:
        """Yield the names of libraries from ``start`` on, sorted, each once."""
        both = (_names_from(self._sorted_names, start), _names_from(self._store_names.names, start))
        return (name for name, _ in groupby(merge(*both)))

    @cached_property
    def _sorted_names(self) -> list[bytes]:
        return sorted(self._named)

    def _candidates(self, name: str) -> Iterator[LibraryDirectory]:
        yield from self._named.get(os.fsencode(name), ())
        for path in self._store_names.directories_of(name):
            if path not in self._named_paths:
                owner = self._store.store_path_of(path)
                package = package_of_entry(os.path.basename(owner)) if owner else ""
                yield LibraryDirectory(path, Source.STORE, package, owner in self.target_closure)

    def _find(self, name: str) -> tuple[tuple[Provider, ...], tuple[str, ...]]:
        """Return the providers of a name, best first, and a line on each file that cannot serve."""
        providers: dict[str, Provider] = {}
        rejected: dict[str, None] = {}
        for candidate in self._candidates(name):
            path = os.path.join(candidate.path, name)
            directory, real = home_of(self._store, candidate.path, name)
            if directory in providers:
                continue  # the same file through a link farm, from a source that is asked later
            if is_stubs(directory) or is_stubs(os.path.dirname(real)):
                rejected[f"{path}: a stub, only for linking"] = None
                continue
            header = self._headers.get(real)
            if isinstance(header, str):
                rejected[f"{path}: {header}"] = None
            elif header.executable:
                rejected[f"{path}: a program, not a library"] = None
            else:
                providers[directory] = self._provider(name, directory, real, header, candidate.source)
        given = {directory: rank for rank, directory in enumerate(providers)}
        best = sorted(providers.values(), key=lambda provider: provider.directory)
        best.sort(key=lambda provider: version_key(version_of(provider.package)), reverse=True)
        best.sort(key=lambda provider: (provider.source, not provider.in_target_closure))
        # Of several --lib the first one named wins, as with every other list of directories.
        best.sort(
            key=lambda provider: given[provider.directory] if provider.source is Source.LIB else len(given)
        )
        return tuple(best), tuple(rejected)

    def _provider(
        self, name: str, directory: str, real: str, header: LibraryHeader, source: Source
    ) -> Provider:
        policy = default_policy()
        return Provider(
            name=name,
            directory=directory,
            real=real,
            machine=header.machine,
            soname=header.soname,
            source=source,
            package=self._store.package_name(directory),
            in_target_closure=self._store.store_path_of(directory) in self.target_closure,
            version_defs=frozenset(header.version_defs),
            libc_needs=frozenset(header.libc_needs),
            beside_libc=policy.holds_libc(self._listings.names(os.path.realpath(directory))),
            libc=policy.libc_needed(header.needed),
        )


def _names_from(names: Sequence[bytes], start: bytes) -> Iterator[bytes]:
    return (names[row] for row in range(bisect_left(names, start), len(names)))


def open_index(
    store: Store,
    target: Target,
    reader: ElfReader,
    sources: LibrarySources | None = None,
    *,
    cache: Cache | None = None,
) -> ProviderIndex:
    """Return the index over all sources, the target's closure and the store.

    Args:
        store: the store at hand.
        target: whose closure goes before the rest of the store, and whose machine ``--lib`` has to have.
        reader: reads the headers of one ELF file.
        sources: named by the user; none by default.
        cache: what is known of the store, and is to be kept; None keeps nothing.

    Raises:
        RequestError: a ``--lib`` or ``--closure`` that does not exist or serves nothing.
        MachineError: Nix failed, or the store cannot be listed.

    """
    sources = sources or LibrarySources()
    rows = cache or Cache()
    headers, listings = CachedHeaders(reader, rows), CachedListings(rows)
    target_paths = target_closure(store, target, headers)
    locked = sources.lockfile is not None
    closure_paths = () if locked else given_closures(store, sources.closures, headers)
    named = library_directories(
        store,
        target.machine,
        target_paths,
        sources,
        closure_paths=closure_paths,
        headers=headers,
        listings=listings,
    )
    # With a lockfile the store serves nothing else.
    only_named = sources.pure or locked
    index = ProviderIndex(
        store,
        named=named,
        store_names=StoreNames() if only_named else whole_store.list_store(store, rows),
        target_paths=target_paths,
        closure_paths=closure_paths,
        headers=headers,
        listings=listings,
        cache=rows,
    )
    index.save()  # the expensive part is done: keep it even if the run is interrupted
    return index


_MAX_LINKS = 40  # as many as Linux follows (path_resolution(7))


def home_of(store: Store, directory: str, name: str) -> tuple[str, str]:
    """Return the directory to write for ``directory/name``, and the regular file behind it.

    A profile or link farm is replaced by the store path that really holds the library, if that has a file of
    the same name: a profile changes, and a farm would draw everything else in it into the closure. Links
    within one store path stay as they are.
    """
    path = os.path.join(directory, name)
    if not os.path.islink(path):
        return directory, path if store.store_path_of(directory) else store.canonical(path)
    real = store.canonical(path)
    owner = store.store_path_of(real)
    if owner is None or owner == store.store_path_of(directory):
        return directory, real
    nearest = os.path.dirname(real)
    if store.canonical(os.path.join(nearest, name)) == real:
        return nearest, real
    # The file itself is called otherwise: take the last link on the way that has the right name.
    home = directory
    for _ in range(_MAX_LINKS):
        if not os.path.islink(path):
            break
        step = os.path.join(os.path.dirname(path), os.readlink(path))
        path = os.path.join(store.canonical(os.path.dirname(step)), os.path.basename(step))
        if os.path.basename(path) == name and store.store_path_of(path):
            home = os.path.dirname(path)
    return home, real
