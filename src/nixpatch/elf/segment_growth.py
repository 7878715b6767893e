"""The place for new bytes: behind the last PT_LOAD, which grows over its .bss.

No program header is added or moved. All addresses, AT_PHDR on every kernel, and the layout that strip derives
from the section headers stay the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nixpatch.elf import structs as elf
from nixpatch.elf.headers import Headers, refuse_machine
from nixpatch.elf.resolution_cache import FileNotes, NoteSegment
from nixpatch.elf.structs import Phdr
from nixpatch.elf.undo_record import UndoFooter
from nixpatch.errors import FileRefused

_BSS = 256 << 20  # bytes of .bss that may become file content; the most seen in a wheel is 14 MiB
_ALIGN = 16
_NO_NOTES = FileNotes()


@dataclass(frozen=True, slots=True)
class SegmentGrowth:
    """How the last PT_LOAD grows, and which image bytes stay, move or go."""

    load: Phdr
    """the PT_LOAD before the edit"""
    offset: int
    """its new p_offset, which differs only for a segment without file content"""
    head: int
    """image bytes [0, head) stay; bytes [head, cut) are discarded"""
    cut: int
    """image bytes from here on move by a constant; smaller than ``head`` if a section begins in padding"""
    area: int
    """address of the first new byte"""
    string_size: int
    """number of bytes of the string table to copy"""
    discarded: bool
    """the area of an earlier edit is replaced"""

    @property
    def can_hold_data(self) -> bool:
        """Whether writable data may stand there: no segment becomes writable and executable."""
        return bool(self.load.flags & elf.PF_W or not self.load.flags & elf.PF_X)

    def file_offset(self, address: int) -> int:
        """Return the file offset of an address in the new area."""
        return self.offset + address - self.load.vaddr

    def discards(self, address: int) -> bool:
        """Whether the edit discards what is at an address."""
        return self.discarded and address >= self.area


def plan_growth(
    headers: Headers, size: int, stale: UndoFooter | None, notes: FileNotes = _NO_NOTES
) -> SegmentGrowth:
    """Find the place in a file of ``size`` bytes.

    Args:
        headers: headers of the file.
        size: size of the file in bytes.
        stale: footer of an undo record that is no longer valid.
        notes: of the file, if it has a stale footer.

    Raises:
        FileRefused: there is none.

    """
    _refuse_unsafe(headers)
    load, end, cut = headers.last_load, headers.loads_end, headers.tail_start
    if load.filesz and load.file_end != end:
        raise FileRefused("the PT_LOAD with the highest address is not the last one in the file")
    offset = load.offset if load.filesz else end + (load.vaddr - end) % max(load.align, 1)
    old = _old_area(headers, stale, notes.movable) if stale else None
    if stale and old:
        head, string_size = offset + old - load.vaddr, stale.string_size
        growth = SegmentGrowth(load, offset, head, cut, old, string_size, discarded=True)
    else:
        area = elf.round_up(load.memory_end, _ALIGN)
        growth = SegmentGrowth(load, offset, end, cut, area, headers.string_size, discarded=False)
    bss = growth.file_offset(growth.area) - end
    if bss > _BSS:
        raise FileRefused(f"its .bss of {bss} bytes would have to become file content")
    _refuse_overlaps(headers, growth, size)
    return growth


def _refuse_unsafe(headers: Headers) -> None:
    refuse_machine(headers)
    if headers.null_index is None:
        raise FileRefused("its dynamic section has no DT_NULL, so it has no end that could be moved")
    if not headers.last_load.flags & elf.PF_R:
        raise FileRefused("its last PT_LOAD is not readable, so no string table can stand there")


def refuse_overlaps(headers: Headers, growth: SegmentGrowth, ranges: Sequence[tuple[int, int, str]]) -> None:
    """Refuse to overwrite ranges that overlap each other or headers, or do not stay in place.

    Args:
        headers: headers of the file.
        growth: result of :func:`plan_growth`.
        ranges: (offset, length, name) of what an edit overwrites beside the headers.

    Raises:
        FileRefused: one of them does.

    """
    if not ranges:
        return
    _must_not_overlap([*_overwritten(headers), *ranges])
    for start, length, name in ranges:
        if start + length > min(growth.head, growth.cut):
            raise FileRefused(f"{name} would be cut: behind its segments, or in the area of an earlier edit")


def _overwritten(headers: Headers) -> list[tuple[int, int, str]]:
    return [*headers.rewritable, (headers.string_offset, headers.string_size, "the string table")]


def _must_not_overlap(ranges: list[tuple[int, int, str]]) -> None:
    for (start, length, name), (after, _, other) in itertools.pairwise(sorted(ranges)):
        if start + length > after:
            raise FileRefused(f"{name} and {other} overlap")


def _refuse_overlaps(headers: Headers, growth: SegmentGrowth, size: int) -> None:
    """Refuse files whose overwritten ranges overlap or in which the insertion would split something."""
    ehdr = headers.ehdr
    _must_not_overlap(_overwritten(headers))
    if ehdr.phoff + len(headers.phdr_bytes) > growth.head:
        raise FileRefused("its program headers lie behind its segments")
    mapped = [(start, length) for start, length, _ in _overwritten(headers)]
    mapped += [(p.offset, p.filesz) for p in headers.phdrs if p.type not in {elf.PT_LOAD, elf.PT_GNU_RELRO}]
    mapped += [(s.offset, s.size) for s in headers.shdrs if s.in_file and s.flags & elf.SHF_ALLOC]
    sections = [(s.offset, s.size) for s in headers.shdrs if s.in_file]
    if _reach_into(mapped, growth.cut, headers.loads_end) or _reach_into(sections, growth.cut, growth.cut):
        raise FileRefused("something lies half inside and half behind its last segment")
    if growth.cut > size:
        raise FileRefused("truncated")


def _reach_into(ranges: Iterable[tuple[int, int]], start: int, end: int) -> bool:
    """Whether a range that is not empty begins before ``end`` and ends after ``start``."""
    return any(length and first < end and start < first + length for first, length in ranges)


def _old_area(headers: Headers, stale: UndoFooter, notes: NoteSegment | None) -> int | None:
    """Return the address of an earlier edit's area if it holds nothing else; None otherwise.

    Otherwise, alternating edit and strip would add one string table each time.
    """
    load, area = headers.last_load, stale.area
    values = headers.values
    if not load.vaddr <= area < load.vaddr + load.filesz or values[elf.DT_STRTAB] < area:
        return None
    if not 0 < stale.string_size <= headers.string_size:
        return None
    head = area - load.vaddr + load.offset
    if any(head < start + size and start < headers.tail_start for start, size, _ in headers.tables):
        return None  # patchelf may put the section headers there
    kept = (value for tag, value in headers.live if tag in elf.STRING_TAGS - {elf.DT_RPATH, elf.DT_RUNPATH})
    if any(offset >= stale.string_size for offset in kept):
        return None
    others = [values[tag] for tag in elf.ADDRESS_TAGS if tag in values and tag != elf.DT_STRTAB]
    moved = {elf.PT_DYNAMIC, elf.PT_INTERP, elf.PT_LOAD}
    others += [
        p.vaddr
        for p in headers.phdrs
        if p.type not in moved and p.memsz and (notes is None or p is not notes.segment)
    ]
    starts = {values[elf.DT_STRTAB], headers.dynamic_segment.vaddr}
    if notes is not None:
        starts.update(section.addr for section in notes.sections)
    if headers.interp_segment:
        starts.add(headers.interp_segment.vaddr)
    others += [s.addr for s in headers.shdrs if s.flags & elf.SHF_ALLOC and s.size and s.addr not in starts]
    return None if any(area <= address for address in others) else area
