"""Tell a file that names a library elsewhere than in its dynamic section: for dlopen(3), perhaps."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from nixpatch.elf.source import opened
from nixpatch.elf.undo import look

_CHUNK = 1 << 20  # bytes


def mentions(source: str | int, names: Iterable[bytes]) -> frozenset[bytes]:
    """Return those of ``names`` that stand in an ELF file, but for its string table.

    The string table of dynamic linking holds the names that DT_NEEDED, DT_SONAME and the version records
    refer to; where an edit has moved it, the old one is still there and counts as one, too.
    Raises ``FileRefused`` for a file that is no dynamic ELF, ``OSError`` for trouble with reading.
    """
    with opened(source) as fd:
        seen = look(fd)
        # Offsets of the original hold in the patched file, too: bytes come in only behind all segments.
        tables = [(h.string_offset, h.string_offset + h.string_size) for h in (seen.current, seen.original)]
        return frozenset(_outside({name for name in names if name}, fd, tables))


def _outside(names: set[bytes], fd: int, tables: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the names that begin anywhere but in one of these ranges. Read, not mapped: a file may shrink."""
    left = set(names)
    before, start = b"", 0  # what the last chunk ended with, in which a name may have begun; its offset
    while left and (chunk := os.pread(fd, _CHUNK, start + len(before))):
        data = before + chunk
        found = {name for name in left if _begins_outside(data, name, start, tables)}
        yield from found
        left -= found
        kept = max(map(len, names)) - 1
        before = data[max(len(data) - kept, 0) :]
        start += len(data) - len(before)


def _begins_outside(data: bytes, name: bytes, start: int, tables: Sequence[tuple[int, int]]) -> bool:
    at = data.find(name)
    while at >= 0:
        within = [end for begin, end in tables if begin <= start + at < end]
        if not within:
            return True
        at = data.find(name, max(within) - start)  # a table of nothing else would take for ever
    return False
