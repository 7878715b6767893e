"""Who has a library: from the file name that ld.so looks for to the files that can serve it.

Where a library that is reached through symlinks lives: the directory that may stand in a search path.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from heapq import merge
from itertools import groupby, islice
from types import TracebackType
from typing import Self

from nixpatch.model import Provider, Source, Target
from nixpatch.policy import default_policy
from nixpatch.store import whole_store
from nixpatch.store.cache import Cache
from nixpatch.store.cached_reads import Header, Headers, Listings, Reader
from nixpatch.store.nix_store import Store
from nixpatch.store.sources import LibraryDirectory, Request, is_stubs, library_directories, target_closure
from nixpatch.store.store_paths import (
    library_stem,
    library_version,
    package_of_entry,
    version_key,
    version_of,
)
from nixpatch.store.whole_store import AtLarge

_MANY = 256  # names that begin alike, at the most
_NEAR = 8  # other versions named for a missing library: a few teach, dozens hide the rest


class ProviderIndex:
    """The providers of every library name; a context manager that saves the cache. See :func:`open_index`.

    Names are known at once, headers are read when a name is asked for.
    """

    def __init__(
        self,
        store: Store,
        *,
        named: Sequence[LibraryDirectory],
        at_large: AtLarge,
        of_target: frozenset[str],
        headers: Headers,
        listings: Listings,
        cache: Cache,
    ) -> None:
        self.target_closure = of_target
        """store paths that the target Python brings along"""
        self._named = tuple(named)
        self._at_large = at_large
        self._store = store
        self._headers = headers
        self._listings = listings
        self._cache = cache
        self._answers: dict[str, tuple[Provider, ...]] = {}
        self._refused: dict[str, tuple[str, ...]] = {}
        self._places: dict[bytes, list[LibraryDirectory]] = {}
        self._before = {directory.path for directory in named}
        locked = {os.fsencode(name) for directory in named for name in directory.names or ()}
        for directory in named:
            real = directory.path if directory.package else os.path.realpath(directory.path)
            only = None if directory.names is None else {os.fsencode(name) for name in directory.names}
            for name in (listings.at(real) or b"").split(b"\0")[:-1]:
                if name in only if only is not None else name not in locked:
                    self._places.setdefault(name, []).append(directory)

    @property
    def directories(self) -> tuple[LibraryDirectory, ...]:
        """All that is searched, in the order of their sources."""
        rest = map(os.fsdecode, self._at_large.directories)
        return (*self._named, *(self._of_store(path) for path in rest if path not in self._before))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Save the cache, also on the way out of an error: what was read is right."""
        self.save()

    def save(self) -> None:
        """Write what was read into the cache file; never fails."""
        self._cache.save()

    def providers(self, name: str) -> tuple[Provider, ...]:
        """Return every shared library of this file name, of any machine, best first.

        Order: source, what the target's closure holds, newest version of the package, path; several ``--lib``
        as they were given. A library whose
        DT_SONAME is ``name`` but whose file is called otherwise is not among them: ld.so opens file names.
        """
        if name not in self._answers:
            self._answers[name], self._refused[name] = self._find(name)
        return self._answers[name]

    def considered(self, name: str) -> tuple[str, ...]:
        """Return what is called ``name`` and why it cannot serve, then its other versions that are there."""
        self.providers(name)
        lines = list(self._refused[name])
        stem = os.fsencode(library_stem(name))
        others: list[str] = []
        for other in self._from(stem):
            if not other.startswith(stem) or len(others) == _NEAR:
                break
            text = os.fsdecode(other)
            if text != name and other[len(stem) :][:1] in (b"", b"."):
                others.extend(f"{found.directory}/{text}: another name" for found in self.providers(text)[:1])
        return (*lines, *others)

    def versions(self, stem: str) -> tuple[str, ...]:
        """Return the names that are ``libz.so`` or a version of it, the newest first."""
        begin = os.fsencode(stem)
        found = [
            os.fsdecode(name)
            for name in islice(self._from(begin), _MANY)
            if name == begin or name.startswith(begin + b".")
        ]
        return tuple(sorted(found, key=lambda name: version_key(library_version(name)), reverse=True))

    def _from(self, stem: bytes) -> Iterator[bytes]:
        """Yield the names of libraries from ``stem`` on, sorted, each once."""
        both = (_behind(self._names, stem), _behind(self._at_large.names, stem))
        return (name for name, _ in groupby(merge(*both)))

    @cached_property
    def _names(self) -> list[bytes]:
        return sorted(self._places)

    def _candidates(self, name: str) -> Iterator[LibraryDirectory]:
        yield from self._places.get(os.fsencode(name), ())
        for path in self._at_large.having(name):
            if path not in self._before:
                yield self._of_store(path)

    def _of_store(self, path: str) -> LibraryDirectory:
        owner = self._store.store_path_of(path)
        package = package_of_entry(os.path.basename(owner)) if owner else ""
        return LibraryDirectory(path, Source.STORE, package, owner in self.target_closure)

    def _find(self, name: str) -> tuple[tuple[Provider, ...], tuple[str, ...]]:
        found: dict[str, Provider] = {}
        refused: dict[str, None] = {}
        for place in self._candidates(name):
            path = os.path.join(place.path, name)
            directory, real = home_of(self._store, place.path, name)
            if directory in found:
                continue  # the same file through a link farm, from a source that is asked later
            if is_stubs(directory) or is_stubs(os.path.dirname(real)):
                refused[f"{path}: a stub, only for linking"] = None
                continue
            header = self._headers.get(real)
            if isinstance(header, str):
                refused[f"{path}: {header}"] = None
            elif header.executable:
                refused[f"{path}: a program, not a library"] = None
            else:
                found[directory] = self._provider(name, directory, real, header, place.source)
        given = {directory: rank for rank, directory in enumerate(found)}
        best = sorted(found.values(), key=lambda provider: provider.directory)
        best.sort(key=lambda provider: version_key(version_of(provider.package)), reverse=True)
        best.sort(key=lambda provider: (provider.source, not provider.in_target_closure))
        # Of several --lib the first one named wins, as with every other list of directories.
        best.sort(
            key=lambda provider: given[provider.directory] if provider.source is Source.LIB else len(given)
        )
        return tuple(best), tuple(refused)

    def _provider(self, name: str, directory: str, real: str, header: Header, source: Source) -> Provider:
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
            beside_libc=default_policy().holds_libc(self._listings.names(os.path.realpath(directory))),
            libc=default_policy().libc_needed(header.needed),
        )


