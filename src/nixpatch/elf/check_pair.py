"""An edited file beside its original, and the checks that hold whichever writer made it."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nixpatch.elf.dynamic import linkage
from nixpatch.elf.edit_subject import read_subject
from nixpatch.elf.headers import ElfFile, Headers
from nixpatch.elf.image import chunks
from nixpatch.elf.resolution_cache import read_notes
from nixpatch.elf.resolved_edit import SEARCH_PATH_TAGS, TAG_NUMBERS, ResolvedEdit, resolve_edit
from nixpatch.elf.undo import ElfViews
from nixpatch.elf.undo_record import UndoFooter
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, Linkage

SAMPLE = 4096
"""bytes at each end of a range that a quick comparison reads"""


@dataclass(frozen=True, slots=True)
class FilePair:
    """The original (seen through its undo record, if it has one) and the edited file."""

    old: ElfFile
    new: ElfFile
    old_linkage: Linkage
    edit: ElfEdit
    resolved: ResolvedEdit
    footer: UndoFooter | None
    """undo footer of the edited file"""
    deep: bool
    """compare all bytes, not samples"""

    @classmethod
    def of(cls, before: ElfViews, after: ElfViews, edit: ElfEdit, *, deep: bool) -> FilePair:
        """Pair up two files.

        Raises:
            FileRefused: the original cannot have this edit.

        """
        old = before.original
        subject = read_subject(old, edit)
        resolved = resolve_edit(old.headers, subject, edit)
        return cls(old, after.current, subject.linkage, edit, resolved, after.footer, deep)

    @property
    def cut(self) -> int:
        """Offset in the original of what follows the PT_LOADs, which has moved."""
        return self.old.headers.tail_start

    @property
    def kept_strings(self) -> int:
        """Number of bytes of the old string table that the new one begins with; what follows is new."""
        return self.footer.string_size if self.footer else self.old.headers.string_size

    @property
    def memory_end(self) -> int:
        """Address of the new area: below it, memory must be as before."""
        end = self.old.headers.last_load.memory_end
        return min(end, self.footer.area) if self.footer else end

    @property
    def dynamic_moved(self) -> bool:
        """Whether the dynamic section is elsewhere, or anew in an area that was discarded."""
        address = self.old.headers.dynamic_segment.vaddr
        return address != self.new.headers.dynamic_segment.vaddr or address >= self.memory_end

    @property
    def rewritten(self) -> list[tuple[int, int]]:
        """``(offset, length)`` in the original of what this edit may overwrite."""
        ranges = [(offset, length) for offset, length, _ in self.old.headers.rewritable]
        ranges += ((offset, length) for offset, length, _ in self.resolved.overwritten)
        return [*ranges, *self.cache_fields]

    @property
    def cache_fields(self) -> list[tuple[int, int]]:
        """``(offset, length)`` in the original of type and descriptor of each resolution cache to drop."""
        if self.resolved.resolution_cache is None:
            return []
        load = self.old.headers.last_load
        end = load.offset + self.memory_end - load.vaddr  # what an earlier edit added goes anyway
        ranges = read_notes(self.old).ranges(self.old.headers)
        return [(offset, length) for offset, length in ranges if offset < end]

    def moved(self, offset: int) -> int:
        """Map an offset in the original to the edited file."""
        return offset + self.new.image.size - self.old.image.size if offset >= self.cut else offset

    def first_difference(
        self, old: int, new: int, length: int, holes: Iterable[tuple[int, int]] = ()
    ) -> int | None:
        """Compare two ranges, given by their offsets, by bytes, or by samples if not ``deep``.

        ``holes`` are ``(offset, length)`` in the original of ranges that may differ. Returns the offset of
        the first difference in the original; None if there is none.
        """
        hidden: _MergedRanges | None = None
        for start, count in self._compared(old, length):
            before = self.old.image.read(start, count)
            after = self.new.image.read(new + start - old, count)
            if before == after:
                continue
            hidden = hidden or _MergedRanges(holes)
            first, second = hidden.masked(before, start), hidden.masked(after, start)
            if first != second:
                return start + next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
        return None

    def same_bytes(self, old: int, new: int, length: int) -> bool:
        """Whether all bytes of two ranges, given by their offsets, are the same."""
        return all(
            self.old.image.read(offset, count) == self.new.image.read(new + offset - old, count)
            for offset, count in chunks(old, length)
        )

    def is_zero(self, ranges: Iterable[tuple[int, int]]) -> bool:
        """Whether all bytes of some ``(offset, length)`` of the edited file are zero."""
        return all(self.new.image.is_zero(offset, count) for offset, count in ranges)

    def linkage_violations(self) -> Iterator[str]:
        """Check search path, tag and interpreter against the edit."""
        edit, old, new = self.edit, self.old_linkage, linkage(self.new)
        tags = [entry.tag for entry in self.new.headers.live if entry.tag in SEARCH_PATH_TAGS]
        search_path = old.search_path if edit.search_path is None else edit.search_path
        if edit.search_path == "":
            if tags:
                yield "a search path entry is left"
        elif new.search_path != search_path:
            yield f"the search path is {new.search_path!r}, not {search_path!r}"
        elif edit.search_path is None:
            if new.tag is not old.tag:
                yield "the search path is in an entry with another tag"
        elif tags != [TAG_NUMBERS[self.resolved.tag]]:
            yield f"the search path is not exactly one entry, with tag DT_{self.resolved.tag.value}"
        interp = old.interp if edit.interp is None else edit.interp
        if new.interp != interp:
            yield f"the interpreter is {new.interp!r}, not {interp!r}"
        wanted = self.resolved.resolution_cache
        if new.resolution_cache != (old.resolution_cache if wanted is None else wanted):
            yield "the resolution cache is not the one of the edit"

    def string_table_violations(self, kept: int) -> Iterator[str]:
        """Check that the string table begins with ``kept`` bytes of the old one: offsets stay valid."""
        old, new = self.old.headers, self.new.headers
        length = min(kept, new.string_size, old.string_size)
        if new.string_size < kept or not self.same_bytes(old.string_offset, new.string_offset, length):
            yield "the string table is not the old one with additions"
        if new.null_index is None:
            yield "the dynamic section has no DT_NULL"

    def load_table_violations(self) -> Iterator[str]:
        """Check order and bounds of PT_LOADs (gABI, "Program Header")."""
        loads = self.new.headers.loads
        # Kernels map programs in any order. ld.so needs the order, so a library that lacks it does not load.
        if _is_ascending(self.old.headers) and not _is_ascending(self.new.headers):
            yield "PT_LOADs are not in ascending order"
        if any(p.filesz and p.file_end > self.new.image.size for p in loads):
            yield "a PT_LOAD reaches beyond the end of the file"

    def _compared(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        if not self.deep and length > 2 * SAMPLE:
            yield offset, SAMPLE
            yield offset + length - SAMPLE, SAMPLE
            return
        yield from chunks(offset, length)


class _MergedRanges:
    """Ranges that may overlap, merged: a forged file may have 65,000 records to be renamed."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, length in sorted(ranges):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], start + length)
            else:
                self._starts.append(start)
                self._ends.append(start + length)

    def masked(self, data: bytes, offset: int) -> bytearray:
        """Return the bytes at an offset with zeros in place of these ranges."""
        shown = bytearray(data)
        end = offset + len(data)
        index = max(bisect_right(self._starts, offset) - 1, 0)
        while index < len(self._starts) and self._starts[index] < end:
            first, last = max(self._starts[index], offset), min(self._ends[index], end)
            if first < last:
                shown[first - offset : last - offset] = bytes(last - first)
            index += 1
        return shown


def _is_ascending(headers: Headers) -> bool:
    return all(load.vaddr <= after.vaddr for load, after in itertools.pairwise(headers.loads))


def shared_pages(headers: Headers) -> set[int]:
    """Return the indexes of PT_LOADs that begin in the last page of the previous one, at the largest size."""
    page = headers.machine.arch.max_page
    return {
        index
        for index, load in enumerate(headers.loads)
        if index
        and headers.loads[index - 1].memsz
        and (headers.loads[index - 1].memory_end - 1) // page >= load.vaddr // page
    }


def collect(groups: Iterable[Iterator[str]]) -> tuple[str, ...]:
    """Run checks and return what they yield.

    If the edited file contradicts itself so that a check cannot go on, that is a violation too.
    """
    return tuple(violation for group in groups for violation in _guarded(group))


def _guarded(violations: Iterator[str]) -> Iterator[str]:
    try:
        yield from violations
    except FileRefused as refused:
        yield f"the result contradicts itself: {refused}"
