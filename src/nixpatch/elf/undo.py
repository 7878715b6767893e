"""Tell a file as its maker left it from one patched with a way back and one patched and changed since."""

from __future__ import annotations

import enum
import itertools
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from nixpatch.elf.headers import Headers, parse
from nixpatch.elf.image import Image
from nixpatch.elf.undo_record import FOOTER_SIZE, MAGIC, RECORD_LIMIT, Footer, Record
from nixpatch.elf.unfit import Unfit

_CHUNK = 1 << 18
_TAIL = 1 << 14  # bytes; more than any search path that another tool puts behind the record


class State(enum.Enum):
    """What the undo record of a file is worth."""

    NONE = enum.auto()
    INTACT = enum.auto()
    STALE = enum.auto()


@dataclass(frozen=True, slots=True)
class Opened:
    """A file as it is and as it was. For anything but ``INTACT`` the two are the same."""

    state: State
    footer: Footer | None
    current_image: Image
    current: Headers
    original_image: Image
    original: Headers


def look(fd: int) -> Opened:
    """Parse a file, through its undo record where that is intact.

    Raises ``Unfit`` if it is not editable ELF, ``OSError`` for trouble with reading.
    """
    image = Image.of(fd)
    headers = parse(image)
    footer = _footer(image, headers)
    if footer is None:
        return Opened(State.NONE, None, image, headers, image, headers)
    record = _record(image, headers, footer)
    if record is not None:
        original_image = image.before_edit(footer.cut, footer.delta, footer.original_size, record.patches)
        try:
            original = parse(original_image)
        except Unfit:
            pass
        else:
            return Opened(State.INTACT, footer, image, headers, original_image, original)
    return Opened(State.STALE, footer, image, headers, image, headers)


def guard(
    image: Image, table_bytes: Iterable[bytes], record: bytes, footer: Footer, left: Iterable[tuple[int, int]]
) -> int:
    """Checksum that tells whether another tool went over a patched file.

    It covers the header tables, but also the bytes left behind at their old places: they stand in no section
    any more, so strip puts zeros there, and a second strip does so without changing a single header.
    """
    plain = Footer(
        footer.cut,
        footer.delta,
        footer.original_size,
        footer.size,
        footer.area,
        footer.string_size,
        footer.record_length,
        0,
        footer.sha256,
    )
    checksum = zlib.crc32(plain.pack(), zlib.crc32(record))
    for part in table_bytes:
        checksum = zlib.crc32(part, checksum)
    for offset, length in left:
        for start in range(offset, offset + length, _CHUNK):
            checksum = zlib.crc32(image.read(start, min(_CHUNK, offset + length - start)), checksum)
    return checksum


def tables(image: Image, headers: Headers) -> tuple[bytes, ...]:
    """Give the header tables that :func:`guard` covers."""
    ehdr = image.read(0, headers.layout.ehdr.size)
    return ehdr, headers.phdr_bytes, headers.shdr_bytes, headers.dynamic_bytes


def _footer(image: Image, headers: Headers) -> Footer | None:
    load = headers.last_load
    found = None
    if load.filesz >= FOOTER_SIZE:
        found = Footer.unpack(image.read(load.file_end - FOOTER_SIZE, FOOTER_SIZE))
    return found or _carried_away(image, headers)


def _carried_away(image: Image, headers: Headers) -> Footer | None:
    """Find the footer in a string table that patchelf moved to make room behind it.

    Such a record is stale, but the file must not pass for one that was never patched.
    """
    length = min(headers.string_size, _TAIL)
    tail = image.read(headers.string_offset + headers.string_size - length, length)
    at = tail.rfind(MAGIC)
    return Footer.unpack(tail[at : at + FOOTER_SIZE]) if at >= 0 else None


def _record(image: Image, headers: Headers, footer: Footer) -> Record | None:
    """Give the record if it is whole and nobody changed the file since; None otherwise."""
    load = headers.last_load
    end = load.file_end - FOOTER_SIZE
    if not 0 < footer.record_length <= min(RECORD_LIMIT, load.filesz - FOOTER_SIZE):
        return None
    if footer.size != image.size or footer.delta <= 0:
        return None
    tail = max(footer.original_size - footer.cut, 0)
    if tail and footer.cut + footer.delta + tail != image.size:
        return None
    if min(footer.original_size, footer.cut) > image.size:
        return None
    if image.read(end, FOOTER_SIZE) != footer.pack():  # padding that is not zero
        return None
    data = image.read(end - footer.record_length, footer.record_length)
    record = Record.unpack(data)
    if record is None:
        return None
    if sum(length for _, length in record.left) > image.size:
        return None
    if any(p.offset + len(p.data) > footer.original_size for p in record.patches):
        return None
    if any(p.offset + len(p.data) > after.offset for p, after in itertools.pairwise(record.patches)):
        return None
    try:
        found = guard(image, tables(image, headers), data, footer, record.left)
    except Unfit:
        return None
    return record if found == footer.guard else None