def _behind(names: Sequence[bytes], stem: bytes) -> Iterator[bytes]:
    return (names[at] for at in range(bisect_left(names, stem), len(names)))


def open_index(
    store: Store,
    target: Target,
    reader: Reader,
    request: Request | None = None,
    *,
    cache: str | None = None,
    edition: str = "",
) -> ProviderIndex:
    """Return the index over everything that the request and the target bring.

    Args:
        store: the store at hand.
        target: whose closure goes before the rest of the store, and whose machine ``--lib`` has to have.
        reader: reads the headers of one ELF file.
        request: what the user gave; nothing by default.
        cache: the cache file; None reads everything anew.
        edition: version of the program; the cache of another one is not used.

    Raises:
        RequestError: a ``--lib`` or ``--closure`` that does not exist or serves nothing.
        MachineError: Nix failed, or the store cannot be listed.

    """
    asked = request or Request()
    kept = Cache(cache, edition)
    headers, listings = Headers(reader, kept), Listings(kept)
    of_target = target_closure(store, target, headers)
    directories = library_directories(
        store, target.machine, of_target, asked, headers=headers, listings=listings
    )

    index = ProviderIndex(
        store,
        named=directories,
        # With a lock, what the store serves is what the lock has.
        at_large=AtLarge() if asked.pure or asked.lock is not None else whole_store.look(store, kept),
        of_target=of_target,
        headers=headers,
        listings=listings,
        cache=kept,
    )
    index.save()  # the dear part is done: keep it even if the run is cut short
    return index


_MAX_LINKS = 40  # as many as Linux follows (path_resolution(7))


def home_of(store: Store, directory: str, name: str) -> tuple[str, str]:
    """Return the directory to write for ``directory/name``, and the regular file behind it.

    A profile or link farm is left behind for the store path that really holds the library, if that has a file
    of the same name: a profile changes, and a farm would draw everything else in it into the closure. Links
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
