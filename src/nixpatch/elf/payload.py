"""Executables that look into their own file for data beside the program: an edit would move it."""

from __future__ import annotations

from typing import Final

from nixpatch.elf import structs as elf
from nixpatch.elf.headers import Headers
from nixpatch.elf.image import Image

_PADDING: Final = 16
_TAIL: Final = (1 << 16) + 22  # bytes; a zip's end record may stand before a comment of 64 KiB

_SECTION_END: Final = 128
"""bytes; PyInstaller's cookie, the longest of the marks that end a section, has 88"""

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


def payload(image: Image, headers: Headers) -> str | None:
    """Say what is appended to an executable; None where nothing of importance is.

    Only files with PT_INTERP count: a shared object has no way to find its own file that programs use,
    so its overlay moves along. Padding is none: up to 16 zero bytes, or the single odd byte that old
    versions of patchelf leave behind a section header table that they moved.
    """
    if headers.interp_segment is None:
        return None
    return _in_section(image, headers) or _behind(image, headers)


def _in_section(image: Image, headers: Headers) -> str | None:
    """Find the same in a section of its own, as PyInstaller's bootloader has it since objcopy puts it there.

    What a segment maps is no payload in this sense: it is found by its address, which stays.
    """
    for section in headers.shdrs:
        end_at = section.offset + section.size
        if section.type == elf.SHT_PROGBITS and not section.flags & elf.SHF_ALLOC and end_at <= image.size:
            length = min(section.size, _SECTION_END)
            end = image.read(end_at - length, length)
            for magic, name in _IN_TAIL:
                if magic in end:
                    return f"{name}, {section.size} bytes in a section"
    return None


def _behind(image: Image, headers: Headers) -> str | None:
    start = headers.described_end
    size = image.size - start
    if size <= 1:
        return None
    head = image.read(start, min(size, _PADDING))
    if size <= _PADDING and not any(head):
        return None
    return f"{_kind(image, headers, head, size)}, {size} bytes"


def _kind(image: Image, headers: Headers, head: bytes, size: int) -> str:
    if headers.ident[8:10] == b"AI":
        return "AppImage"
    length = min(size, _TAIL)
    tail = image.read(image.size - length, length)
    for magic, name in _IN_TAIL:
        if magic in tail:
            return name
    for magic, name in _AT_START:
        if head.startswith(magic):
            return name
    return "unknown format"
