"""An edited file beside its original: how offsets correspond, and whether bytes are equal."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nixpatch.elf.dynamic import linkage, namings, places
from nixpatch.elf.headers import Headers
from nixpatch.elf.image import Image
from nixpatch.elf.resolved_edit import Wish, wish_of
from nixpatch.elf.undo import Opened
from nixpatch.elf.undo_record import Footer
from nixpatch.model import ElfEdit, Linkage

_CHUNK = 1 << 20
SAMPLE = 4096
"""bytes at each end of a range that a quick comparison looks at"""


@dataclass(frozen=True, slots=True)
class Pair:
    """The original (seen through its undo record, if it has one), and the edited file as it is."""

    old_image: Image
    old: Headers
    old_linkage: Linkage
    new_image: Image
    new: Headers
    wish: Wish
    edit: ElfEdit
    cut: int
    """offset in the original behind the content of all PT_LOADs"""
    footer: Footer | None
    """of the edited file"""
    deep: bool
    """compare all bytes, not samples"""

    @classmethod
    def of(cls, before: Opened, after: Opened, edit: ElfEdit, *, deep: bool) -> Pair:
        """Pair up two files. Raises ``FileRefused`` for an edit that no file can have."""
        image, headers = before.original_image, before.original
        old = linkage(image, headers)
        wish = wish_of(headers, old, edit, namings(image, headers) if edit.renames else ())
        new_image, new = after.current_image, after.current
        cut = max(p.file_end for p in headers.loads if p.filesz)
        return cls(image, headers, old, new_image, new, wish, edit, cut, after.footer, deep)

    @property
    def delta(self) -> int:
        """By how much what stands behind the cut has moved."""
        return self.new_image.size - self.old_image.size

    @property
    def memory_end(self) -> int:
        """Address where the new area begins: below it the memory image must be the old one."""
        end = self.old.last_load.memory_end
        return min(end, self.footer.area) if self.footer else end

    @property
    def rewritten(self) -> list[tuple[int, int]]:
        """Ranges of the original that this edit may overwrite."""
        return [*_rewritten(self.old), *places(place.naming for place in self.wish.renamed)]

    def moved(self, offset: int) -> int:
        """Where in the edited file a byte of the original stands."""
        return offset + self.delta if offset >= self.cut else offset

    def differ(self, old: int, new: int, length: int, holes: Iterable[tuple[int, int]] = ()) -> int | None:
        """First offset in the original at which two ranges differ, outside ``holes``; None if they do not.

        ``holes`` are ``(offset, length)`` in the original.
        """
        hidden: _Ranges | None = None
        for start, count in self._looked_at(old, length):
            theirs = self.old_image.read(start, count)
            ours = self.new_image.read(new + start - old, count)
            if theirs == ours:
                continue
            hidden = hidden or _Ranges(holes)
            at = _first_difference(hidden.masked(theirs, start), hidden.masked(ours, start))
            if at is not None:
                return start + at
        return None

    def _looked_at(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        if not self.deep and length > 2 * SAMPLE:
            yield offset, SAMPLE
            yield offset + length - SAMPLE, SAMPLE
            return
        yield from chunks(offset, length)


class _Ranges:
    """Ranges that may overlap. A forged file may have 65,000 records to be renamed."""

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
        """Return bytes that stand at an offset with zeros wherever one of the ranges is."""
        shown = bytearray(data)
        end = offset + len(data)
        index = max(bisect_right(self._starts, offset) - 1, 0)
        while index < len(self._starts) and self._starts[index] < end:
            first, last = max(self._starts[index], offset), min(self._ends[index], end)
            if first < last:
                shown[first - offset : last - offset] = bytes(last - first)
            index += 1
        return shown


def chunks(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Split a range into runs of at most 1 MiB."""
    for start in range(offset, offset + length, _CHUNK):
        yield start, min(_CHUNK, offset + length - start)


def _first_difference(one: bytearray, other: bytearray) -> int | None:
    if one == other:
        return None
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)


def _rewritten(headers: Headers) -> list[tuple[int, int]]:
    """Give what any edit may overwrite: header tables, dynamic section, interpreter."""
    holes = [
        (0, headers.layout.ehdr.size),
        (headers.ehdr.phoff, len(headers.phdr_bytes)),
        (headers.ehdr.shoff, len(headers.shdr_bytes)),
        (headers.dynamic_offset, len(headers.dynamic_bytes)),
    ]
    segment = headers.interp_segment
    if segment:
        holes.append((segment.offset, segment.filesz))
    return holes


def shared_pages(headers: Headers) -> set[int]:
    """Find the PT_LOADs, by index, that begin in the (largest) page in which the one before ends."""
    page = headers.machine.arch.max_page
    return {
        index
        for index, load in enumerate(headers.loads)
        if index
        and headers.loads[index - 1].memsz
        and (headers.loads[index - 1].memory_end - 1) // page >= load.vaddr // page
    }
