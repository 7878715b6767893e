"""Read ld.so.cache(8): soname -> files, as ldconfig wrote it (glibc's sysdeps/generic/dl-cache.h).

Two forms are in use: the new one by itself (the default since glibc 2.32), and behind a table of the old
form. Numbers are in the machine's byte order; a cache of the other order is no cache to its loader either.
"""

from __future__ import annotations

import os
import struct

_OLD = b"ld.so-1.7.0\0"
_NEW = b"glibc-ld.so.cache1.1"
_OLD_HEADER = struct.Struct("=12sI")
_OLD_ENTRY = 12
_HEADER = struct.Struct("=20sII20x")
_ENTRY = struct.Struct("=iIIIQ")
_LONGEST = 4096  # PATH_MAX
_NAMES = 16 << 20  # bytes, all together: entries may share the tail of one string
_ELF_LIBC6 = 3
"""FLAG_ELF_LIBC6 in the low byte of an entry's flags: a library for this libc, not for libc5"""


class NotACache(ValueError):  # noqa: N818 - the answer to "is it one?", not an error
    """The bytes are no cache that a loader would read. The message says why."""


def parse(data: bytes) -> dict[str, tuple[str, ...]]:
    """Return the files of each soname in the order of the cache.

    Entries for a processor's features (a hwcap mask, ``glibc-hwcaps``) are left out: which of them a loader
    takes depends on the processor.

    Raises:
        NotACache: another format, or a table or a string that leaves the file.

    """
    base = 0
    if data.startswith(_OLD) and len(data) >= _OLD_HEADER.size:
        _, count = _OLD_HEADER.unpack_from(data)
        # Aligned to the strictest member of the new header (ALIGN_CACHE).
        base = -(-(_OLD_HEADER.size + count * _OLD_ENTRY) // 8) * 8
    if data[base : base + len(_NEW)] != _NEW or len(data) < base + _HEADER.size:
        raise NotACache("not the format of glibc 2.2 and later")
    _, count, _ = _HEADER.unpack_from(data, base)
    first = base + _HEADER.size
    if count > (len(data) - first) // _ENTRY.size:
        raise NotACache("its table is longer than the file")
    found: dict[str, list[str]] = {}
    left = _NAMES
    for number in range(count):
        flags, key, value, _, hwcap = _ENTRY.unpack_from(data, first + number * _ENTRY.size)
        if flags & 0xFF == _ELF_LIBC6 and hwcap == 0:
            name, path = _string(data, base + key), _string(data, base + value)
            left -= len(name) + len(path) + 1
            if left < 0:
                raise NotACache("names of more than a real one has in all")
            found.setdefault(name, []).append(path)
    return {name: tuple(paths) for name, paths in found.items()}


def _string(data: bytes, offset: int) -> str:
    end = data.find(b"\0", offset, offset + _LONGEST)
    if end < 0:
        raise NotACache("a name lies outside the file")
    return os.fsdecode(data[offset:end])
