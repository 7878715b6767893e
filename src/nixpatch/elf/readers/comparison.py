"""Compare descriptions: of one file by two readers, or of a patched file and its original by one reader."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeVar

from nixpatch.elf import structs as elf
from nixpatch.elf.resolution_cache import CACHE_TYPE, description_of
from nixpatch.elf.resolved_edit import SEARCH_PATH_TAGS
from nixpatch.model import Linkage, Tag
from nixpatch.model.elf_description import (
    BLOCK,
    ElfDescription,
    NoteFields,
    SectionFields,
    SegmentFields,
    TableDigest,
    text_of,
)

_LABELS: Final = {
    "header": "ELF header",
    "segments": "program header",
    "sections": "section header",
    "interp": "interpreter",
    "dynamic": "dynamic entry",
    "needed": "DT_NEEDED",
    "soname": "DT_SONAME",
    "rpath": "DT_RPATH",
    "runpath": "DT_RUNPATH",
    "symbols": "dynamic symbol",
    "symbol_versions": "DT_VERSYM",
    "version_needs": "version need",
    "version_definitions": "version definition",
    "relocations": "number of relocations",
    "relative_relocations": "number of relative relocations",
    "notes": "note",
}
_MAY_BE_UNKNOWN: Final = {"symbols", "symbol_versions", "version_needs", "version_definitions"}
_CACHE_OWNER: Final = "NixOS"
_SHOWN: Final = 160  # characters of a value
_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """The first place in a field where two descriptions differ."""

    field: str
    """of :class:`ElfDescription`"""
    place: str
    values: tuple[str, str] | None = None
    """None where only digests are known"""


def differences(first: ElfDescription, second: ElfDescription) -> tuple[FieldDifference, ...]:
    """Compare field by field, without the tables that one of the readers cannot read."""
    pairs = ((field.name, getattr(first, field.name), getattr(second, field.name)) for field in fields(first))
    return tuple(_difference(*pair) for pair in pairs if not _equal(*pair))


def disagreements(own: ElfDescription, theirs: ElfDescription) -> tuple[FieldDifference, ...]:
    """Compare the description by nixpatch's reader with that by another reader."""
    # LIEF appends the notes of sections that no PT_NOTE has.
    return differences(own, replace(theirs, notes=theirs.notes[: len(own.notes)]))


def unexplained(
    before: ElfDescription, after: ElfDescription, edit: Linkage, growth: int
) -> tuple[FieldDifference, ...]:
    """Compare a file patched in place with its original; leave out what the edit declares.

    Args:
        before: the original.
        after: the patched file.
        edit: linkage of the patched file as provenance has it.
        growth: bytes by which the patched file is longer.

    """
    kept = replace(after, dynamic=_kept_entries(after, edit), notes=_without_inert(after.notes))
    return differences(_expected(before, after, edit, growth), kept)


