"""The undo record: how a patched file remembers what it was.

It stands inside .dynstr, as its last bytes and the last bytes of the last PT_LOAD::

    [ranges left behind][overwritten bytes][footer, which ends in NUL]

so strip and patchelf carry it along as part of a section they know. The footer has a fixed size and a magic
number; numbers of the record are LEB128 (DWARF 5, section 7.6), since most are small, and nothing is
compressed, since the same edit has to give the same bytes with any zlib.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from nixpatch.elf.image import Patch

MAGIC: Final = b"\0nixpatch undo 1"
_FOOTER: Final = struct.Struct("<16sQqQQQQII32s7x1x")
FOOTER_SIZE: Final = _FOOTER.size
RECORD_LIMIT: Final = 1 << 20
"""bytes; room for a file with 65,536 sections, and what a hostile file can make us parse"""


@dataclass(frozen=True, slots=True)
class Footer:
    """The fixed part of the record."""

    cut: int
    """file offset at which bytes came in"""
    delta: int
    """how many"""
    original_size: int
    size: int
    """of the patched file"""
    area: int
    """address where the new bytes begin"""
    string_size: int
    """DT_STRSZ of the original"""
    record_length: int
    guard: int
    """checksum over the headers, the record and the ranges left behind"""
    sha256: bytes
    """of the whole original"""

    @property
    def has_record(self) -> bool:
        """False where a file was edited again after its record had become stale: no way back is left."""
        return self.record_length > 0

    def pack(self) -> bytes:
        """As it stands in the file."""
        return _FOOTER.pack(
            MAGIC,
            self.cut,
            self.delta,
            self.original_size,
            self.size,
            self.area,
            self.string_size,
            self.record_length,
            self.guard,
            self.sha256,
        )

    @classmethod
    def unpack(cls, data: bytes) -> Footer | None:
        """From the last ``FOOTER_SIZE`` bytes of a segment; None if this is no footer."""
        if len(data) != FOOTER_SIZE or not data.startswith(MAGIC):
            return None
        return cls(*_FOOTER.unpack(data)[1:])


@dataclass(frozen=True, slots=True)
class Record:
    """The variable part."""

    left: tuple[tuple[int, int], ...]
    """(offset, length) in the patched file of what nothing points at any more: strip may put zeros there"""
    patches: tuple[Patch, ...]
    """overwritten bytes, by offset in the original"""

    def pack(self) -> bytes:
        """As it stands in the file."""
        out = bytearray()
        _put(out, len(self.left))
        for offset, length in self.left:
            _put(out, offset)
            _put(out, length)
        _put(out, len(self.patches))
        for patch in self.patches:
            _put(out, patch.offset)
            _put(out, len(patch.data))
            out += patch.data
        return bytes(out)

    @classmethod
    def unpack(cls, data: bytes) -> Record | None:
        """None if the bytes are no record."""
        try:
            count, at = _get(data, 0)
            left = []
            for _ in range(count):
                offset, at = _get(data, at)
                length, at = _get(data, at)
                left.append((offset, length))
            count, at = _get(data, at)
            patches = []
            for _ in range(count):
                offset, at = _get(data, at)
                length, at = _get(data, at)
                if at + length > len(data):
                    return None
                patches.append(Patch(offset, data[at : at + length]))
                at += length
        except IndexError:
            return None
        return cls(tuple(left), tuple(patches)) if at == len(data) else None


def _put(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _get(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise IndexError
