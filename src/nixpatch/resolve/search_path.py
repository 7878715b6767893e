"""Search paths (RPATH, RUNPATH): the meaning of each entry, the entries that are kept, and the new path.

All rules are those of ld.so(8), "Dynamic string tokens" and the search order there. Entries stay as they are
written; nothing is normalised.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

from nixpatch.model import DroppedEntry

# A name ends where an identifier of the C locale ends (is_dst in glibc's dl-load.c), whatever the bytes mean.
_ORIGIN = re.compile(r"\$(?:ORIGIN(?![A-Za-z0-9_])|\{ORIGIN\})")
_TOKEN = re.compile(r"\$(?:(?:LIB|PLATFORM)(?![A-Za-z0-9_])|\{(?:LIB|PLATFORM)\})")


@lru_cache(maxsize=1 << 14)  # the files of a directory expand the same few entries several times each
def expand(entry: str, directory: str) -> str | None:
    """Return the directory that ld.so searches for an entry of a file in ``directory``, a real path.

    None for an entry that does not depend on the file alone: ``$LIB`` and ``$PLATFORM`` depend on how the
    loader was built, an empty or relative one on the process's current directory.
    """
    path = substitute(entry, directory)
    return plain(path, directory) if path is not None and path.startswith("/") else None


def substitute(entry: str, directory: str) -> str | None:
    """Replace ``$ORIGIN`` with ``directory``; None for an entry with ``$LIB`` or ``$PLATFORM``."""
    return None if _TOKEN.search(entry) else _ORIGIN.sub(lambda _: directory, entry)


def names_path(need: str) -> bool:
    """Whether ld.so takes a need for a path and searches nowhere: it expands tokens before it looks."""
    return "/" in need or _ORIGIN.search(need) is not None or _TOKEN.search(need) is not None


def plain(path: str, directory: str) -> str:
    """Return an absolute path without ``.``, ``//`` and any ``..`` that leads up from ``directory`` or above.

    ``directory`` is real, so the names in it are no links. Any other name before ``..`` may be a link or be
    missing, which makes a difference to the kernel: such a pair stays.
    """
    real = directory.split("/")[1:]
    names: list[str] = []
    for name in path.split("/"):
        if name in {"", "."}:
            continue
        if name == ".." and names == real[: len(names)]:
            del names[-1:]
        else:
            names.append(name)
    return "/" + "/".join(names)


def uses_origin(entry: str) -> bool:
    """Whether the entry is relative to the file's own directory."""
    return _ORIGIN.search(entry) is not None


def inside(path: str, directory: str) -> bool:
    """Whether a normalised absolute path is the directory or lies below it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def relative_entry(directory: str, destination: str) -> str:
    """Return the entry for ``destination`` in a file in ``directory``: ``$ORIGIN/../numpy.libs``."""
    names, new_names = directory.split("/")[1:], destination.split("/")[1:]
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(names, new_names, strict=False)))
    return "/".join(["$ORIGIN", *[".."] * (len(names) - common), *new_names[common:]])


def leads_to(entry: str, directory: str, destination: str) -> bool:
    """Whether ld.so takes the entry of a file in ``directory`` for the directory ``destination``.

    It does not for a name with a colon or ``$LIB`` in it: a search path has no way to quote them.
    """
    return ":" not in entry and expand(entry, directory) == plain(destination, directory)


@dataclass(frozen=True, slots=True)
class SearchPathParts:
    """An existing search path, sorted into the entries that are kept and those that are dropped."""

    kept: tuple[str, ...] = ()
    """``$ORIGIN`` entries that stay inside the tree, in order, as written"""
    store: tuple[str, ...] = ()
    """existing directories of the store, in order, as written"""
    driver: bool = False
    """the driver directory is named"""
    dropped: tuple[DroppedEntry, ...] = ()
    has_relative: bool = False
    """a dropped entry means the current directory, or is relative to it"""


def split(
    search_path: str | None,
    *,
    directory: str,
    prefix: str,
    store_dir: str,
    driver_directory: str,
    exists: Callable[[str], bool],
) -> SearchPathParts:
    """Sort the entries of an existing search path of a file in ``directory`` of a tree at ``prefix``."""
    kept: list[str] = []
    store: list[str] = []
    dropped: list[DroppedEntry] = []
    seen: set[str] = set()
    driver = has_relative = False
    tree_in_store = inside(prefix, store_dir)
    for entry in search_path.split(":") if search_path else ():
        expanded = expand(entry, directory)
        if expanded is None:
            has_relative = has_relative or not _ORIGIN.sub("/", entry).startswith("/")
            why = (
                "depends on how the loader was built"
                if _TOKEN.search(entry)
                else "empty or relative: ld.so reads it as the current directory"
            )
            dropped.append(DroppedEntry(entry, why))
            continue
        end = os.path.normpath(expanded)
        if expanded in seen:
            dropped.append(DroppedEntry(entry, "duplicate", harmful=False))
        elif expanded == driver_directory:
            driver = True
        elif uses_origin(entry):
            if inside(end, prefix):
                kept.append(entry)
            else:
                dropped.append(DroppedEntry(entry, "leaves the tree"))
        elif inside(end, prefix) and (tree_in_store or not inside(end, store_dir)):
            kept.append(relative_entry(directory, expanded))
            dropped.append(
                DroppedEntry(entry, "absolute path into the tree: written with $ORIGIN", harmful=False)
            )
        elif inside(end, store_dir):
            if exists(expanded):
                store.append(entry)
            else:
                dropped.append(DroppedEntry(entry, "store directory that does not exist"))
        else:
            dropped.append(DroppedEntry(entry, "directory of the machine that built it, or of the FHS"))
        seen.add(expanded)
    return SearchPathParts(tuple(kept), tuple(store), driver, tuple(dropped), has_relative)


def join(
    old: SearchPathParts,
    *,
    directory: str,
    new: Iterable[str],
    driver_directory: str | None,
    append: Iterable[str] = (),
) -> str:
    """Join the entries of a new search path.

    The order is: kept ``$ORIGIN`` entries, new ``$ORIGIN`` entries, store directories in order of first use,
    the driver directory, then the entries that the user appends (which may hold colons); each directory once.
    """
    new = tuple(new)
    ordered = [
        *old.kept,
        *(entry for entry in new if uses_origin(entry)),
        *old.store,
        *(entry for entry in new if not uses_origin(entry)),
    ]
    if driver_directory is not None:
        ordered.append(driver_directory)
    ordered.extend(entry for given in append for entry in given.split(":") if entry)
    unique: dict[str, str] = {}
    for entry in ordered:
        unique.setdefault(expand(entry, directory) or entry, entry)
    return ":".join(unique.values())