def _equal(field: str, first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second or field in _MAY_BE_UNKNOWN
    if not isinstance(first, TableDigest) or (first.is_exact and second.is_exact):
        return bool(first == second)
    least, table = (second, first) if first.is_exact else (first, second)
    if table.is_exact:  # digested only as far as the other one is known to go
        return least.count <= table.count and least.blocks == table.blocks
    shared = min(first.count, second.count) // BLOCK
    return bool(first.blocks[:shared] == second.blocks[:shared])


def _difference(field: str, first: Any, second: Any) -> FieldDifference:
    place = _LABELS[field]
    if isinstance(first, TableDigest):
        return _table_difference(field, first, second)
    while isinstance(first, tuple) and isinstance(second, tuple):
        if len(first) != len(second):
            return FieldDifference(field, _number_of(place), (str(len(first)), str(len(second))))
        index = next(i for i, (left, right) in enumerate(zip(first, second, strict=True)) if left != right)
        place += f", {first._fields[index]}" if hasattr(first, "_fields") else f" {index}"
        first, second = first[index], second[index]
    return FieldDifference(field, place, (_shown(field, first), _shown(field, second)))


def _table_difference(field: str, first: TableDigest, second: TableDigest) -> FieldDifference:
    place = _LABELS[field]
    pairs = zip(first.blocks, second.blocks, strict=False)
    block = next((index for index, (left, right) in enumerate(pairs) if left != right), None)
    counted = first.is_exact and second.is_exact and first.count != second.count
    if counted or block is None:
        return FieldDifference(field, _number_of(place), (str(first.count), str(second.count)))
    last = min((block + 1) * BLOCK, first.count) - 1
    return FieldDifference(field, f"{place} {block * BLOCK} to {last}")


def _number_of(label: str) -> str:
    if label.startswith("DT_") or "," in label:
        return f"number of entries of {label}"
    return f"number of {label[:-1]}ies" if label.endswith("y") else f"number of {label}s"


def _shown(field: str, value: object) -> str:
    text = f"{value:#x}" if isinstance(value, int) and "relocations" not in field else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _kept_entries(file: ElfDescription, edit: Linkage) -> tuple[tuple[int, int], ...]:
    """Return the dynamic entries without search path, and without place and size of the string table."""
    moved = {elf.DT_STRTAB, elf.DT_STRSZ} | ({elf.DT_NEEDED} if edit.renamed else set())
    return tuple(
        (tag, 0 if tag in moved else value) for tag, value in file.dynamic if tag not in SEARCH_PATH_TAGS
    )


def _without_hint(
    before: ElfDescription, after: ElfDescription, last: SegmentFields | None
) -> ElfDescription:
    """Leave out the hint whose place the first search path has, if the last PT_LOAD is for code, not data."""
    had_path = any(tag in SEARCH_PATH_TAGS for tag, _ in before.dynamic)
    if had_path or last is None or last.flags & (elf.PF_X | elf.PF_W) != elf.PF_X:
        return before
    pairs = zip(before.dynamic, after.dynamic, strict=False)
    replaced = (
        i for i, (old, new) in enumerate(pairs) if old[0] in elf.HINT_TAGS and new[0] in SEARCH_PATH_TAGS
    )
    index = next(replaced, len(before.dynamic))
    return replace(before, dynamic=before.dynamic[:index] + before.dynamic[index + 1 :])


def _expected(before: ElfDescription, after: ElfDescription, edit: Linkage, growth: int) -> ElfDescription:
    """Apply the declared edit to the original; take places that the writer may choose from ``after``."""
    tables = _EditedTables(before, edit, growth)
    renamed = {text_of(old): text_of(new) for old, new in edit.renamed}
    path = None if edit.search_path is None else text_of(edit.search_path)
    rpath, runpath = (path if edit.tag is tag else None for tag in (Tag.RPATH, Tag.RUNPATH))
    if path == (before.rpath if before.runpath is None else before.runpath):  # an edit may leave it alone
        unchanged = (after.rpath, after.runpath) == (before.rpath, before.runpath)
        rpath, runpath = (before.rpath, before.runpath) if unchanged else (rpath, runpath)
    needs = before.version_needs
    return replace(
        before,
        header=before.header._replace(shoff=tables.moved(before.header.shoff)),
        segments=tuple(itertools.starmap(tables.segment, _pairs(before.segments, after.segments))),
        sections=tuple(itertools.starmap(tables.section, _pairs(before.sections, after.sections))),
        interp=None if edit.interp is None else text_of(edit.interp),
        dynamic=_kept_entries(_without_hint(before, after, tables.last), edit),
        needed=tuple(renamed.get(name, name) for name in before.needed),
        rpath=rpath,
        runpath=runpath,
        notes=_expected_notes(before, after, edit),
        version_needs=needs and tuple(n._replace(soname=renamed.get(n.soname, n.soname)) for n in needs),
    )


def _without_inert(notes: tuple[NoteFields, ...]) -> tuple[NoteFields, ...]:
    """Leave out resolution caches that were made unreadable."""
    return tuple(note for note in notes if (note.owner, note.type) != (_CACHE_OWNER, 0))


def _expected_notes(before: ElfDescription, after: ElfDescription, edit: Linkage) -> tuple[NoteFields, ...]:
    """Return the notes that should be there now: the resolution cache stands where the edit put it."""
    kept = [note for note in before.notes if (note.owner, note.type) != (_CACHE_OWNER, CACHE_TYPE)]
    if edit.resolution_cache:
        cache = NoteFields.of(_CACHE_OWNER, CACHE_TYPE, description_of(edit.resolution_cache))
        notes = _without_inert(after.notes)
        kept.insert(notes.index(cache) if cache in notes else len(kept), cache)
    return _without_inert(tuple(kept))


def _pairs(before: tuple[_Row, ...], after: tuple[_Row, ...]) -> Iterable[tuple[_Row, _Row]]:
    """Pair up the rows of two header tables; tables of different lengths differ anyway."""
    return zip(before, after if len(after) == len(before) else before, strict=True)


class _EditedTables:
    """Header tables after an edit in place: written apart from :mod:`nixpatch.elf.header_tables`."""

    def __init__(self, before: ElfDescription, edit: Linkage, growth: int) -> None:
        loads = [segment for segment in before.segments if segment.type == elf.PT_LOAD]
        self.last = max(loads, key=lambda load: (load.vaddr, load.memsz), default=None)
        self.cut = max((load.offset + load.filesz for load in loads if load.filesz), default=0)
        self.end = self.last.vaddr + self.last.memsz if self.last else 0
        self.growth = growth
        self.interp = next((segment for segment in before.segments if segment.type == elf.PT_INTERP), None)
        self.strings = dict(before.dynamic).get(elf.DT_STRTAB)
        self.has_cache = bool(edit.resolution_cache)
        self.new_interp = edit.interp is not None and text_of(edit.interp) != before.interp

    def moved(self, offset: int) -> int:
        """Return the offset that a byte of the original has now."""
        return offset + self.growth if offset >= self.cut else offset

    def segment(self, before: SegmentFields, after: SegmentFields) -> SegmentFields:
        """Return the program header that should be there now."""
        size = {"filesz": after.filesz, "memsz": after.memsz}
        if before == self.last:  # it grows over its .bss, and gets PF_W where a full dynamic section moves in
            grown = after.memsz >= before.memsz and after.filesz == after.memsz
            offset = before.offset if before.filesz else after.offset
            flags = before.flags | (after.flags & elf.PF_W)
            return before._replace(offset=offset, flags=flags, **size) if grown else before
        if before.type in {elf.PT_DYNAMIC, elf.PT_INTERP} and after.vaddr >= self.end:
            flags = before.flags | (elf.PF_W if before.type == elf.PT_DYNAMIC else 0)
            place = {"offset": after.offset, "vaddr": after.vaddr, "paddr": after.paddr}
            return before._replace(flags=flags, **place, **size)
        if before.type == elf.PT_NOTE and self.has_cache and after.vaddr >= self.end:
            return before._replace(offset=after.offset, vaddr=after.vaddr, paddr=after.paddr, **size)
        if before.type == elf.PT_INTERP and self.new_interp:
            return before._replace(**size)
        if before.filesz and before.type != elf.PT_LOAD:
            return before._replace(offset=self.moved(before.offset))
        return before

    def section(self, before: SectionFields, after: SectionFields) -> SectionFields:
        """Return the section header that should be there now."""
        placed = before._replace(addr=after.addr, offset=after.offset, size=after.size)
        if before.type == elf.SHT_STRTAB and before.addr and before.addr == self.strings:
            return placed
        if before.type == elf.SHT_DYNAMIC and after.addr >= self.end:
            return placed._replace(flags=before.flags | elf.SHF_WRITE)
        if self.interp and (before.addr, before.size) == (self.interp.vaddr, self.interp.filesz):
            return placed if self.new_interp else before
        if before.type == elf.SHT_NOTE and self.has_cache and after.addr >= self.end:
            return placed
        if before.type == elf.SHT_NOBITS or (before.size == 0 and after.offset == before.offset):
            return before._replace(offset=after.offset)
        return before._replace(offset=self.moved(before.offset))
