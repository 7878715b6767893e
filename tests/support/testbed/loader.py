"""Where glibc's ld.so keeps its default directories and the name of its cache.

nixpkgs compiles glibc with --prefix=$out: the only default directory is $out/lib, and the cache is
$out/etc/ld.so.cache, which does not exist. Debian's has four directories under / and /etc/ld.so.cache. The
builder overwrites them in place, at the offsets found here. A pattern that is not found as often as expected
means that this is not the ld.so that we know.
"""

import re
import struct

# elf/dl-load.c: system_dirs_len, the lengths of the four, and system_dirs, their names one after the other
# with zeros up to the next alignment. (The names alone occur once more, for the text of --help.)
_LENGTHS = struct.pack("<4Q", 22, 26, 5, 9)
_DIRECTORIES = b"/lib/x86_64-linux-gnu/\0/usr/lib/x86_64-linux-gnu/\0/lib/\0/usr/lib/\0"
_PADDING = bytes(30)
_TABLE = re.compile(re.escape(_LENGTHS + _DIRECTORIES + _PADDING))
# What stays of the names beside the new one: a dummy as long as the first, and "/" twice, each with its NUL.
_KEPT = 23 + 2 + 2
# The longest of them, max_dirnamelen: movq $26, max_dirnamelen(%rip)
_LONGEST = re.compile(rb"\x48\xc7\x05.{4}(\x1a\0\0\0)", re.DOTALL)
_CACHE = re.compile(rb"/etc/ld\.so\.cache\0")


def patch_points(loader: bytes) -> dict[str, str]:
    """The variables of the builder's fixup-glibc.sh."""
    table = _only(_TABLE, loader).start()
    caches = [match.start() for match in _CACHE.finditer(loader)]
    if not caches:
        raise ValueError("ld.so has no name of a cache")
    return {
        "lengths": str(table),
        "directories": str(table + len(_LENGTHS)),
        "directories_room": str(len(_DIRECTORIES + _PADDING) - _KEPT - 1),
        "longest": str(_only(_LONGEST, loader).start(1)),
        "caches": " ".join(map(str, caches)),
    }


def _only(pattern: re.Pattern[bytes], loader: bytes) -> re.Match[bytes]:
    matches = list(pattern.finditer(loader))
    if len(matches) != 1:
        raise ValueError(f"ld.so is not as expected: {len(matches)} times {pattern.pattern!r}")
    return matches[0]
