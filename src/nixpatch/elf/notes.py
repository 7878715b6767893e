"""The notes in PT_NOTE segments (gABI, "Note Section")."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from nixpatch.elf import structs as elf
from nixpatch.elf.errors import SkippedFile
from nixpatch.elf.headers import ElfFile, Headers
from nixpatch.elf.image import Image
from nixpatch.elf.structs import Phdr

NOTE_SIZES = 1 << 20
"""bytes of all PT_NOTEs that are read; real files have some hundred"""
TYPE_OFFSET = 8
"""of ``n_type`` in a note"""


class Note(NamedTuple):
    """One note. Offsets are those in the content of its segment."""

    owner: bytes
    """with its NUL"""
    kind: int
    description: bytes
    start: int
    description_start: int
    end: int
    """where the next note begins"""


def note_segments(file: ElfFile) -> Iterator[tuple[Phdr, bytes]]:
    """Yield PT_NOTEs with their contents, up to the bound on their sum: many may cover the same bytes."""
    left = NOTE_SIZES
    for segment in file.headers.phdrs:
        if segment.type == elf.PT_NOTE and segment.filesz <= left:
            left -= segment.filesz
            yield segment, _content(file.image, segment)


def _content(image: Image, segment: Phdr) -> bytes:
    """Read a PT_NOTE; ``b""`` if the file is too short, which loaders do not check either."""
    try:
        return image.read(segment.offset, segment.filesz)
    except SkippedFile:
        return b""


def notes_in(data: bytes, align: int, headers: Headers) -> Iterator[Note]:
    """Yield the notes of a segment, aligned to 4 bytes or to 8."""
    align = 8 if align == 8 else 4
    header = struct.Struct(headers.layout.order + "III")
    offset = 0
    while offset + header.size <= len(data):
        name_size, size, kind = header.unpack_from(data, offset)
        name = offset + header.size
        begin = elf.round_up(name + name_size, align)
        if begin + size > len(data):
            return
        end = elf.round_up(begin + size, align)
        yield Note(data[name : name + name_size], kind, data[begin : begin + size], offset, begin, end)
        offset = end


def pack_note(headers: Headers, owner: bytes, kind: int, description: bytes) -> bytes:
    """Return the bytes of a note, padded to 4 bytes."""
    header = struct.pack(headers.layout.order + "III", len(owner), len(description), kind)
    parts = (header, owner, description)
    return b"".join(part.ljust(elf.round_up(len(part), 4), b"\0") for part in parts)
