"""Tell a file that names a library elsewhere than in its dynamic section: for dlopen(3), perhaps."""

from __future__ import annotations

import mmap
from collections.abc import Iterable

from nixpatch.elf.source import opened
from nixpatch.elf.undo import look


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
        found = set()
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as data:
            for name in names:
                at = data.find(name)
                while at >= 0:
                    if not any(start <= at < end for start, end in tables):
                        found.add(name)
                        break
                    at = data.find(name, at + 1)
        return frozenset(found)
