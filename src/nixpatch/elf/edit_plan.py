"""From headers and an edit to the pieces of the new file. Pure: nothing is read or written here."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace

from nixpatch.elf import structs as elf
from nixpatch.elf.dynamic import pack_vn_file
from nixpatch.elf.edit_subject import EditSubject
from nixpatch.elf.header_tables import (
    Area,
    ByteChange,
    HeaderValues,
    Placement,
    difference,
    shift,
    table_changes,
    with_strings,
)
from nixpatch.elf.headers import Headers
from nixpatch.elf.image import Patch
from nixpatch.elf.resolution_cache import FileNotes, NoteSegment, refuse_code
from nixpatch.elf.resolved_edit import ResolvedEdit, new_dynamic, resolve_edit
from nixpatch.elf.segment_growth import SegmentGrowth, plan_growth, refuse_overlaps
from nixpatch.elf.structs import round_up
from nixpatch.elf.symbol_edit import ResolvedSymbols, symbol_changes
from nixpatch.elf.undo_record import FOOTER_SIZE, RECORD_LIMIT, UndoFooter, UndoRecord
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, ResolutionCache

_NO_DIGEST = bytes(32)
_NO_NOTES = FileNotes()


@dataclass(frozen=True, slots=True)
class CopiedRange:
    """A range of the image and its offset in the new file."""

    offset: int
    length: int
    to: int


@dataclass(frozen=True, slots=True)
class EditPlan:
    """The new file: a hole of ``size`` bytes, then the copies, the writes, the record and the footer.

    The writer adds digest and checksum to the footer, since they cover bytes that only the writer reads.
    """

    size: int
    head: int
    """number of bytes that keep their place: the first of the copies, if there are any"""
    copies: tuple[CopiedRange, ...]
    writes: tuple[tuple[int, bytes], ...]
    record: bytes
    left: tuple[tuple[int, int], ...]
    tables: tuple[tuple[int, int], ...]
    """(offset, length) in the new file of the header tables, which the checksum covers beside the record"""
    footer: UndoFooter
    footer_offset: int
    notes: tuple[str, ...]


def plan_edit(
    headers: Headers,
    size: int,
    subject: EditSubject,
    edit: ElfEdit,
    *,
    stale: UndoFooter | None,
    notes: FileNotes = _NO_NOTES,
) -> EditPlan | None:
    """Plan the new file, or return None if the file already is as the edit would make it.

    Args:
        headers: headers of the original.
        size: its size in bytes.
        subject: result of :func:`nixpatch.elf.edit_subject.read_subject` for the original and this edit.
        edit: the linkage that it is to have.
        stale: footer of an invalid undo record: its area is replaced, and the edit cannot be undone.
        notes: of the original.

    Raises:
        FileRefused: the file cannot be edited safely.

    """
    resolved, linkage = resolve_edit(headers, subject, edit), subject.linkage
    if resolved.is_noop:
        return None
    growth = plan_growth(headers, size, stale, notes)
    keeps_path = resolved.search_path is None and not resolved.removes_search_path
    if growth.discarded and keeps_path and linkage.search_path and linkage.tag:
        # The string to keep is in the area to discard.
        resolved = replace(resolved, search_path=os.fsencode(linkage.search_path), tag=linkage.tag)
    moves = growth.discarded and notes.movable is not None and growth.discards(notes.movable.segment.vaddr)
    if moves and resolved.resolution_cache is None:
        resolved = replace(resolved, resolution_cache=linkage.resolution_cache)  # likewise
    note_edit = _NoteEdit.of(headers, resolved.resolution_cache, notes, moves=moves)
    notes_to_blank = [(offset, len(old), "a note") for offset, old in note_edit.blanked if old]
    refuse_code(headers, (offset for offset, _ in note_edit.blanked))
    refuse_overlaps(headers, growth, [*resolved.overwritten, *notes_to_blank])
    return _PlanBuilder(headers, size, growth, resolved, note_edit, undoable=stale is None).plan()


@dataclass(frozen=True, slots=True)
class _NoteEdit:
    """The part of an edit that concerns notes."""

    moved: NoteSegment | None = None
    content: bytes = b""
    """of the PT_NOTE that moves"""
    blanked: tuple[tuple[int, bytes], ...] = ()
    """(offset, old bytes) of ranges that become zero: of caches that stay where they are"""

    @classmethod
    def of(
        cls, headers: Headers, cache: ResolutionCache | None, notes: FileNotes, *, moves: bool
    ) -> _NoteEdit:
        """Decide what happens to the notes of a file.

        Args:
            headers: of the original.
            cache: as that of :class:`ResolvedEdit`.
            notes: of the original.
            moves: the PT_NOTE has to move, as what is in its place is discarded.

        Raises:
            FileRefused: there is to be a cache, and no place for it.

        """
        if cache is None:
            return cls()
        movable = notes.movable
        if cache and movable is None:
            raise FileRefused(notes.obstacle)
        if movable is None or not (cache or moves):
            return cls(blanked=notes.fields)
        start, end = movable.segment.offset, movable.segment.file_end
        stay = tuple(field for field in notes.fields if not start <= field[0] < end)
        return cls(movable, movable.with_cache(headers, cache), stay)


class _PlanBuilder:
    """Lays out the new area front to back. The undo record comes last, because it describes the rest."""

    def __init__(
        self,
        headers: Headers,
        size: int,
        growth: SegmentGrowth,
        resolved: ResolvedEdit,
        note_edit: _NoteEdit,
        *,
        undoable: bool,
    ) -> None:
        self.headers = headers
        self.undoable = undoable
        self.size = size
        self.growth = growth
        self.resolved = resolved
        self.note_edit = note_edit
        self.writes: list[tuple[int, bytes]] = []
        self.next = growth.area
        must_move = growth.discards(headers.dynamic_segment.vaddr)
        self.new_dynamic = new_dynamic(
            headers, resolved, growth.string_size, must_move=must_move, can_move=growth.can_hold_data
        )
        self.dynamic = self._place_dynamic()
        self.interp, self.interp_changes = self._place_interp()
        self.notes = self._place_notes()
        self.next = round_up(self.next, 8)
        self.strings_address = self.next
        self.next += growth.string_size
        for text in resolved.strings:
            self._put(text + b"\0")

    def plan(self) -> EditPlan:
        """Lay out until the record fits: its size depends on the changes, and they on the end of the area."""
        reserved = 0
        while True:
            end = round_up(self.next + reserved + FOOTER_SIZE, 8)
            delta = shift(self.headers, self.growth, end, self.size)
            changes, moved = self._changes(end, delta)
            left = self._left_behind()
            record = _pack_record(left, changes, self.resolved.symbols) if self.undoable else b""
            if len(record) > RECORD_LIMIT:
                raise FileRefused(f"its undo record would take {len(record)} bytes, more than {RECORD_LIMIT}")
            if len(record) <= reserved or not record:
                return self._plan(end, delta, changes=changes, moved=moved, left=left, record=record)
            reserved = len(record)

    def _place_dynamic(self) -> Placement | None:
        if not self.new_dynamic.moves:
            return None
        if not self.growth.can_hold_data:
            raise FileRefused("its dynamic section is full and would have to move into an executable segment")
        placement = Placement(self.next, len(self.new_dynamic.entries) * self.headers.layout.dyn.size)
        self.next += placement.size
        return placement

    def _place_interp(self) -> tuple[Placement | None, tuple[ByteChange, ...]]:
        segment, interp = self.headers.interp_segment, self.resolved.interp
        if segment is None:
            return None, ()
        discarded = self.growth.discards(segment.vaddr)
        if interp is None and not discarded:
            return None, ()
        content = self.headers.interp_bytes if interp is None else interp + b"\0"
        if discarded or len(content) > segment.filesz:
            return self._put(content), ()
        padded = content.ljust(segment.filesz, b"\0")
        return None, tuple(difference(segment.offset, self.headers.interp_bytes, padded))

    def _place_notes(self) -> tuple[NoteSegment, Placement] | None:
        if self.note_edit.moved is None:
            return None
        self.next = round_up(self.next, 4)
        return self.note_edit.moved, self._put(self.note_edit.content)

    def _put(self, content: bytes) -> Placement:
        placement = Placement(self.next, len(content))
        self.writes.append((self.growth.file_offset(self.next), content))
        self.next += len(content)
        return placement

    def _changes(self, end: int, delta: int) -> tuple[list[ByteChange], bytes]:
        """Return changes in place, and the bytes of a dynamic section that moves."""
        strings = Placement(self.strings_address, end - self.strings_address)
        in_place = self.resolved.interp is not None and self.interp is None
        size = len(self.resolved.interp or b"") + 1 if in_place else None
        area = Area(end, strings, self.dynamic, self.interp, size, self.notes)
        values = HeaderValues(self.resolved.os_abi, self.resolved.stack_flags)
        try:
            changes = [*table_changes(self.headers, self.growth, area, delta, values), *self.interp_changes]
            changes += self._names()
            for offset, old in self.note_edit.blanked:
                changes += difference(offset, old, bytes(len(old)))
            packed = self.headers.layout.pack_dyns(with_strings(self.new_dynamic.entries, strings))
        except struct.error:  # an offset near the end of what the class can express, beyond any file
            raise FileRefused("a number in its headers is too large to be moved") from None
        if self.dynamic:
            return changes, packed
        width = self.headers.layout.dyn.size
        old = self.headers.dynamic_bytes
        for offset in range(0, len(packed), width):
            before, after = old[offset : offset + width], packed[offset : offset + width]
            if before != after:  # nearly all stay
                changes += difference(self.headers.dynamic_offset + offset, before, after)
        return changes, b""

    def _names(self) -> list[ByteChange]:
        """Return the changes of verneed records and symbols. ``new_dynamic`` has changed DT_NEEDED."""
        headers, offsets = self.headers, self.resolved.name_offsets(self.growth.string_size)
        changes = [
            change
            for rename in self.resolved.renames
            if rename.reference.entry is None
            for change in difference(
                rename.reference.offset,
                pack_vn_file(headers, rename.reference.value),
                pack_vn_file(headers, offsets[rename.name]),
            )
        ]
        if self.resolved.symbols:
            changes += symbol_changes(self.resolved.symbols, offsets)
        return changes

    def _left_behind(self) -> tuple[tuple[int, int], ...]:
        headers, segment = self.headers, self.headers.interp_segment
        left = [(headers.string_offset, headers.string_size)]
        if self.dynamic:
            left.append((headers.dynamic_offset, len(headers.dynamic_bytes)))
        if self.interp and segment:
            left.append((segment.offset, segment.filesz))
        if self.notes:
            left.append((self.notes[0].segment.offset, self.notes[0].segment.filesz))
        return tuple(left)

    def _tables(self, delta: int) -> tuple[tuple[int, int], ...]:
        """Return the ranges of header tables and dynamic section in the new file."""
        headers, growth = self.headers, self.growth
        ehdr = headers.ehdr
        dynamic = (headers.dynamic_offset, len(headers.dynamic_bytes))
        if self.dynamic:
            dynamic = (growth.file_offset(self.dynamic.address), self.dynamic.size)
        return (
            (0, headers.layout.ehdr.size),
            (ehdr.phoff, len(headers.phdr_bytes)),
            (ehdr.shoff + delta if ehdr.shoff >= growth.cut else ehdr.shoff, len(headers.shdr_bytes)),
            dynamic,
        )

    def _plan(
        self,
        end: int,
        delta: int,
        *,
        changes: list[ByteChange],
        moved: bytes,
        left: tuple[tuple[int, int], ...],
        record: bytes,
    ) -> EditPlan:
        growth, headers = self.growth, self.headers
        size = self.size + delta
        writes = [*self.writes]
        if self.dynamic:
            writes.append((growth.file_offset(self.dynamic.address), moved))
        writes += [(c.offset if c.offset < growth.cut else c.offset + delta, c.new) for c in changes]
        footer_offset = growth.file_offset(end) - FOOTER_SIZE
        if record:
            writes.append((footer_offset - len(record), record))
        copies = (
            CopiedRange(0, growth.head, 0),
            CopiedRange(headers.string_offset, growth.string_size, growth.file_offset(self.strings_address)),
            CopiedRange(growth.cut, self.size - growth.cut, growth.cut + delta),
        )
        notes = []
        if self.dynamic:
            notes.append("dynamic section moved")
        if self.new_dynamic.replaces_hint:
            notes.append("the search path has the place of the count of relative relocations, a hint")
        if self.resolved.os_abi not in {None, *elf.LINUX_OSABIS}:
            notes.append("ld.so on Linux opens no library with this EI_OSABI")
        notes += [
            f"it asks for symbol versions of {name}: ld.so aborts unless another file needs that"
            for name in self.resolved.unneeded_versions
        ]
        if not self.undoable:
            notes.append("undo record was stale: cannot be undone")
        return EditPlan(
            size=size,
            head=growth.head,
            copies=tuple(c for c in copies if c.length > 0),
            writes=tuple(writes),
            record=record,
            left=left if self.undoable else (),
            tables=self._tables(delta),
            footer=UndoFooter(
                cut=growth.cut,
                delta=delta,
                original_size=self.size if self.undoable else 0,
                size=size,
                area=growth.area,
                string_size=growth.string_size,
                record_length=len(record),
                guard=0,
                sha256=_NO_DIGEST,
            ),
            footer_offset=footer_offset,
            notes=tuple(notes),
        )


def _pack_record(
    left: tuple[tuple[int, int], ...], changes: list[ByteChange], symbols: ResolvedSymbols | None
) -> bytes:
    patches = (Patch(c.offset, c.old) for c in sorted(changes, key=lambda c: c.offset))
    renamed = {} if symbols is None else {symbols.tables.names[i]: new for i, new in symbols.names.items()}
    unversioned = {symbols.tables.names[index] for index in symbols.unversioned} if symbols else set()
    return UndoRecord(
        left,
        tuple(patches),
        tuple(sorted((os.fsencode(old), os.fsencode(new)) for old, new in renamed.items())),
        tuple(sorted(map(os.fsencode, unversioned))),
    ).pack()
