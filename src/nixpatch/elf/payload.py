"""Data appended to executables, which they look for in their own file: an edit would move it."""

from __future__ import annotations

from typing import Final

from nixpatch.elf import structs as elf
from nixpatch.elf.headers import ElfFile

_HEAD: Final = 16
_ZEROS: Final = 64 << 20  # bytes; a sparse file may have any number of them
_TAIL: Final = (1 << 16) + 22  # bytes; a comment of 64 KiB may follow a zip's end record

_SECTION_END: Final = 128
"""bytes; the longest mark at the end of a section is PyInstaller's cookie of 88"""

_AT_START: Final = (
    (b"PK\3\4", "zip"),
    (b"hsqs", "squashfs"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
)
_IN_TAIL: Final = (
    (b"MEI\014\013\012\013\016", "PyInstaller"),
    (b"\n---- Bun! ----\n", "bun"),
    (b"d3n0l4nd", "deno"),
    (b"NODE_SEA_BLOB", "node SEA"),
    (b"PK\5\6", "zip"),
)


def payload(file: ElfFile) -> str | None:
    """Describe the data appended to an executable; None if it has none.

    Only files with PT_INTERP count: shared objects have no common way to open their own file, so their
    overlay may move. Padding is not a payload: zeros, or the single byte that old versions of patchelf leave
    behind a section header table that they moved.
    """
    if file.headers.interp_segment is None:
        return None
    return _in_section(file) or _behind(file)


def _in_section(file: ElfFile) -> str | None:
    """Describe a payload in a section of its own, into which PyInstaller's objcopy puts it.

    Mapped sections do not count: a program finds those by address, which an edit keeps.
    """
    image = file.image
    for section in file.headers.shdrs:
        stop = section.offset + section.size
        if section.type == elf.SHT_PROGBITS and not section.flags & elf.SHF_ALLOC and stop <= image.size:
            length = min(section.size, _SECTION_END)
            end = image.read(stop - length, length)
            for magic, name in _IN_TAIL:
                if magic in end:
                    return f"{name}, {section.size} bytes in a section"
    return None


def _behind(file: ElfFile) -> str | None:
    start = file.headers.described_end
    size = file.image.size - start
    if size <= 1:
        return None
    if size <= _ZEROS and file.image.is_zero(start, size):
        return None
    return f"{_kind(file, file.image.read(start, min(size, _HEAD)), size)}, {size} bytes"


def _kind(file: ElfFile, head: bytes, size: int) -> str:
    if file.headers.ident[8:10] == b"AI":
        return "AppImage"
    length = min(size, _TAIL)
    tail = file.image.read(file.image.size - length, length)
    for magic, name in _IN_TAIL:
        if magic in tail:
            return name
    for magic, name in _AT_START:
        if head.startswith(magic):
            return name
    return "unknown format"
