"""What the dynamic section says in words: names, search path, symbol versions.

The places of a file that name a needed library: DT_NEEDED and the verneed record's file name.

ld.so looks the name in a verneed record up among the libraries that DT_NEEDED brought in and asserts that it
finds it (glibc, elf/dl-version.c, _dl_check_map_versions): whoever renames one has to rename the other.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nixpatch.elf import structs as elf
from nixpatch.elf.headers import Headers
from nixpatch.elf.image import Image
from nixpatch.elf.unfit import malformed
from nixpatch.model import Linkage, Tag, VersionNeed

_STRING = 1 << 16  # bytes of one string
_NAMES = 4 << 20  # bytes of all strings of one kind
_RECORDS = 1 << 16  # verneed, vernaux or verdef records of one file
_STEPS = 1 << 19  # segments looked through for those records
_NEEDED = 1 << 12  # entries


def string_at(image: Image, headers: Headers, offset: int) -> str:
    """Read the string at an offset of DT_STRTAB. Raises ``Unfit`` if it has no end inside the table."""
    if offset >= headers.string_size:
        raise malformed(f"string offset {offset:#x} lies beyond DT_STRSZ")
    text = image.until_nul(headers.string_offset + offset, min(headers.string_size - offset, _STRING))
    if text is not None:
        return os.fsdecode(text)
    raise malformed(f"string at {offset:#x} has no end")


def linkage(image: Image, headers: Headers) -> Linkage:
    """Search path, its tag, and interpreter."""
    interp = os.fsdecode(headers.interp_bytes.split(b"\0", 1)[0]) or None
    for number, tag in ((elf.DT_RUNPATH, Tag.RUNPATH), (elf.DT_RPATH, Tag.RPATH)):
        offset = headers.values.get(number)
        if offset is not None:
            return Linkage(string_at(image, headers, offset), tag, interp)
    return Linkage(None, None, interp)


def needed(image: Image, headers: Headers) -> tuple[str, ...]:
    """DT_NEEDED in file order."""
    names = Names(image, headers)
    offsets = [value for tag, value in headers.live if tag == elf.DT_NEEDED]
    if len(offsets) > _NEEDED:
        raise malformed(f"{len(offsets)} DT_NEEDED entries")
    return tuple(names.at(offset) for offset in offsets)


def soname(image: Image, headers: Headers) -> str | None:
    """DT_SONAME."""
    offset = headers.values.get(elf.DT_SONAME)
    return None if offset is None else string_at(image, headers, offset)


def version_needs(image: Image, headers: Headers) -> tuple[VersionNeed, ...]:
    """Verneed records in file order (LSB, "Symbol Version Requirements")."""
    names = Names(image, headers)
    return tuple(
        VersionNeed(names.at(fields[2]), tuple(names.at(version[3]) for version in versions))
        for fields, versions in version_need_parts(image, headers)
    )


def version_need_parts(
    image: Image, headers: Headers
) -> Iterator[tuple[tuple[int, ...], Iterator[tuple[int, ...]]]]:
    """Yield the fields of each verneed record, and those of its vernaux records, which may be shared."""
    left = _RECORDS
    for at, fields in version_need_records(image, headers):
        _, count, _, aux, _ = fields
        left -= count
        if left < 0 or (_RECORDS - left) * len(headers.loads) > _STEPS:
            raise malformed("too many version records")
        versions = records(image, headers, at + aux, count, headers.layout.vernaux)
        yield fields, (version for _, version in versions)


def version_need_records(image: Image, headers: Headers) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the address of each verneed record and its fields, without its auxiliary records."""
    address = headers.values.get(elf.DT_VERNEED)
    number = headers.values.get(elf.DT_VERNEEDNUM, 0)
    return records(image, headers, address, number, headers.layout.verneed)


