"""Search-path algebra: what each entry means, which are kept, how a new path is put together.

All rules are those of ld.so(8), "Dynamic string tokens" and the search order there. Strings go in and
come out as written; nothing is normalised on the way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

from nixpatch.model import Dropped

# A name ends where an identifier of the C locale ends (is_dst in glibc's dl-load.c), whatever the bytes mean.
_ORIGIN = re.compile(r"\$(?:ORIGIN(?![A-Za-z0-9_])|\{ORIGIN\})")
_TOKEN = re.compile(r"\$(?:(?:LIB|PLATFORM)(?![A-Za-z0-9_])|\{(?:LIB|PLATFORM)\})")


@lru_cache(maxsize=1 << 14)  # the files of one directory ask for the same few entries, several times each
def expand(entry: str, directory: str) -> str | None:
    """Return the directory that ld.so searches for an entry of a file in ``directory``, a real path.

    None for an entry that the file's place does not decide: ``$LIB`` and ``$PLATFORM`` depend on how the
    loader was built, an empty or relative one on the process's current directory.
    """
    path = substitute(entry, directory)
    return plain(path, directory) if path is not None and path.startswith("/") else None


def substitute(entry: str, directory: str) -> str | None:
    """Put ``directory`` in the place of ``$ORIGIN``; None where ``$LIB`` or ``$PLATFORM`` stands too."""
    return None if _TOKEN.search(entry) else _ORIGIN.sub(lambda _: directory, entry)


def plain(path: str, directory: str) -> str:
    """Spell an absolute path without ``.``, ``//`` and those ``..`` that lead up from ``directory`` or above.

    ``directory`` is real, so the names in it are no links. Any other name before ``..`` may be a link or
    be missing, and the kernel minds: such a pair stays.
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


def relative_entry(directory: str, wanted: str) -> str:
    """Write the directory ``wanted`` as seen by a file in ``directory``: ``$ORIGIN/../numpy.libs``."""
    here, there = directory.split("/")[1:], wanted.split("/")[1:]
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(here, there, strict=False)))
    return "/".join(["$ORIGIN", *[".."] * (len(here) - common), *there[common:]])


def leads_to(entry: str, directory: str, wanted: str) -> bool:
    """Whether ld.so takes the entry of a file in ``directory`` for the directory ``wanted``.

    It does not where a colon or a ``$LIB`` stands in a name: a search path knows no way to quote them.
    """
    return ":" not in entry and expand(entry, directory) == plain(wanted, directory)


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
    hole: bool = False
    """an entry that ld.so reads as the current directory, or as relative to it, is among the dropped"""


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
    driver = hole = False
    tree_in_store = inside(prefix, store_dir)
    for entry in search_path.split(":") if search_path else ():
        where = expand(entry, directory)
        if where is None:
            hole = hole or not _ORIGIN.sub("/", entry).startswith("/")
            why = (
                "depends on how the loader was built"
                if _TOKEN.search(entry)
                else "empty or relative: ld.so reads it as the current directory"
            )
            dropped.append(Dropped(entry, why))
            continue
        end = os.path.normpath(where)
        if where in seen:
            dropped.append(Dropped(entry, "duplicate", harmful=False))
        elif where == driver_directory:
            driver = True
        elif uses_origin(entry):
            if inside(end, prefix):
                kept.append(entry)
            else:
                dropped.append(Dropped(entry, "leaves the tree"))
        elif inside(end, prefix) and (tree_in_store or not inside(end, store_dir)):
            kept.append(relative_entry(directory, where))
            dropped.append(Dropped(entry, "absolute path into the tree: written with $ORIGIN", harmful=False))
        elif inside(end, store_dir):
            if exists(where):
                store.append(entry)
            else:
                dropped.append(Dropped(entry, "store directory that does not exist"))
        else:
            dropped.append(Dropped(entry, "directory of the machine that built it, or of the FHS"))
        seen.add(where)
    return Split(tuple(kept), tuple(store), driver, tuple(dropped), hole)


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
    directory, what the user appends (more than one where it holds colons); each directory once.
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
