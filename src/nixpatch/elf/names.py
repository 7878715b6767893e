"""The places of a file that name a needed library: DT_NEEDED and the verneed record's file name.

ld.so looks the name in a verneed record up among the libraries that DT_NEEDED brought in and asserts that it
finds it (glibc, elf/dl-version.c, _dl_check_map_versions): whoever renames one has to rename the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nixpatch.elf import structs as elf
from nixpatch.elf.dynamic import Names, version_need_records
from nixpatch.elf.headers import Headers
from nixpatch.elf.image import Image
from nixpatch.elf.unfit import malformed

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
