"""Search-path algebra: what each entry means, which are kept, how a new path is put together.

All rules are those of ld.so(8), "Dynamic string tokens" and the search order there. Strings go in and
come out as written; nothing is normalised on the way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nixpatch.model import Dropped

_ORIGIN = re.compile(r"\$(?:ORIGIN\b|\{ORIGIN\})")
_TOKEN = re.compile(r"\$(?:(?:LIB|PLATFORM)\b|\{(?:LIB|PLATFORM)\})")


def expand(entry: str, directory: str) -> str | None:
    """Return the directory that ld.so searches for an entry of a file in ``directory``.

    None for an entry that the file's place does not decide: ``$LIB`` and ``$PLATFORM`` depend on how the
    loader was built, an empty or relative one on the process's current directory.
    """
    if _TOKEN.search(entry):
        return None
    path = _ORIGIN.sub(lambda _: directory, entry)
    return os.path.normpath(path) if path.startswith("/") else None


def uses_origin(entry: str) -> bool:
    """Whether the entry is relative to the file's own directory."""
    return _ORIGIN.search(entry) is not None


def inside(path: str, directory: str) -> bool:
    """Whether a normalised absolute path is the directory or lies below it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def relative_entry(directory: str, wanted: str) -> str:
    """Write the directory ``wanted`` as seen by a file in ``directory``: ``$ORIGIN/../numpy.libs``."""
    relative = os.path.relpath(wanted, directory)
    return "$ORIGIN" if relative == "." else f"$ORIGIN/{relative}"


@dataclass(frozen=True, slots=True)
class Split:
    """An existing search path, sorted into what is kept and what is left out."""

    kept: tuple[str, ...] = ()
    """``$ORIGIN`` entries that stay inside the tree, in order, as written"""
    store: tuple[str, ...] = ()
    """existing directories of the store, in order, as written"""
    driver: bool = False
    """the driver directory is named"""
    dropped: tuple[Dropped, ...] = ()


def split(
    search_path: str | None,
    *,
    directory: str,
    prefix: str,
    store_dir: str,
    driver_directory: str,
    exists: Callable[[str], bool],
) -> Split:
    """Sort the entries of an existing search path of a file in ``directory`` of a tree at ``prefix``."""
    kept: list[str] = []
    store: list[str] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    driver = False
    for entry in (search_path or "").split(":") if search_path else ():
        where = expand(entry, directory)
        if where is None:
            why = (
                "depends on how the loader was built"
                if _TOKEN.search(entry)
                else "empty or relative: ld.so reads it as the current directory"
            )
            dropped.append(Dropped(entry, why))
        elif where in seen:
            dropped.append(Dropped(entry, "duplicate", harmful=False))
        elif where == driver_directory:
            driver = True
        elif uses_origin(entry):
            if inside(where, prefix):
                kept.append(entry)
            else:
                dropped.append(Dropped(entry, "leaves the tree"))
        elif inside(where, store_dir):
            if exists(where):
                store.append(entry)
            else:
                dropped.append(Dropped(entry, "store directory that does not exist"))
        elif inside(where, prefix):
            kept.append(relative_entry(directory, where))
            dropped.append(Dropped(entry, "absolute path into the tree: written with $ORIGIN", harmful=False))
        else:
            dropped.append(Dropped(entry, "directory of the machine that built it, or of the FHS"))
        seen.add(where or entry)
    return Split(tuple(kept), tuple(store), driver, tuple(dropped))


def join(
    old: Split,
    *,
    directory: str,
    new: Iterable[str],
    driver_directory: str | None,
    append: Iterable[str] = (),
) -> str:
    """Put a new search path together, in the order of design section 6.

    Kept ``$ORIGIN`` entries, new ``$ORIGIN`` entries, store directories in order of first use, the driver
    directory, what the user appends; each directory once.
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
    ordered.extend(append)
    unique: dict[str, str] = {}
    for entry in ordered:
        unique.setdefault(expand(entry, directory) or entry, entry)
    return ":".join(unique.values())
