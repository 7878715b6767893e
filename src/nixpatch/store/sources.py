"""From what the user gave to the directories that libraries may be taken from, in order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nixpatch.errors import RequestError
from nixpatch.model import Machine, Source, Target
from nixpatch.store.cached_reads import Headers, Listings
from nixpatch.store.closure import closure
from nixpatch.store.lockfile import Lock
from nixpatch.store.nix_store import Store


@dataclass(frozen=True, slots=True)
class Request:
    """What the user said about sources."""

    libs: tuple[str, ...] = ()
    """``--lib``: a directory of libraries, or a prefix with ``lib`` and ``lib64``"""
    closures: tuple[str, ...] = ()
    """``--closure``: a store path, or a symlink to one such as ``./result``"""
    pure: bool = False
    """leave the local store at large out"""
    nixpkgs: tuple[str, ...] = ()
    """store paths that were realised for ``--nixpkgs``"""
    lock: Lock | None = None
    """the store serves what this has and nothing else"""


@dataclass(frozen=True, slots=True)
class LibraryDirectory:
    """A directory that libraries may be taken from."""

    path: str
    """real if it is in the store; as the user gave it, made absolute, elsewhere"""
    source: Source
    package: str
    """store path name without hash; "" outside a store"""
    in_target_closure: bool
    names: frozenset[str] | None = None
    """the names that may be taken from it, and from nowhere else; None: all of its libraries"""


def target_closure(store: Store, target: Target, headers: Headers) -> frozenset[str]:
    """Return the store paths that the target Python brings along; empty if it is not from the store.

    Raises:
        MachineError: Nix failed.

    """
    files = (target.python, target.loader, target.libc_dir)
    roots = {store.store_path_of(file, resolve=True) for file in files if file} - {None}
    roots_here = sorted(root for root in roots if root is not None and os.path.lexists(root))
    return frozenset(closure(store, roots_here, headers)) if roots_here else frozenset()


def library_directories(
    store: Store,
    machine: Machine,
    of_target: frozenset[str],
    request: Request,
    *,
    headers: Headers,
    listings: Listings,
) -> tuple[LibraryDirectory, ...]:
    """Return the directories of all sources but the store at large, each under the first that has it.

    ``--lib`` keeps the order given; every other source is sorted by path. ``of_target`` is the target's
    closure. With a lock, the store serves through it alone; what a lock cannot hold, libraries outside the
    store, still comes from ``--lib``.

    Raises:
        RequestError: a ``--lib`` or ``--closure`` that does not exist or serves nothing.
        MachineError: Nix failed.

    """
    found: dict[str, LibraryDirectory] = {}

    def add(source: Source, directory: str, names: frozenset[str] | None = None) -> None:
        if directory not in found and not is_stubs(directory):
            path = store.store_path_of(directory)
            package = store.package_name(path) if path else ""
            found[directory] = LibraryDirectory(directory, source, package, path in of_target, names)

    for directory, names in request.lock.directories().items() if request.lock else ():
        add(Source.LOCK, directory, names)
    for given in request.libs:
        for directory in _given(store, given, machine, headers, listings):
            if request.lock is not None and store.store_path_of(directory) is not None:
                raise RequestError(
                    f"--lib {given}: with --locked the store serves what the lock has, no more"
                )
            add(Source.LIB, directory)
    if request.lock is not None:
        return tuple(found.values())
    for path in _closures(store, request.closures, headers):
        for directory in _lib_of(store, path, listings):
            add(Source.CLOSURE, directory)
    for path in sorted(of_target):
        for directory in _lib_of(store, path, listings):
            add(Source.TARGET_CLOSURE, directory)
    for path in request.nixpkgs:
        for directory in _lib_of(store, path, listings):
            add(Source.NIXPKGS, directory)
    return tuple(found.values())


def is_stubs(directory: str) -> bool:
    """Whether a directory holds stand-ins to link against, never to be loaded: CUDA's ``lib/stubs``."""
    return directory.rpartition("/")[2] == "stubs"


def _given(store: Store, given: str, machine: Machine, headers: Headers, listings: Listings) -> list[str]:
    """Return the library directories of one ``--lib``."""
    if not os.path.isdir(given):
        what = (
            "not a directory; name the directory of the library"
            if os.path.lexists(given)
            else "does not exist"
        )
        raise RequestError(f"--lib {given}: {what}")
    if not os.access(given, os.R_OK | os.X_OK):
        raise RequestError(f"--lib {given}: cannot be read; check its permissions")
    path = os.path.abspath(given)
    if store.store_path_of(path, resolve=True):
        path = store.canonical(path)  # a profile moves on, the store path that it stands for today does not
    # Resolved for the look only: outside the store, what is written is what was asked for.
    places = [path, *_lib_of(store, path, listings)]
    places = [place for place in places if listings.names(os.path.realpath(place))]
    others: set[str] = set()
    for place in places:
        for name in listings.names(os.path.realpath(place)):
            header = headers.get(os.path.realpath(os.path.join(place, name)))
            if isinstance(header, str) or header.executable:
                continue
            if header.machine == machine:
                return places
            others.add(header.machine.name)
    if others:
        held = ", ".join(sorted(others))
        raise RequestError(
            f"--lib {given}: its libraries are for {held}, the target Python is {machine.name}"
        )
    raise RequestError(f"--lib {given}: holds no shared library, nor do lib and lib64 in it")


def _closures(store: Store, given: Sequence[str], headers: Headers) -> tuple[str, ...]:
    """Return the store paths of all ``--closure``."""
    roots: list[str] = []
    for name in given:
        path = os.path.abspath(name)
        if not os.path.lexists(path):
            raise RequestError(
                f"--closure {name}: does not exist; build it, or fetch it with nix-store --realise"
            )
        root = store.store_path_of(path, resolve=True)
        if root is None:
            raise RequestError(
                f"--closure {name}: not a path in the store {store.directory}; use --lib for it"
            )
        if not os.path.lexists(root):
            raise RequestError(f"--closure {name}: {root} does not exist (collected as garbage?)")
        roots.append(root)
    return closure(store, sorted(set(roots)), headers) if roots else ()


def _lib_of(store: Store, prefix: str, listings: Listings) -> Iterator[str]:
    """Yield ``lib`` and ``lib64`` of a prefix, links resolved: one may be a link to the other."""
    for name in ("lib", "lib64"):
        directory = f"{prefix}/{name}"
        if listings.at(directory) is None and os.path.islink(directory):
            directory = store.canonical(directory)
        if listings.at(directory) is not None:
            yield directory
