"""Random access to the bytes of a file, or to those of its original.

A patched file differs from its original by an inserted area and some overwritten bytes. An :class:`Image` of
the original hides both: its offsets are those of the original.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from nixpatch.elf.errors import malformed

_BLOCK = 1 << 13
_CACHED = 512  # blocks; headers that point all over a large file must not load it all into memory
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of image bytes and its place in the file."""

    start: int
    length: int
    file_offset: int


@dataclass(frozen=True, slots=True)
class Patch:
    """Bytes of the image that were overwritten in the file."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Image:
    """``size`` bytes behind the descriptor ``fd``, which the caller keeps open."""

    fd: int
    size: int
    pieces: tuple[Piece, ...]
    patches: tuple[Patch, ...] = ()
    """sorted by offset, without overlaps"""
    _blocks: dict[int, bytes] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, fd: int) -> Image:
        """Make the image of a file as it is."""
        size = os.fstat(fd).st_size
        return cls(fd, size, (Piece(0, size, 0),))

    def before_edit(self, cut: int, delta: int, size: int, patches: tuple[Patch, ...]) -> Image:
        """Make the image of the file before ``delta`` bytes were inserted at ``cut`` and ``patches`` lost."""
        head = Piece(0, min(cut, size), 0)
        tail = (Piece(cut, size - cut, cut + delta),) if size > cut else ()
        return Image(self.fd, size, (head, *tail), patches)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes.

        Raises:
            SkippedFile: the range is not in the image.

        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise malformed(f"bytes {offset:#x}+{length:#x} lie beyond the end of the file ({self.size:#x})")
        if length > _BLOCK:
            return self._assemble(offset, length)
        # Headers and strings are close together: a few blocks serve dozens of small reads.
        inside = offset % _BLOCK
        base = offset - inside
        block = self._blocks.get(base)
        data = (self._block(base) if block is None else block)[inside : inside + length]
        if len(data) < length:
            data += self._block(base + _BLOCK)[: length - len(data)]
        return data

    def until_nul(self, offset: int, limit: int) -> bytes | None:
        """Return the bytes before the next NUL; None if the ``limit`` bytes from ``offset`` on have none.

        Raises:
            SkippedFile: the image ends first.

        """
        inside = offset % _BLOCK
        base = offset - inside
        block = self._blocks.get(base) if offset >= 0 else b""
        if block is None and base < self.size:
            block = self._block(base)
        if block:  # nearly all strings are within one block
            end = block.find(b"\0", inside, inside + limit)
            if end >= 0:
                return block[inside:end]
        data = b""
        while len(data) < limit:
            data += self.read(offset + len(data), min(_BLOCK, limit - len(data)))
            text, nul, _ = data.partition(b"\0")
            if nul:
                return text
        return None

    def is_zero(self, offset: int, length: int) -> bool:
        """Whether all bytes of a range are zero.

        Raises:
            SkippedFile: the range is not in the image.

        """
        return all(self.read(start, count).count(0) == count for start, count in chunks(offset, length))

    def ranges(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Yield ``(image offset, length, file offset)`` of the pieces of a range, ignoring patches."""
        for piece in self.pieces:
            start = max(offset, piece.start)
            end = min(offset + length, piece.start + piece.length)
            if start < end:
                yield start, end - start, piece.file_offset + start - piece.start

    def patches_in(self, offset: int, length: int) -> Iterator[Patch]:
        """Yield the patches of a range, clipped to it."""
        # A forged record may have half a million: reading a block must not visit all of them.
        first = max(bisect_right(self.patches, offset, key=lambda patch: patch.offset) - 1, 0)
        for index in range(first, len(self.patches)):
            patch = self.patches[index]
            if patch.offset >= offset + length:
                return
            start = max(offset, patch.offset)
            end = min(offset + length, patch.offset + len(patch.data))
            if start < end:
                yield Patch(start, patch.data[start - patch.offset : end - patch.offset])

    def sha256(self) -> bytes:
        """Digest the whole image, reading it once."""
        digest = hashlib.sha256()
        self.feed(digest.update)
        return digest.digest()

    def feed(self, update: Callable[[bytes], object]) -> None:
        """Hand the whole image to ``update`` from front to back, reading it once."""
        for start, count in chunks(0, self.size):
            update(self._assemble(start, count))

    def _block(self, base: int) -> bytes:
        block = self._blocks.get(base)
        if block is None:
            if len(self._blocks) >= _CACHED:
                self._blocks.clear()
            block = self._blocks[base] = self._assemble(base, min(_BLOCK, self.size - base))
        return block

    def _assemble(self, offset: int, length: int) -> bytes:
        if len(self.pieces) == 1 and not self.patches:  # a file as it is
            return self._pread(length, offset)
        data = bytearray()
        for _, count, file_offset in self.ranges(offset, length):
            data += self._pread(count, file_offset)
        for patch in self.patches_in(offset, length):
            data[patch.offset - offset : patch.offset - offset + len(patch.data)] = patch.data
        return bytes(data)

    def _pread(self, length: int, file_offset: int) -> bytes:
        data = os.pread(self.fd, length, file_offset)
        if len(data) != length:
            raise malformed("the file became shorter while it was read")
        return data


def chunks(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Split a range into ``(offset, length)`` of at most 1 MiB."""
    for start in range(offset, offset + length, _CHUNK):
        yield start, min(_CHUNK, offset + length - start)
