"""The default directories and the cache of a dynamic loader, read from its bytes and from ld.so.cache.

glibc compiles both names in: ``system_dirs`` (elf/dl-load.c), strings with a slash at the end, one after the
other, and ``LD_SO_CACHE`` (sysdeps/generic/dl-cache.h). So Debian's loader contains /lib/x86_64-linux-gnu,
Fedora's /lib64 and that of Nix its own store path, and none of them has to be run or known here. musl's
loader reads /etc/ld-musl-ARCH.path, or has three directories (ldso/dynlink.c).

The format of the cache is that of glibc's sysdeps/generic/dl-cache.h, in the byte order of the machine; the
loader itself rejects a cache of the other order.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping

from nixpatch.fs import read_regular
from nixpatch.model import LoaderDefaults

_LIMIT = 4 << 20  # bytes; a loader has a quarter of one
_CACHE_LIMIT = 4 << 20  # one of 4,000 libraries has a third of one
# Every repetition is bounded: the loader may belong to a hostile tree.
_DIRECTORIES = re.compile(rb"(?:/(?:[^\0-\x20\x7f/]{1,255}/){1,32}\0){1,64}")
_CACHE = re.compile(rb"(?<=\0)/[^\0-\x20\x7f]*/ld\.so\.cache(?=\0)")
_MUSL = re.compile(r"ld-musl-(.+)\.so\.1")
_MUSL_DIRECTORIES = ("/lib", "/usr/local/lib", "/usr/lib")


def read_loader_defaults(loader: str) -> LoaderDefaults:
    """Return the default directories and the cache of a loader; none if it cannot be read."""
    real = os.path.realpath(loader)
    musl = _MUSL.fullmatch(os.path.basename(loader))
    if musl is not None:
        return LoaderDefaults(_of_musl(musl[1]))
    try:
        data = read_regular(real, _LIMIT)
    except OSError:
        return LoaderDefaults()
    directories, cache = compiled_in(data, os.path.dirname(real))
    known = _read_cache(cache) if cache is not None else None
    return LoaderDefaults(directories, cache if known is not None else None, known or {})


def defaults_file(loader: str) -> str:
    """Return the file outside a loader that says where it searches (ldconfig(8), musl's manual)."""
    musl = _MUSL.fullmatch(os.path.basename(loader))
    return f"/etc/ld-musl-{musl[1]}.path" if musl is not None else "/etc/ld.so.cache"


def compiled_in(data: bytes, directory: str) -> tuple[tuple[str, ...], str | None]:
    """Return the default directories and the path of the cache in the bytes of a loader.

    Of several tables of directories, take the one that names the ``directory`` in which the loader is
    installed.
    """
    own = os.fsencode(directory) + b"/\0"
    runs = (match[0] for match in _DIRECTORIES.finditer(data))
    table = max(runs, key=lambda run: (own in run, b"/lib" in run, run.count(b"\0")), default=b"")
    names = (os.fsdecode(name).rstrip("/") for name in table.split(b"\0") if name)
    named = _CACHE.search(data)
    return tuple(names), os.fsdecode(named[0]) if named else None


def _read_cache(path: str) -> Mapping[str, tuple[str, ...]] | None:
    """Return the contents of a cache; None if there is none that the loader could use."""
    try:
        return parse(read_regular(os.path.realpath(path), _CACHE_LIMIT))
    except (OSError, NotACache):
        return None


def _of_musl(machine: str) -> tuple[str, ...]:
    try:
        text = os.fsdecode(read_regular(f"/etc/ld-musl-{machine}.path", _LIMIT))
    except OSError:
        return _MUSL_DIRECTORIES
    return tuple(name for name in re.split(r"[:\n]", text) if name) or _MUSL_DIRECTORIES


# ldconfig before glibc 2.32 (Debian 11, RHEL 8) puts a table of an older format first, which is skipped.
_OLD = b"ld.so-1.7.0\0"
_NEW = b"glibc-ld.so.cache1.1"
_OLD_HEADER = struct.Struct("=12sI")
_OLD_ENTRY = 12
_HEADER = struct.Struct("=20sII20x")
_ENTRY = struct.Struct("=iIIIQ")
_LONGEST = 4096  # PATH_MAX
_NAMES = 16 << 20  # bytes of all names: entries may share the tail of one string


class NotACache(ValueError):  # noqa: N818 - an answer, not an error
    """The loader would not read these bytes as a cache. The message has the reason."""


def parse(data: bytes) -> dict[str, tuple[str, ...]]:
    """Return the files of each soname in the order of the cache.

    Entries for processor features (a hwcap mask, ``glibc-hwcaps``) are left out: the loader takes them by the
    processor that it runs on.

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
    files: dict[str, list[str]] = {}
    left = _NAMES
    for number in range(count):
        _, key, value, _, hwcap = _ENTRY.unpack_from(data, first + number * _ENTRY.size)
        if hwcap == 0:
            name, path = _string(data, base + key), _string(data, base + value)
            left -= len(name) + len(path) + 1
            if left < 0:
                raise NotACache("more bytes of names than a real one has")
            files.setdefault(name, []).append(path)
    return {name: tuple(paths) for name, paths in files.items()}


def _string(data: bytes, offset: int) -> str:
    end = data.find(b"\0", offset, offset + _LONGEST)
    if end < 0:
        raise NotACache("a name lies outside the file")
    return os.fsdecode(data[offset:end])
