"""Indirect garbage-collector roots: what a tree outside the store links to must not be collected under it.

Nix finds references by looking into store paths; a venv in a home directory is none. An indirect root is a
link in the tree that Nix registers (nix-store(1), ``--add-root``): it holds as long as the tree exists, and
goes with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable

from nixpatch.errors import MachineError
from nixpatch.fs import make_directory, remove, remove_directory, replace_bytes
from nixpatch.model.installed import ROOTS_DIRECTORY
from nixpatch.store.nix_store import Store

_DECLINED = "none"
"""name of a file in it: a run wanted no roots"""


def wanted(store: Store, prefix: str) -> bool:
    """Whether a tree needs roots: it lies outside the store, and there is a Nix that can keep roots."""
    return store.program is not None and store.store_path_of(prefix, resolve=True) is None


def missing(store: Store, prefix: str, paths: Iterable[str]) -> tuple[str, ...]:
    """Return, sorted, the store paths that the tree does not hold: no link, or Nix has forgotten it."""
    wanted_paths = set(paths)
    if not wanted_paths:
        return ()
    known = _registered(store)
    return tuple(sorted(wanted_paths - {to for link, to in links(prefix).items() if link in known}))


def decline(prefix: str) -> None:
    """Note in a tree that it wants no roots for what it uses now, so that ``verify`` does not miss them.

    Raises:
        OSError: the directory of the links cannot be written.

    """
    directory = os.path.join(prefix, ROOTS_DIRECTORY)
    make_directory(directory)
    replace_bytes(os.path.join(directory, _DECLINED), b"")


def declined(prefix: str) -> bool:
    """Return whether the last run on a tree wanted no roots."""
    return os.path.isfile(os.path.join(prefix, ROOTS_DIRECTORY, _DECLINED))


def add(store: Store, prefix: str, paths: Iterable[str]) -> None:
    """Root store paths, all that are not held yet in one call of Nix.

    Raises:
        MachineError: Nix refused, or the directory of the links cannot be written.

    """
    new = missing(store, prefix, paths)
    if declined(prefix):
        remove(os.path.join(prefix, ROOTS_DIRECTORY, _DECLINED))
    if new:
        # Nix numbers the links of one call. A name of their own keeps them off those of other calls.
        name = hashlib.sha256("\0".join(new).encode()).hexdigest()[:16]
        directory = os.path.join(prefix, ROOTS_DIRECTORY)
        try:
            make_directory(directory)  # Nix would follow a link and write wherever it leads
        except OSError as error:
            raise MachineError(
                f"{directory}: cannot hold the roots of the garbage collector ({error.strerror}); "
                "nothing was changed: remove it, or run with --no-gc-roots"
            ) from error
        store.add_roots(new, os.path.join(directory, name))


def links(prefix: str) -> dict[str, str]:
    """Return the links of a tree and the store paths that they lead to."""
    try:
        with os.scandir(os.path.join(prefix, ROOTS_DIRECTORY)) as entries:
            return {entry.path: os.readlink(entry.path) for entry in entries if entry.is_symlink()}
    except OSError:
        return {}


def drop(prefix: str, unused: Iterable[str], *, keep_declined: bool = False) -> None:
    """Remove some links, and their directory if it is empty then: Nix forgets a root whose link is gone.

    ``keep_declined`` keeps the note of :func:`decline`.

    Raises:
        MachineError: the directory of the links cannot be written.

    """
    directory = os.path.join(prefix, ROOTS_DIRECTORY)
    if not os.path.isdir(directory) or os.path.islink(directory):
        return
    try:
        for link in unused:
            remove(link)
        if not keep_declined:
            remove(os.path.join(directory, _DECLINED))
        remove_directory(directory)
    except OSError as error:
        raise MachineError(f"{directory}: cannot be cleared: {error.strerror}") from error


def _registered(store: Store) -> frozenset[str]:
    """Return the links that Nix knows of: ``gcroots/auto`` points back at each."""
    auto = os.path.join(store.state, "gcroots", "auto")
    registered: set[str] = set()
    with contextlib.suppress(OSError), os.scandir(auto) as entries:
        registered.update(os.readlink(entry.path) for entry in entries if entry.is_symlink())
    return frozenset(registered)
