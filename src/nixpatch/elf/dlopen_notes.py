"""Libraries that a file opens at run time and says so: the note of the "ELF dlopen metadata" specification.

The UAPI group's specification puts a JSON array into an ELF note called FDO; every entry names alternatives
for one library, the best first, and how much the program depends on it.
"""

from __future__ import annotations

import itertools
import json
import os
import struct
from collections.abc import Iterator

from nixpatch.elf import structs as elf
from nixpatch.elf.headers import Headers
from nixpatch.elf.image import Image
from nixpatch.elf.unfit import Unfit
from nixpatch.fs import can_be_path
from nixpatch.model import DlopenNeed, DlopenPriority

_OWNER = b"FDO\0"
_TYPE = 0x407C0C0A
_SIZE = 1 << 20  # bytes of all segments of notes; real ones have some hundred
_ENTRIES = 256
_ALTERNATIVES = 16  # each of them is looked for
_SONAME = 255  # bytes, NAME_MAX: no longer name can be a file's


def dlopen_needs(image: Image, headers: Headers) -> tuple[DlopenNeed, ...]:
    """Return what the file says it opens. A note that does not keep to the specification says nothing."""
    needs = (
        need
        for segment in _segments(headers)
        for description in _descriptions(_content(image, segment), headers, segment.align)
        for need in _needs(description)
    )
    return tuple(dict.fromkeys(itertools.islice(needs, _ENTRIES)))


def _segments(headers: Headers) -> Iterator[elf.Phdr]:
    """Yield the segments of notes up to the bound on all of them: a thousand may lie over the same bytes."""
    left = _SIZE
    for segment in headers.phdrs:
        if segment.type == elf.PT_NOTE and segment.filesz <= left:
            left -= segment.filesz
            yield segment


def _content(image: Image, segment: elf.Phdr) -> bytes:
    """Read a segment of notes; b"" where the file ends before it does: the loader does not look either."""
    try:
        return image.read(segment.offset, segment.filesz)
    except Unfit:
        return b""


def _descriptions(data: bytes, headers: Headers, align: int) -> Iterator[bytes]:
    """Yield the contents of FDO's notes (gABI, "Note Section"; aligned to 8 where the segment says so)."""
    if _OWNER not in data:
        return
    align = 8 if align == 8 else 4
    header = struct.Struct(("<" if headers.layout.byteorder == "little" else ">") + "III")
    at = 0
    while at + header.size <= len(data):
        name_size, size, kind = header.unpack_from(data, at)
        name = at + header.size
        begin = elf.round_up(name + name_size, align)
        if begin + size > len(data):
            return
        if kind == _TYPE and data[name : name + name_size] == _OWNER:
            yield data[begin : begin + size]
        at = elf.round_up(begin + size, align)


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
    """Whether it can be a file's: JSON can also write half a surrogate pair, which no file name is."""
    return isinstance(name, str) and 0 < len(name) <= _SONAME and "/" not in name and can_be_path(name)


def _priority(text: object) -> DlopenPriority:
    try:
        return DlopenPriority(text)
    except ValueError:
        return DlopenPriority.RECOMMENDED  # what the specification says where there is none
