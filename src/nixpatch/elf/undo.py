"""Two views of one file: as it is, and as it was before nixpatch edited it."""

from __future__ import annotations

import contextlib
import enum
import errno
import itertools
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from nixpatch.elf.errors import SkippedFile
from nixpatch.elf.headers import ElfFile, Headers
from nixpatch.elf.image import Image
from nixpatch.elf.undo_record import FOOTER_SIZE, RECORD_LIMIT, UNDO_MAGIC, UndoFooter, UndoRecord
from nixpatch.model import SkipReason

_CHUNK = 1 << 18
_TAIL = 1 << 14  # bytes; more than any search path that another tool adds behind the record
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # NONBLOCK: opening a FIFO must not block
_NOT_A_FILE = {errno.ELOOP: "a symbolic link", errno.ENXIO: "not a regular file"}


class UndoState(enum.Enum):
    """State of the undo record of a file."""

    NONE = enum.auto()
    INTACT = enum.auto()
    STALE = enum.auto()
    """another tool changed the file after nixpatch"""


@dataclass(frozen=True, slots=True)
class ElfViews:
    """A file as it is and as it was. The two differ only if the undo record is ``INTACT``."""

    state: UndoState
    footer: UndoFooter | None
    current: ElfFile
    original: ElfFile
    record: UndoRecord | None = None
    """None unless it is ``INTACT``"""

    def without_record(self) -> ElfViews:
        """Return the views of a file whose undo record does not count, as somebody else wrote it."""
        return ElfViews(UndoState.NONE, None, self.current, self.current)


@contextlib.contextmanager
def open_views(source: str | int) -> Iterator[ElfViews]:
    """Open and parse a path, or parse an open descriptor, which stays open.

    Raises:
        SkippedFile: it is a link, not a regular file, or not a well-formed dynamic ELF file.
        OSError: it cannot be read.

    """
    with open_source(source) as fd:
        yield views_of(fd)


@contextlib.contextmanager
def open_source(source: str | int) -> Iterator[int]:
    """Yield a descriptor for a path and close it afterwards, or the caller's descriptor, which stays open.

    Raises:
        SkippedFile: it is a link or not a regular file.
        OSError: it cannot be opened.

    """
    try:
        fd = source if isinstance(source, int) else os.open(source, _FLAGS)
    except OSError as error:
        if error.errno in _NOT_A_FILE:
            raise SkippedFile(SkipReason.NOT_ELF, _NOT_A_FILE[error.errno]) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise SkippedFile(SkipReason.NOT_ELF, "not a regular file")
        yield fd
    finally:
        if not isinstance(source, int):
            os.close(fd)


def views_of(fd: int) -> ElfViews:
    """Parse a file, and its original if the undo record is intact.

    Raises:
        SkippedFile: it is not a well-formed dynamic ELF file.
        OSError: it cannot be read.

    """
    current = ElfFile.of(Image.of(fd))
    footer = _footer(current)
    if footer is None:
        return ElfViews(UndoState.NONE, None, current, current)
    record = _record(current, footer)
    if record is not None:
        image = current.image.before_edit(footer.cut, footer.delta, footer.original_size, record.patches)
        with contextlib.suppress(SkippedFile):
            return ElfViews(UndoState.INTACT, footer, current, ElfFile.of(image), record)
    return ElfViews(UndoState.STALE, footer, current, current)


def guard(
    image: Image, tables: Iterable[bytes], record: bytes, footer: UndoFooter, left: Iterable[tuple[int, int]]
) -> int:
    """Compute the checksum that detects changes by another tool.

    It covers the header tables and the bytes left behind at their old places: no section contains those any
    more, so strip overwrites them with zeros, and a second strip does so without changing a single header.
    """
    checksum = zlib.crc32(replace(footer, guard=0).pack(), zlib.crc32(record))
    for table in tables:
        checksum = zlib.crc32(table, checksum)
    for offset, length in left:
        for start in range(offset, offset + length, _CHUNK):
            checksum = zlib.crc32(image.read(start, min(_CHUNK, offset + length - start)), checksum)
    return checksum


def guarded_tables(image: Image, headers: Headers) -> tuple[bytes, ...]:
    """Return the header tables that :func:`guard` covers."""
    ehdr = image.read(0, headers.layout.ehdr.size)
    return ehdr, headers.phdr_bytes, headers.shdr_bytes, headers.dynamic_bytes


def _footer(file: ElfFile) -> UndoFooter | None:
    load = file.headers.last_load
    footer = None
    if load.filesz >= FOOTER_SIZE:
        footer = UndoFooter.unpack(file.image.read(load.file_end - FOOTER_SIZE, FOOTER_SIZE))
    return footer or _displaced_footer(file)


def _displaced_footer(file: ElfFile) -> UndoFooter | None:
    """Find the footer in a string table that patchelf moved and extended.

    Such a record is stale, but the file must not count as one that was never patched.
    """
    length = min(file.headers.string_size, _TAIL)
    tail = file.image.read(file.headers.string_offset + file.headers.string_size - length, length)
    start = tail.rfind(UNDO_MAGIC)
    return UndoFooter.unpack(tail[start : start + FOOTER_SIZE]) if start >= 0 else None


def _record(file: ElfFile, footer: UndoFooter) -> UndoRecord | None:
    """Return the record if it is valid and the file unchanged since; None otherwise."""
    image, load = file.image, file.headers.last_load
    end = load.file_end - FOOTER_SIZE
    tail = max(footer.original_size - footer.cut, 0)
    if (
        not 0 < footer.record_length <= min(RECORD_LIMIT, load.filesz - FOOTER_SIZE)
        or footer.size != image.size
        or footer.delta <= 0
        or (tail and footer.cut + footer.delta + tail != image.size)
        or min(footer.original_size, footer.cut) > image.size
        or image.read(end, FOOTER_SIZE) != footer.pack()  # padding that is not zero
    ):
        return None
    data = image.read(end - footer.record_length, footer.record_length)
    record = UndoRecord.unpack(data)
    if (
        record is None
        or sum(length for _, length in record.left) > image.size
        or any(p.offset + len(p.data) > footer.original_size for p in record.patches)
        or any(p.offset + len(p.data) > after.offset for p, after in itertools.pairwise(record.patches))
    ):
        return None
    try:
        checksum = guard(image, guarded_tables(image, file.headers), data, footer, record.left)
    except SkippedFile:
        return None
    return record if checksum == footer.guard else None
