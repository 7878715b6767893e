"""What a dynamic loader knows by itself: its default directories and its cache, read from its own bytes.

glibc compiles both in: ``system_dirs`` of elf/dl-load.c, strings that each end in a slash, one after the
other; and ``LD_SO_CACHE`` of sysdeps/generic/dl-cache.h. So Debian's loader tells of /lib/x86_64-linux-gnu,
Fedora's of /lib64 and Nix's of its own store path, and none of them has to be run or known here. musl's
loader reads /etc/ld-musl-ARCH.path, or has three directories (ldso/dynlink.c).

Read ld.so.cache(8): soname -> files, as ldconfig wrote it (glibc's sysdeps/generic/dl-cache.h).

Two forms are in use: the new one by itself (the default since glibc 2.32), and behind a table of the old
form. Numbers are in the machine's byte order; a cache of the other order is no cache to its loader either.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping

from nixpatch.errors import FileRefused
from nixpatch.fs import read_regular
from nixpatch.model import BuiltIn

_LIMIT = 4 << 20  # bytes; a loader has a quarter of one
_CACHE_LIMIT = 4 << 20  # one of 4,000 libraries has a third of one
# With an end to each repetition: the loader may be that of a tree which nobody vouches for.
_DIRECTORIES = re.compile(rb"(?:/(?:[^\0-\x20\x7f/]{1,255}/){1,32}\0){1,64}")
_CACHE = re.compile(rb"(?<=\0)/[^\0-\x20\x7f]*/ld\.so\.cache(?=\0)")
_MUSL = re.compile(r"ld-musl-(.+)\.so\.1")
_MUSL_DIRECTORIES = ("/lib", "/usr/local/lib", "/usr/lib")


def built_in(loader: str) -> BuiltIn:
    """Read what a loader knows by itself. A loader that cannot be read knows nothing."""
    real = os.path.realpath(loader)
    musl = _MUSL.fullmatch(os.path.basename(loader))
    if musl is not None:
        return BuiltIn(_of_musl(musl[1]))
    try:
        data = read_regular(real, _LIMIT)
    except (OSError, FileRefused):
        return BuiltIn()
    directories, cache = compiled_in(data, os.path.dirname(real))
    known = _read_cache(cache) if cache is not None else None
    return BuiltIn(directories, cache if known is not None else None, known or {})


def compiled_in(data: bytes, directory: str) -> tuple[tuple[str, ...], str | None]:
    """Return the default directories and the path of the cache that stand in the bytes of a loader.

    A loader searches the ``directory`` that it is installed in; a second table of it may name others.
    """
    own = os.fsencode(directory) + b"/\0"
    runs = (found[0] for found in _DIRECTORIES.finditer(data))
    table = max(runs, key=lambda run: (own in run, b"/lib" in run, run.count(b"\0")), default=b"")
    names = (os.fsdecode(name).rstrip("/") for name in table.split(b"\0") if name)
    named = _CACHE.search(data)
    return tuple(names), os.fsdecode(named[0]) if named else None


def _read_cache(path: str) -> Mapping[str, tuple[str, ...]] | None:
    """Return the names in a cache; None where there is none that the loader could use."""
    try:
        return parse(read_regular(os.path.realpath(path), _CACHE_LIMIT))
    except (OSError, FileRefused, NotACache):
        return None


def _of_musl(machine: str) -> tuple[str, ...]:
    try:
        text = os.fsdecode(read_regular(f"/etc/ld-musl-{machine}.path", _LIMIT))
    except (OSError, FileRefused):
        return _MUSL_DIRECTORIES
    return tuple(name for name in re.split(r"[:\n]", text) if name) or _MUSL_DIRECTORIES


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
