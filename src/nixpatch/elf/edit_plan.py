"""From parsed headers and a wish to the pieces of the new file. Pure: no file is read or written here."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nixpatch.elf import structs as elf
from nixpatch.elf.dynamic import Naming, packed
from nixpatch.elf.header_tables import Area, Change, Placed, difference, shift, table_changes, with_strings
from nixpatch.elf.headers import Headers
from nixpatch.elf.image import Patch
from nixpatch.elf.resolved_edit import NewDynamic, Wish, new_dynamic, wish_of
from nixpatch.elf.segment_growth import Room, must_be_apart_from, room_for
from nixpatch.elf.structs import round_up
from nixpatch.elf.undo_record import FOOTER_SIZE, RECORD_LIMIT, Footer, Record
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, Linkage

_NO_DIGEST = bytes(32)


@dataclass(frozen=True, slots=True)
class Copy:
    """A range of the image and where it goes."""

    offset: int
    length: int
    to: int


@dataclass(frozen=True, slots=True)
class EditPlan:
    """The new file: a hole of ``size`` bytes, the copies, then the writes, then the record and the footer.

    Only the footer's digest and checksum are open: they cover bytes that only the writer sees.
    """

    size: int
    head: int
    """so many bytes keep their place: the first of the copies, if there are any"""
    copies: tuple[Copy, ...]
    writes: tuple[tuple[int, bytes], ...]
    record: bytes
    left: tuple[tuple[int, int], ...]
    tables: tuple[tuple[int, int], ...]
    """offset and length of the header tables in the new file: what the checksum covers beside the record"""
    footer: Footer
    footer_at: int
    notes: tuple[str, ...]


def plan_edit(
    headers: Headers,
    size: int,
    linkage: Linkage,
    edit: ElfEdit,
    *,
    stale: Footer | None,
    namings: Sequence[Naming] = (),
) -> EditPlan | None:
    """Decide on the pieces for a file of ``size`` bytes; None where the file is already as wished.

    ``namings``: the places that name needed libraries, for an edit that renames one.

    ``stale`` is the footer of an undo record that no longer holds: its area is built anew, and there is no
    way back. Raises ``FileRefused`` if the file cannot be edited safely.
    """
    wish = wish_of(headers, linkage, edit, namings)
    if wish.nothing:
        return None
    room = room_for(headers, size, stale)
    must_be_apart_from(headers, room, [place.naming for place in wish.renamed])
    if (
        room.discarded
        and wish.search_path is None
        and not wish.remove
        and linkage.search_path
        and linkage.tag
    ):
        # The string that is to stay stands in the area that goes.
        wish = replace(wish, search_path=os.fsencode(linkage.search_path), tag=linkage.tag)
    return _Builder(headers, size, room, wish, undoable=stale is None).plan()


class _Builder:
    """One edit. The area is laid out front to back; the record comes last, since it describes the rest."""

    def __init__(self, headers: Headers, size: int, room: Room, wish: Wish, *, undoable: bool) -> None:
        self.headers = headers
        self.undoable = undoable
        self.size = size
        self.room = room
        self.wish = wish
        self.writes: list[tuple[int, bytes]] = []
        self.next = room.area
        must_move = room.in_old_area(headers.dynamic_segment.vaddr)
        self.new_dynamic: NewDynamic = new_dynamic(headers, wish, room.string_size, must_move=must_move)
        self.dynamic = self._place_dynamic()
        self.interp, self.interp_change = self._place_interp()
        self.next = round_up(self.next, 8)
        self.strings_at = self.next
        self.next += room.string_size
        for text in wish.strings:
            self._put(text + b"\0")

    def plan(self) -> EditPlan:
        """Lay out until the record fits: its size depends on the changes, and they on the end of the area."""
        reserved = 0
        while True:
            end = round_up(self.next + reserved + FOOTER_SIZE, 8)
            delta = shift(self.headers, self.room, end, self.size)
            changes, moved = self._changes(end, delta)
            left = self._left_behind()
            record = _record(left, changes) if self.undoable else b""
            if len(record) > RECORD_LIMIT:
                raise FileRefused(f"its undo record would take {len(record)} bytes: it has too many sections")
            if len(record) <= reserved or not record:
                return self._plan(end, delta, changes=changes, moved=moved, left=left, record=record)
            reserved = len(record)

    def _place_dynamic(self) -> Placed | None:
        if not self.new_dynamic.moves:
            return None
        load = self.room.load
        if load.flags & elf.PF_X and not load.flags & elf.PF_W:
            raise FileRefused("its dynamic section is full and would have to move into an executable segment")
        size = len(self.new_dynamic.entries) * self.headers.layout.dyn.size
        placed = Placed(self.next, size)
        self.next += size
        return placed

    def _place_interp(self) -> tuple[Placed | None, tuple[Change, ...]]:
        segment, interp = self.headers.interp_segment, self.wish.interp
        if segment is None:
            return None, ()
        evicted = self.room.in_old_area(segment.vaddr)
        if interp is None and not evicted:
            return None, ()
        content = self.headers.interp_bytes if interp is None else interp + b"\0"
        if evicted or len(content) > segment.filesz:
            return self._put(content), ()
        padded = content.ljust(segment.filesz, b"\0")
        return None, tuple(difference(segment.offset, self.headers.interp_bytes, padded))

    def _put(self, content: bytes) -> Placed:
        placed = Placed(self.next, len(content))
        self.writes.append((self.room.at(self.next), content))
        self.next += len(content)
        return placed

    def _changes(self, end: int, delta: int) -> tuple[list[Change], bytes]:
        """In-place changes, and the bytes of a dynamic section that moves."""
        strings = Placed(self.strings_at, end - self.strings_at)
        in_place = self.wish.interp is not None and self.interp is None
        size = len(self.wish.interp or b"") + 1 if in_place else None
        area = Area(end, strings, self.dynamic, self.interp, size)
        try:
            changes = [*table_changes(self.headers, self.room, area, delta), *self.interp_change]
            changes += self._renamed()
            packed = self.headers.layout.pack_dyns(with_strings(self.new_dynamic.entries, strings))
        except struct.error:  # an offset near the end of what the class can express, beyond any file
            raise FileRefused("a number in its headers is too large to be moved") from None
        if self.dynamic:
            return changes, packed
        width = self.headers.layout.dyn.size
        old = self.headers.dynamic_bytes
        for at in range(0, len(packed), width):
            was, becomes = old[at : at + width], packed[at : at + width]
            if was != becomes:  # nearly all stay
                changes += difference(self.headers.dynamic_offset + at, was, becomes)
        return changes, b""

    def _renamed(self) -> list[Change]:
        """Give the verneed records, in their place, the new names' offsets; DT_NEEDED has them already."""
        headers, names = self.headers, self.wish.names_from(self.room.string_size)
        return [
            change
            for place in self.wish.renamed
            if place.naming.entry is None
            for change in difference(
                place.naming.offset,
                packed(headers, place.naming.value),
                packed(headers, names[place.new]),
            )
        ]

    def _left_behind(self) -> tuple[tuple[int, int], ...]:
        headers, segment = self.headers, self.headers.interp_segment
        left = [(headers.string_offset, headers.string_size)]
        if self.dynamic:
            left.append((headers.dynamic_offset, len(headers.dynamic_bytes)))
        if self.interp and segment:
            left.append((segment.offset, segment.filesz))
        return tuple(left)

    def _tables(self, delta: int) -> tuple[tuple[int, int], ...]:
        """Where ELF header, program headers, section headers and dynamic section stand in the new file."""
        headers, room = self.headers, self.room
        ehdr = headers.ehdr
        dynamic = (headers.dynamic_offset, len(headers.dynamic_bytes))
        if self.dynamic:
            dynamic = (room.at(self.dynamic.address), self.dynamic.size)
        return (
            (0, headers.layout.ehdr.size),
            (ehdr.phoff, len(headers.phdr_bytes)),
            (ehdr.shoff + delta if ehdr.shoff >= room.cut else ehdr.shoff, len(headers.shdr_bytes)),
            dynamic,
        )

    def _plan(
        self,
        end: int,
        delta: int,
        *,
        changes: list[Change],
        moved: bytes,
        left: tuple[tuple[int, int], ...],
        record: bytes,
    ) -> EditPlan:
        room, headers = self.room, self.headers
        size = self.size + delta
        writes = [*self.writes]
        if self.dynamic:
            writes.append((room.at(self.dynamic.address), moved))
        writes += [(c.offset if c.offset < room.cut else c.offset + delta, c.new) for c in changes]
        footer_at = room.at(end) - FOOTER_SIZE
        if record:
            writes.append((footer_at - len(record), record))
        copies = [
            Copy(0, room.head, 0),
            Copy(headers.string_offset, room.string_size, room.at(self.strings_at)),
            Copy(room.cut, self.size - room.cut, room.cut + delta),
        ]
        notes = []
        if self.dynamic:
            notes.append("dynamic section moved")
        if not self.undoable:
            notes.append("undo record was stale: cannot be undone")
        footer = Footer(
            room.cut,
            delta,
            self.size if self.undoable else 0,
            size,
            room.area,
            room.string_size,
            len(record),
            0,
            _NO_DIGEST,
        )
        return EditPlan(
            size,
            room.head,
            tuple(c for c in copies if c.length > 0),
            tuple(writes),
            record,
            left if self.undoable else (),
            self._tables(delta),
            footer,
            footer_at,
            tuple(notes),
        )


def _record(left: tuple[tuple[int, int], ...], changes: list[Change]) -> bytes:
    return Record(left, tuple(Patch(c.offset, c.old) for c in sorted(changes, key=lambda c: c.offset))).pack()
