"""Programs of the store: what can stand in the first line of a script, or in PT_INTERP."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator

from nixpatch.store.nix_store import Store
from nixpatch.store_paths import package_of_entry, version_key, version_of

_LIBC = re.compile(r"(?:glibc|musl)-\d[\d.-]*")


def find_program(
    store: Store,
    name: str,
    *,
    given: Collection[str],
    closure: Collection[str],
    pure: bool,
    is_foreign: Callable[[str], bool] = lambda _: False,
) -> str | None:
    """Return the path of a program.

    Args:
        store: the store at hand.
        name: file name of the program.
        given: directories and store paths that the user named: they come first.
        closure: store paths of the target's closure: they come next.
        pure: nothing else of the store is looked at.
        is_foreign: whether a program is for another machine: a store may hold what was built for others.

    """

    def runs(path: str) -> bool:
        return os.path.isfile(path) and os.access(path, os.X_OK) and not is_foreign(path)

    for given_path in given:
        path = os.path.abspath(given_path)
        if store.store_path_of(path, resolve=True):
            # A profile moves on, the store path that it stands for today does not.
            path = store.canonical(path)
        for directory in (path, os.path.dirname(path)):
            if runs(program := os.path.join(directory, "bin", name)):
                return program
    for candidates in (sorted(closure), () if pure else _packages_called(store, name)):
        programs = [program for path in candidates if runs(program := os.path.join(path, "bin", name))]
        if programs:
            return max(programs, key=lambda program: _rank(store, program))
    return None


def find_loader(store_dir: str, name: str, given: Collection[str] = (), *, pure: bool = False) -> str | None:
    """Return the dynamic loader for a program whose own is not on this machine.

    Args:
        store_dir: the store at hand.
        name: file name of the loader.
        given: directories and store paths that the user named: they come first.
        pure: nothing else of the store is looked at.

    """
    for path in map(os.path.abspath, given):
        for loader in (os.path.join(path, name), os.path.join(path, "lib", name)):
            if os.path.isfile(loader):
                return loader
    if pure:
        return None
    try:
        entries = os.listdir(store_dir)
    except OSError:
        return None
    # The newest, as it serves the libraries that were linked against older ones, too.
    libcs = [entry for entry in entries if _LIBC.fullmatch(package_of_entry(entry))]
    libcs.sort(key=lambda entry: (version_key(version_of(package_of_entry(entry))), entry), reverse=True)
    loaders = (os.path.join(store_dir, entry, "lib", name) for entry in libcs)
    return next((loader for loader in loaders if os.path.isfile(loader)), None)


def _packages_called(store: Store, name: str) -> Iterator[str]:
    """Yield the store paths of the packages that are called like the program."""
    stem = re.escape(name.rstrip("0123456789."))
    called = re.compile(rf"{stem}[0-9.]*(?:-interactive|-minimal)?-\d.*", re.IGNORECASE)
    try:
        entries = os.listdir(store.real)
    except OSError:
        return
    for entry in sorted(entries):
        if not entry.endswith(".drv") and called.fullmatch(package_of_entry(entry)):
            yield f"{store.directory}/{entry}"


def _rank(store: Store, program: str) -> tuple[object, str]:
    """Order programs: the newest package first, then by path."""
    return version_key(version_of(store.package_name(program))), program
