"""The closure of store paths: all that they refer to, directly or not."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from nixpatch.errors import MachineError
from nixpatch.store.cached_reads import CachedHeaders
from nixpatch.store.nix_store import Store

_PYTHON = re.compile(r"python3\.\d+t?\Z")
_PROPAGATED = ("propagated-build-inputs", "propagated-user-env-packages")


def closure(store: Store, paths: Sequence[str], headers: CachedHeaders) -> tuple[str, ...]:
    """Return the closure of store paths, themselves included, sorted.

    Nix's database answers for the paths that it knows. All others (no Nix in a sandbox, another store than
    Nix's own, an output that is still being built) are read.

    Raises:
        MachineError: Nix failed.
        RequestError: one of them is not a store path.

    """
    if store.program is None:
        return closure_by_reading(store, paths, headers)
    try:
        return store.requisites(paths)
    except MachineError:
        unknown = store.invalid(paths)
        if not any(os.path.lexists(path) for path in unknown):
            raise
    known = store.requisites([path for path in paths if path not in unknown])
    return tuple(sorted({*known, *closure_by_reading(store, sorted(unknown), headers)}))


def closure_by_reading(store: Store, paths: Sequence[str], headers: CachedHeaders) -> tuple[str, ...]:
    """Return the store paths that can be reached from ``paths`` by the references in their files, sorted.

    The references are search paths, interpreters and absolute needs of the ELF files in the usual
    directories, symlinks, and the inputs that setup hooks propagate. A path named in a script or in data is
    not seen, so this may be less than Nix's own closure, never more.
    """
    reached: set[str] = set()
    waiting = list(paths)
    while waiting:
        path = waiting.pop()
        if path not in reached and os.path.lexists(path):
            reached.add(path)
            waiting.extend(set(_references(store, path, headers)) - reached)
    return tuple(sorted(reached))


def _references(store: Store, path: str, headers: CachedHeaders) -> Iterator[str]:
    for name in _named_paths(store, path, headers):
        reference = store.store_path_of(name)
        if reference is not None:
            yield reference


def _named_paths(store: Store, path: str, headers: CachedHeaders) -> Iterator[str]:
    """Yield every path that the files of a store path mention."""
    yield store.canonical(path)
    for directory in _directories_to_read(path):
        if os.path.islink(directory):
            yield store.canonical(directory)
        for entry in _entries(directory):
            if entry.is_symlink():
                # Both: a link may lead to a link in another package, which is in the closure too.
                yield os.path.normpath(os.path.join(directory, os.readlink(entry.path)))
                yield store.canonical(entry.path)
            elif entry.is_file(follow_symlinks=False):
                header = headers.get(entry.path)
                if not isinstance(header, str):
                    yield from header.search_path.split(":")
                    yield header.interp or ""
                    yield from header.needed
    for name in _PROPAGATED:
        try:
            with open(os.path.join(path, "nix-support", name), "rb") as file:
                yield from os.fsdecode(file.read()).split()
        except OSError:
            continue


def _directories_to_read(path: str) -> Iterator[str]:
    """Yield the directories whose files are read."""
    for name in ("lib", "lib64", "bin"):
        yield os.path.join(path, name)
    for entry in _entries(os.path.join(path, "lib")):
        if _PYTHON.match(entry.name):
            yield entry.path
            yield os.path.join(entry.path, "lib-dynload")


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []
