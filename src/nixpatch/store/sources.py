"""The directories that libraries may be taken from: those that the user named, then the target's closure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nixpatch.errors import RequestError
from nixpatch.model import LenderSite, Machine, Source, Target
from nixpatch.store.cached_reads import CachedHeaders, CachedListings
from nixpatch.store.closure import closure
from nixpatch.store.lockfile import Lockfile
from nixpatch.store.nix_store import Store


@dataclass(frozen=True, slots=True)
class LibrarySources:
    """The sources of libraries that the user named."""

    libs: tuple[str, ...] = ()
    """``--lib``: a directory of libraries, or a prefix with ``lib`` and ``lib64``"""
    closures: tuple[str, ...] = ()
    """``--closure``: a store path, or a symlink to one such as ``./result``"""
    lender_sites: Mapping[str, tuple[LenderSite, ...]] = field(default_factory=dict)
    """by ``--lib``: its site-packages that hold libraries; it need hold no others"""
    pure: bool = False
    """leave the rest of the local store out"""
    nixpkgs: tuple[str, ...] = ()
    """store paths that were realised for ``--nixpkgs``"""
    lockfile: Lockfile | None = None
    """``--locked``: the store serves the libraries of this file and no others"""


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


def target_closure(store: Store, target: Target, headers: CachedHeaders) -> frozenset[str]:
    """Return the closure of the target Python; empty if that is not from the store.

    Raises:
        MachineError: Nix failed.

    """
    files = (target.python, target.loader, target.libc_dir)
    roots = {store.store_path_of(file, resolve=True) for file in files if file}
    present = sorted(root for root in roots if root is not None and os.path.lexists(root))
    return frozenset(closure(store, present, headers)) if present else frozenset()


def library_directories(
    store: Store,
    machine: Machine,
    target_paths: frozenset[str],
    sources: LibrarySources,
    *,
    closure_paths: Sequence[str],
    headers: CachedHeaders,
    listings: CachedListings,
) -> tuple[LibraryDirectory, ...]:
    """Return the directories of all sources but the whole store, each under the first source that has it.

    ``--lib`` keeps the order given; every other source is sorted by path. With a lockfile, the store serves
    nothing else. A lockfile cannot hold libraries outside the store: those still come from ``--lib``.

    Args:
        store: the store at hand.
        machine: the machine that a ``--lib`` must have libraries for.
        target_paths: the closure of the target Python.
        sources: named by the user.
        closure_paths: the store paths of all ``--closure``.
        headers: reads ELF files.
        listings: reads directories.

    Raises:
        RequestError: a ``--lib`` that does not exist or serves nothing.

    """
    directories: dict[str, LibraryDirectory] = {}

    def add(source: Source, path: str, names: frozenset[str] | None = None) -> None:
        if path not in directories and not is_stubs(path):
            owner = store.store_path_of(path)
            package = store.package_name(owner) if owner else ""
            directories[path] = LibraryDirectory(path, source, package, owner in target_paths, names)

    for path, names in sources.lockfile.directories().items() if sources.lockfile else ():
        add(Source.LOCK, path, names)
    for given in sources.libs:
        if (
            sources.lockfile is not None
            and store.store_path_of(os.path.abspath(given), resolve=True) is not None
            and os.path.isdir(given)
        ):
            raise RequestError(f"--lib {given}: with --locked the store serves what the lock has, no more")
        for path in _directories_of_lib(store, given, machine, headers, listings, sources.lender_sites):
            add(Source.LIB, path)
    if sources.lockfile is not None:
        return tuple(directories.values())
    for source, prefixes in (
        (Source.CLOSURE, closure_paths),
        (Source.TARGET_CLOSURE, sorted(target_paths)),
        (Source.NIXPKGS, sources.nixpkgs),
    ):
        for prefix in prefixes:
            for path in _lib_directories(store, prefix, listings):
                add(source, path)
    return tuple(directories.values())


def is_stubs(directory: str) -> bool:
    """Whether a directory holds stand-ins to link against, never to be loaded: CUDA's ``lib/stubs``."""
    return directory.rpartition("/")[2] == "stubs"


def _directories_of_lib(
    store: Store,
    given: str,
    machine: Machine,
    headers: CachedHeaders,
    listings: CachedListings,
    lender_sites: Mapping[str, tuple[LenderSite, ...]],
) -> list[str]:
    """Return the library directories of one ``--lib``; none of one that has libraries in its dists alone."""
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
    # Links are resolved only to read: outside the store, the search path gets the directory as it was given.
    candidates = (path, *_lib_directories(store, path, listings))
    directories = [path for path in candidates if listings.names(os.path.realpath(path))]
    other_machines: set[str] = set()
    for directory in directories:
        for name in listings.names(os.path.realpath(directory)):
            header = headers.get(os.path.realpath(os.path.join(directory, name)))
            if isinstance(header, str) or header.executable:
                continue
            if header.machine == machine:
                return directories
            other_machines.add(header.machine.name)
    if lender_sites.get(given):
        return []
    if other_machines:
        raise RequestError(
            f"--lib {given}: its libraries are for {', '.join(sorted(other_machines))}, "
            f"the target Python is {machine.name}"
        )
    raise RequestError(f"--lib {given}: holds no shared library, nor do lib and lib64 in it")


def given_closures(store: Store, given: Sequence[str], headers: CachedHeaders) -> tuple[str, ...]:
    """Return the store paths of all ``--closure``.

    Raises:
        RequestError: one does not exist or is no store path.
        MachineError: Nix failed.

    """
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


def _lib_directories(store: Store, prefix: str, listings: CachedListings) -> Iterator[str]:
    """Yield ``lib`` and ``lib64`` of a prefix, links resolved: one may be a link to the other."""
    for name in ("lib", "lib64"):
        directory = f"{prefix}/{name}"
        if listings.raw_names(directory) is None and os.path.islink(directory):
            directory = store.canonical(directory)
        if listings.raw_names(directory) is not None:
            yield directory
