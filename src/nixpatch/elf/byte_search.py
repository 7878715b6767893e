"""Library names in the bytes of a file outside its dynamic section, perhaps for dlopen(3)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from nixpatch.elf.undo import open_views

_CHUNK = 1 << 20  # bytes


def mentions(source: str | int, names: Iterable[bytes]) -> frozenset[bytes]:
    """Return those of ``names`` that an ELF file contains outside its string table.

    The string table holds the names of DT_NEEDED, DT_SONAME and version records. If an edit has moved it, the
    old table is still there and does not count either.

    Raises:
        FileRefused: it is not a well-formed dynamic ELF file.
        OSError: it cannot be read.

    """
    with open_views(source) as views:
        # Offsets of the original are valid in the patched file: edits insert bytes only behind all segments.
        headers = (views.current.headers, views.original.headers)
        tables = [(h.string_offset, h.string_offset + h.string_size) for h in headers]
        fd = views.current.image.fd
        return frozenset(_outside({name for name in names if name}, fd, tables))


def _outside(names: set[bytes], fd: int, tables: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the names that begin outside these ranges. The file is read, not mapped, since it may shrink."""
    left = set(names)
    kept = max(map(len, names), default=0) - 1
    before, start = b"", 0  # end of the last chunk, where a name may have begun, and its offset
    while left and (chunk := os.pread(fd, _CHUNK, start + len(before))):
        data = before + chunk
        outside = {name for name in left if _begins_outside(data, name, start, tables)}
        yield from outside
        left -= outside
        before = data[max(len(data) - kept, 0) :]
        start += len(data) - len(before)


def _begins_outside(data: bytes, name: bytes, start: int, tables: Sequence[tuple[int, int]]) -> bool:
    offset = data.find(name)
    while offset >= 0:
        ends = [end for begin, end in tables if begin <= start + offset < end]
        if not ends:
            return True
        offset = data.find(name, max(ends) - start)  # skip the table, which may be full of the name
    return False
