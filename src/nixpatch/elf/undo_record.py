"""The undo record: what a patched file keeps of its original.

It is the end of .dynstr and of the last PT_LOAD, so that strip and patchelf keep it as part of a section::

    [ranges left behind][overwritten bytes][changed symbols, if any][footer, which ends in NUL]

The footer has a fixed size and a magic number. Numbers of the record are LEB128 (DWARF 5, section 7.6),
because most are small. Nothing is compressed, because the same edit must give the same bytes with any zlib.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from typing import Final

from nixpatch.elf.image import Patch

UNDO_MAGIC: Final = b"\0nixpatch undo 1"
_FOOTER: Final = struct.Struct("<16sQqQQQQII32s7x1x")
FOOTER_SIZE: Final = _FOOTER.size
RECORD_LIMIT: Final = 1 << 20
"""bytes; enough for 65,536 sections, and a bound on what a hostile file can make nixpatch parse"""


@dataclass(frozen=True, slots=True)
class UndoFooter:
    """The fixed part of the record, in the order of the file."""

    cut: int
    """file offset at which bytes were inserted"""
    delta: int
    """number of those bytes"""
    original_size: int
    """size of the original in bytes"""
    size: int
    """size of the patched file in bytes"""
    area: int
    """address of the first new byte"""
    string_size: int
    """DT_STRSZ of the original"""
    record_length: int
    """bytes of the record; 0 if a file was edited after its record had become stale: the original is lost"""
    guard: int
    """checksum over the headers, the record and the ranges left behind"""
    sha256: bytes
    """digest of the whole original"""

    def pack(self) -> bytes:
        """Return the bytes that the file holds."""
        return _FOOTER.pack(UNDO_MAGIC, *(getattr(self, field.name) for field in fields(self)))

    @classmethod
    def unpack(cls, data: bytes) -> UndoFooter | None:
        """Read the last ``FOOTER_SIZE`` bytes of a segment. Return None if they are not a footer."""
        if len(data) != FOOTER_SIZE or not data.startswith(UNDO_MAGIC):
            return None
        return cls(*_FOOTER.unpack(data)[1:])


@dataclass(frozen=True, slots=True)
class UndoRecord:
    """The variable part of the record."""

    left: tuple[tuple[int, int], ...]
    """(offset, length) in the patched file of ranges that nothing refers to any more; strip may zero them"""
    patches: tuple[Patch, ...]
    """overwritten bytes, sorted by offset in the original"""
    renamed_symbols: tuple[tuple[bytes, bytes], ...] = ()
    """``ManualEdit.renamed_symbols``; a symbol with a new name may have another index"""
    unversioned_symbols: tuple[bytes, ...] = ()
    """``ManualEdit.unversioned_symbols``"""

    def pack(self) -> bytes:
        """Return the bytes that the file holds."""
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
        names = (*(name for pair in self.renamed_symbols for name in pair), *self.unversioned_symbols)
        if names:
            _put(out, len(self.renamed_symbols))
            _put(out, len(self.unversioned_symbols))
        for name in names:
            _put(out, len(name))
            out += name
        return bytes(out)

    @classmethod
    def unpack(cls, data: bytes) -> UndoRecord | None:
        """Parse a record. Return None if the bytes are not one."""
        try:
            count, position = _get(data, 0)
            left = []
            for _ in range(count):
                offset, position = _get(data, position)
                length, position = _get(data, position)
                left.append((offset, length))
            count, position = _get(data, position)
            patches = []
            for _ in range(count):
                offset, position = _get(data, position)
                content, position = _get_bytes(data, position)
                patches.append(Patch(offset, content))
            renames, names, position = _get_names(data, position)
        except IndexError:
            return None
        if position != len(data):
            return None
        pairs = zip(names[: 2 * renames : 2], names[1 : 2 * renames : 2], strict=True)
        return cls(tuple(left), tuple(patches), tuple(pairs), tuple(names[2 * renames :]))


def _get_names(data: bytes, position: int) -> tuple[int, list[bytes], int]:
    """Return the number of pairs, all names, and the position behind them. Most records end before them."""
    if position == len(data):
        return 0, [], position
    renames, position = _get(data, position)
    others, position = _get(data, position)
    names = []
    for _ in range(2 * renames + others):
        name, position = _get_bytes(data, position)
        names.append(name)
    return renames, names, position


def _get_bytes(data: bytes, position: int) -> tuple[bytes, int]:
    """Return bytes that follow their number, and the position behind them."""
    length, position = _get(data, position)
    if position + length > len(data):
        raise IndexError
    return data[position : position + length], position + length


def _put(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _get(data: bytes, position: int) -> tuple[int, int]:
    """Return a number and the position behind it; IndexError means that it is incomplete or too large."""
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
        if shift > 63:
            raise IndexError