def version_defs(image: Image, headers: Headers) -> tuple[str, ...]:
    """Names of verdef records without the base definition (LSB, "Symbol Version Definitions")."""
    layout = headers.layout
    strings = Names(image, headers)
    names = []
    address = headers.values.get(elf.DT_VERDEF)
    number = headers.values.get(elf.DT_VERDEFNUM, 0)
    for at, (_, flags, _, _, _, aux, _) in records(image, headers, address, number, layout.verdef):
        if flags & elf.VER_FLG_BASE:
            continue
        # The first auxiliary record is the name; the others are its parents.
        name, _ = layout.verdaux.unpack(_bytes_at(image, headers, at + aux, layout.verdaux.size))
        names.append(strings.at(name))
    return tuple(names)


class Names:
    """Many strings of one file, read once and bounded together: they may be tails of one long string."""

    def __init__(self, image: Image, headers: Headers) -> None:
        self._image = image
        self._headers = headers
        self._seen: dict[int, str] = {}
        self._left = _NAMES

    def at(self, offset: int) -> str:
        """Give the string at an offset of DT_STRTAB. Raises ``Unfit`` if it or all together have no end."""
        name = self._seen.get(offset)
        if name is None:
            name = self._seen[offset] = string_at(self._image, self._headers, offset)
            self._left -= len(name)
            if self._left < 0:
                raise malformed(f"names of more than {_NAMES} bytes")
        return name


def records(
    image: Image, headers: Headers, address: int | None, number: int, record: struct.Struct
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield ``(address, fields)`` of a chain of records whose last field is the distance to the next one.

    The distance is unsigned, so a chain cannot run backwards; a distance of 0 ends it early.
    """
    if address is None or number == 0:
        return
    if number > _RECORDS or number * len(headers.loads) > _STEPS:
        raise malformed(f"{number} version records in {len(headers.loads)} segments")
    for _ in range(number):
        fields = record.unpack(_bytes_at(image, headers, address, record.size))
        yield address, fields
        if fields[-1] == 0:
            return
        address += fields[-1]


def _bytes_at(image: Image, headers: Headers, address: int, size: int) -> bytes:
    offset = headers.file_offset(address, size)
    if offset is None:
        raise malformed("version records lie in no PT_LOAD")
    return image.read(offset, size)


NAME_SIZE = 4
"""bytes of ``vn_file``, an Elf32_Word or Elf64_Word: an offset into the string table"""
_VN_FILE = 4  # its place in the record, the same in both classes (LSB, "Version Requirements")


@dataclass(frozen=True, slots=True)
class Naming:
    """One place that names a needed library."""

    name: str
    entry: int | None
    """index of the DT_NEEDED entry among the live ones; None for a verneed record"""
    offset: int
    """offset of ``vn_file`` in the image; -1 for a DT_NEEDED entry"""
    value: int
    """offset into the string table that stands there"""


def namings(image: Image, headers: Headers) -> tuple[Naming, ...]:
    """DT_NEEDED entries in file order, then verneed records in file order.

    Raises ``Unfit`` where a record's name does not lie in the file content of one PT_LOAD.
    """
    names = Names(image, headers)
    found = [
        Naming(names.at(entry.value), index, -1, entry.value)
        for index, entry in enumerate(headers.live)
        if entry.tag == elf.DT_NEEDED
    ]
    for address, fields in version_need_records(image, headers):
        offset = headers.file_offset(address + _VN_FILE, NAME_SIZE)
        if offset is None:
            raise malformed("version records lie in no PT_LOAD")
        found.append(Naming(names.at(fields[2]), None, offset, fields[2]))
    return tuple(found)


def packed(headers: Headers, value: int) -> bytes:
    """Write a string offset as ``vn_file`` has it."""
    return value.to_bytes(NAME_SIZE, "little" if headers.layout.byteorder == "little" else "big")


def places(of: Iterable[Naming]) -> Iterator[tuple[int, int]]:
    """Yield ``(offset, length)`` of the names that stand in verneed records."""
    return ((naming.offset, NAME_SIZE) for naming in of if naming.entry is None)
