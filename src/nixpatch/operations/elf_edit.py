"""One file at a time, in patchelf's terms: what was asked for, as an edit, carried out like any other.

Nothing of packages is looked at: neither RECORD nor provenance learns of it.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nixpatch import elf
from nixpatch.elf.check_inplace import check
from nixpatch.elf.inplace_writer import write_edited, write_original
from nixpatch.elf.writer import must_pass
from nixpatch.errors import FileRefused
from nixpatch.fs import replacement, sweep
from nixpatch.model import ElfEdit, ElfFacts, Skip, SkipReason, Tag


class PathChange(enum.Enum):
    """What shall happen to a search path."""

    KEEP = enum.auto()
    SET = enum.auto()
    ADD = enum.auto()
    REMOVE = enum.auto()
    SHRINK = enum.auto()


@dataclass(frozen=True, slots=True)
class Change:
    """What one command line asks of each of its files."""

    path: PathChange = PathChange.KEEP
    entries: str = ""
    """what is set or added"""
    prefixes: tuple[str, ...] = ()
    """for ``SHRINK``: absolute entries have to begin with one of these; empty allows any"""
    rpath: bool = False
    """write DT_RPATH where it would be DT_RUNPATH"""
    interp: str | None = None
    need: tuple[str, str] | None = None
    """a needed library and the name that it shall have instead"""

    @property
    def nothing(self) -> bool:
        """Nothing is to be changed."""
        return self.path is PathChange.KEEP and self.interp is None and self.need is None


def facts_of(path: str, *, payload_ok: bool) -> ElfFacts:
    """Read a file. Raises ``FileRefused`` with the reason where that is impossible, and ``OSError``."""
    found = elf.read(path, payload_ok=payload_ok)
    if isinstance(found, Skip):
        raise FileRefused(found.text)
    return found


def payload_of(path: str) -> str | None:
    """Say what data a program carries for itself. Raises ``OSError``."""
    found = elf.read(path)
    return found.detail if isinstance(found, Skip) and found.reason is SkipReason.PAYLOAD else None


def edit_of(facts: ElfFacts, change: Change, has: Callable[[str, str], bool]) -> ElfEdit | None:
    """Complete a change to all that the file's linkage shall be; None if it is that already.

    An :class:`ElfEdit` starts from the original, a command line from what the last one left: what is not
    asked for keeps its present value. As in patchelf, a search path that is written becomes DT_RUNPATH
    unless DT_RPATH is asked for. ``has`` tells whether a directory holds a library for this file.
    """
    now, was = facts.current, facts.original
    path, tag = now.search_path, now.tag
    match change.path:
        case PathChange.KEEP:
            pass
        case PathChange.REMOVE:
            path = None
        case PathChange.SET:
            path = change.entries
        case PathChange.ADD:
            path = ":".join(part for part in (path, change.entries) if part)
        case PathChange.SHRINK:
            path = shrunk(path or "", facts.needed, has, change.prefixes)
    path = path or None
    if path is None:
        tag = None
    elif change.path is not PathChange.KEEP:
        tag = Tag.RPATH if change.rpath else Tag.RUNPATH
    interp = now.interp if change.interp is None else change.interp
    renames = now.renamed if change.need is None else renamed(facts, *change.need)
    settled = not facts.both_tags or change.path is PathChange.KEEP
    same = (path, tag, interp) == (now.search_path, now.tag, now.interp) and renames == now.renamed
    if same and settled:
        return None
    as_it_was = (path, tag) == (was.search_path, was.tag) and settled
    return ElfEdit(
        None if as_it_was else path or "",
        None if as_it_was else tag,
        None if interp == was.interp else interp,
        renames=renames,
    )


def renamed(facts: ElfFacts, old: str, new: str) -> tuple[tuple[str, str], ...]:
    """Return all needs that are to have another name than originally, once ``old`` is ``new``.

    As in patchelf, a file that does not need ``old`` stays as it is.
    """
    names = dict(zip(facts.needed, originally(facts), strict=True))
    if old not in names:
        return facts.current.renamed
    renames = {**dict(facts.current.renamed), names[old]: new}
    return tuple(sorted((before, after) for before, after in renames.items() if before != after))


def originally(facts: ElfFacts) -> tuple[str, ...]:
    """Return the needs under the names that they had before any edit."""
    back = {now: was for was, now in facts.current.renamed}
    return tuple(back.get(need, need) for need in facts.needed)


def shrunk(
    search_path: str, needed: Iterable[str], has: Callable[[str, str], bool], prefixes: Iterable[str] = ()
) -> str:
    """Leave out the absolute directories that are not the first to hold a needed library.

    This is patchelf's ``--shrink-rpath``: entries that do not begin with a slash stay, unless they are empty.
    ``prefixes``, if there are any, is what absolute entries have to begin with.
    """
    prefixes = tuple(prefixes)
    missing = dict.fromkeys(needed)
    kept: list[str] = []
    for entry in search_path.split(":"):
        if not entry.startswith("/"):
            kept += [entry] if entry else []
            continue
        if prefixes and not entry.startswith(prefixes):
            continue
        found = [name for name in missing if has(entry, name)]
        if found:
            kept.append(entry)
        for name in found:
            del missing[name]
    return ":".join(kept)


def holder_of(facts: ElfFacts) -> Callable[[str, str], bool]:
    """Tell whether a directory holds a library that a process of this file's machine can load."""

    def has(directory: str, name: str) -> bool:
        try:
            found = elf.read(os.path.realpath(os.path.join(directory, name)))
        except OSError:
            return False
        return isinstance(found, ElfFacts) and found.machine == facts.machine

    return has


def carry_out(source: str, output: str, edit: ElfEdit | None) -> tuple[str, ...]:
    """Put the edited file in the place of ``output``, which may be ``source``; give the notes.

    Without an edit, ``output`` becomes a copy. Raises ``FileRefused`` if the file cannot be edited safely,
    ``OSError`` for trouble with reading or writing; then ``output`` is as it was.
    """
    sweep(output)
    with replacement(output) as temp:
        if edit is None:
            _copy(source, temp)
            notes: tuple[str, ...] = ()
        else:
            result = write_edited(source, temp, edit)
            must_pass(check(source, temp, edit))
            if not result.changed and elf.original_sha256(temp) != result.original_sha256:
                raise FileRefused("another tool changed it after the last edit: there is no way back")
            notes = result.notes
    _take_mode(source, output)
    return notes


def restore(source: str, output: str) -> None:
    """Put the original in the place of ``output``. Raises what :func:`carry_out` raises."""
    sweep(output)
    with replacement(output) as temp:
        write_original(source, temp)
    _take_mode(source, output)


def _copy(source: str, temp: int) -> None:
    with open(source, "rb") as file:
        while data := file.read(1 << 20):
            view = memoryview(data)
            while view:
                view = view[os.write(temp, view) :]


def _take_mode(source: str, output: str) -> None:
    """Give a file under another name the permissions of the one it was made from."""
    if output != source:
        os.chmod(output, os.stat(source).st_mode & 0o777)
