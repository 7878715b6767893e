"""Where a library that is reached through symlinks lives: the directory that may stand in a search path."""

from __future__ import annotations

import os

from nixpatch.store.nix_store import Store

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
