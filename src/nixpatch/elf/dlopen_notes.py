"""Libraries that a file declares for dlopen(3) in an ELF note.

The note of owner FDO holds a JSON array; each entry has alternative names of one library, the preferred one
first, and a priority (https://uapi-group.org/specifications/specs/elf_dlopen_metadata/).
"""

from __future__ import annotations

import itertools
import json
import os
import struct
from collections.abc import Iterator

from nixpatch.elf import structs as elf
from nixpatch.elf.errors import SkippedFile
from nixpatch.elf.headers import ElfFile, Headers
from nixpatch.elf.image import Image
from nixpatch.errors import FileRefused
from nixpatch.fs import can_be_path
from nixpatch.model import DlopenNeed, DlopenPriority

_OWNER = b"FDO\0"
_TYPE = 0x407C0C0A
_CACHE_OWNER = b"NixOS\0"
_CACHE_TYPE = 0x63A86CB6
_SIZE = 1 << 20  # bytes of all PT_NOTEs; real files have some hundred
_ENTRIES = 256
_ALTERNATIVES = 16  # each costs a lookup
_SONAME = 255  # bytes; NAME_MAX


def dlopen_needs(file: ElfFile) -> tuple[DlopenNeed, ...]:
    """Read the declared libraries. Notes that violate the specification are ignored."""
    needs = (
        need
        for content, align in note_segments(file)
        if _OWNER in content
        for owner, kind, description in notes_in(content, align, file.headers)
        if (owner, kind) == (_OWNER, _TYPE)
        for need in _needs(description)
    )
    return tuple(dict.fromkeys(itertools.islice(needs, _ENTRIES)))


def refuse_resolution_cache(file: ElfFile) -> None:
    """Refuse a file with the cache of ``patchelf --build-resolution-cache``, which an edit would make stale.

    Its note maps the names of the needed libraries to files; the ld.so of nixpkgs believes it before any
    search path (patchelf 0.19, README).

    Raises:
        FileRefused: the file has one.

    """
    for content, align in note_segments(file):
        if _CACHE_OWNER in content and any(
            (owner, kind) == (_CACHE_OWNER, _CACHE_TYPE)
            for owner, kind, _ in notes_in(content, align, file.headers)
        ):
            text = (
                "it has a note .note.nixos.ldcache (patchelf --build-resolution-cache), which would be stale"
            )
            raise FileRefused(f"{text}: make that after nixpatch, in a file without one")


def note_segments(file: ElfFile) -> Iterator[tuple[bytes, int]]:
    """Yield content and alignment of PT_NOTEs up to the bound on their sum: many may cover the same bytes."""
    left = _SIZE
    for segment in file.headers.phdrs:
        if segment.type == elf.PT_NOTE and segment.filesz <= left:
            left -= segment.filesz
            yield _content(file.image, segment), segment.align


def _content(image: Image, segment: elf.Phdr) -> bytes:
    """Read a PT_NOTE; ``b""`` if the file is too short, which loaders do not check either."""
    try:
        return image.read(segment.offset, segment.filesz)
    except SkippedFile:
        return b""


def notes_in(data: bytes, align: int, headers: Headers) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield owner, type and descriptor of notes (gABI, "Note Section"), aligned to 4 bytes or to 8."""
    align = 8 if align == 8 else 4
    header = struct.Struct(headers.layout.order + "III")
    offset = 0
    while offset + header.size <= len(data):
        name_size, size, kind = header.unpack_from(data, offset)
        name = offset + header.size
        begin = elf.round_up(name + name_size, align)
        if begin + size > len(data):
            return
        yield data[name : name + name_size], kind, data[begin : begin + size]
        offset = elf.round_up(begin + size, align)


def _needs(description: bytes) -> Iterator[DlopenNeed]:
    try:
        entries = json.loads(os.fsdecode(description.rstrip(b"\0")))
    except (ValueError, RecursionError):
        return
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        sonames = entry.get("soname")
        given = (name for name in sonames if _is_name(name)) if isinstance(sonames, list) else ()
        names = tuple(itertools.islice(given, _ALTERNATIVES))
        if names:
            yield DlopenNeed(names, _priority(entry.get("priority")))


def _is_name(name: object) -> bool:
    """Whether this can be a file name. JSON can also hold half a surrogate pair, which cannot."""
    return isinstance(name, str) and 0 < len(name) <= _SONAME and "/" not in name and can_be_path(name)


def _priority(text: object) -> DlopenPriority:
    try:
        return DlopenPriority(text)
    except ValueError:
        return DlopenPriority.RECOMMENDED  # the specification's default
