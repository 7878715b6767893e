"""Indirect garbage-collector roots: what a tree outside the store links to must not be collected under it.

Nix finds references by looking into store paths; a venv in a home directory is none. An indirect root is a
link in the tree that Nix is told of (nix-store(1), ``--add-root``): it holds as long as the tree exists, and
goes with it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable

from nixpatch.errors import MachineError
from nixpatch.store.nix import Store

DIRECTORY = ".nixpatch-roots"
"""name of the directory of links, in the prefix of the tree"""


def wanted(store: Store, prefix: str) -> bool:
    """Whether a tree needs roots: not inside the store, and not where Nix is not there to be told."""
    return store.program is not None and store.store_path_of(prefix, resolve=True) is None


def links(store: Store, prefix: str, paths: Iterable[str]) -> dict[str, str]:
    """Return, for the store paths of ``paths``, which link of the tree roots each."""
    roots = {store.store_path_of(path) for path in paths} - {None}
    return {
        root: os.path.join(prefix, DIRECTORY, os.path.basename(root)) for root in roots if root is not None
    }


def missing(store: Store, wanted_links: dict[str, str]) -> tuple[str, ...]:
    """Return the store paths that are not rooted: the link is gone, or Nix has forgotten it, sorted."""
    if not wanted_links:
        return ()
    known = _registered(store)
    return tuple(
        sorted(
            root
            for root, link in wanted_links.items()
            if not (os.path.islink(link) and os.readlink(link) == root and link in known)
        )
    )


def keep(store: Store, wanted_links: dict[str, str]) -> None:
    """Root these store paths.

    Raises:
        MachineError: Nix refused, or the directory of the links cannot be written.

    """
    for root in missing(store, wanted_links):
        store.add_root(root, wanted_links[root])


def prune(prefix: str, kept: Collection[str]) -> None:
    """Let go of all roots but those called as in ``kept``: Nix forgets an indirect root whose link is gone.

    Raises:
        MachineError: the directory of the links cannot be written.

    """
    directory = os.path.join(prefix, DIRECTORY)
    if not os.path.isdir(directory) or os.path.islink(directory):
        return
    try:
        with os.scandir(directory) as entries:
            others = [entry.path for entry in entries if entry.is_symlink() and entry.name not in kept]
        for path in others:
            os.unlink(path)
        if not os.listdir(directory):
            os.rmdir(directory)
    except OSError as error:
        raise MachineError(f"{directory}: cannot be cleared: {error.strerror}") from error


def _registered(store: Store) -> frozenset[str]:
    """Return the links that Nix knows of: ``gcroots/auto`` points back at each."""
    auto = os.path.join(store.state, "gcroots", "auto")
    found: set[str] = set()
    with contextlib.suppress(OSError), os.scandir(auto) as entries:
        found.update(os.readlink(entry.path) for entry in entries if entry.is_symlink())
    return frozenset(found)
