"""Strings that the dynamic section refers to: names, search path, symbol versions.

A needed library is named by DT_NEEDED and by its verneed record. ld.so looks for the latter's name among the
libraries of DT_NEEDED and asserts that it is there (glibc, elf/dl-version.c, _dl_check_map_versions), so a
rename has to change both.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nixpatch.elf import structs as elf
from nixpatch.elf.errors import malformed
from nixpatch.elf.headers import ElfFile, Headers
from nixpatch.elf.resolution_cache import cache_of
from nixpatch.model import Linkage, Tag, VersionNeed

# Bounds on what a hostile file can make nixpatch read.
_STRING = 1 << 16  # bytes of one string
_NAMES = 4 << 20  # bytes of all strings of one kind
_RECORDS = 1 << 16  # verneed, vernaux or verdef records of one file
_STEPS = 1 << 19  # records times segments, which are searched for each record
_NEEDED = 1 << 12  # entries

_VN_FILE = 4  # offset of vn_file in a verneed record, the same in both classes (LSB, "Version Requirements")
VN_FILE_SIZE = 4
"""bytes of ``vn_file``, a string table offset"""


def string_at(file: ElfFile, offset: int) -> str:
    """Read the string at an offset of DT_STRTAB.

    Raises:
        SkippedFile: it does not end in the table.

    """
    headers = file.headers
    if offset >= headers.string_size:
        raise malformed(f"string offset {offset:#x} lies beyond DT_STRSZ")
    text = file.image.until_nul(headers.string_offset + offset, min(headers.string_size - offset, _STRING))
    if text is not None:
        return os.fsdecode(text)
    raise malformed(f"string at {offset:#x} has no end")


class StringReader:
    """Reads strings of DT_STRTAB, each once, with a bound on their sum: all may be tails of a long one."""

    def __init__(self, file: ElfFile) -> None:
        self._file = file
        self._strings: dict[int, str] = {}
        self._left = _NAMES

    def __call__(self, offset: int) -> str:
        """Return the string at an offset.

        Raises:
            SkippedFile: it does not end, or the sum is too long.

        """
        name = self._strings.get(offset)
        if name is None:
            name = self._strings[offset] = string_at(self._file, offset)
            self._left -= len(name)
            if self._left < 0:
                raise malformed(f"names of more than {_NAMES} bytes")
        return name


def linkage(file: ElfFile) -> Linkage:
    """Read search path, its tag, interpreter and resolution cache."""
    cache = cache_of(file)
    interp = os.fsdecode(file.headers.interp_bytes.split(b"\0", 1)[0]) or None
    for number, tag in ((elf.DT_RUNPATH, Tag.RUNPATH), (elf.DT_RPATH, Tag.RPATH)):
        offset = file.headers.values.get(number)
        if offset is not None:
            return Linkage(string_at(file, offset), tag, interp, resolution_cache=cache)
    return Linkage(None, None, interp, resolution_cache=cache)


def needed(file: ElfFile) -> tuple[str, ...]:
    """Read DT_NEEDED in file order."""
    offsets = [value for tag, value in file.headers.live if tag == elf.DT_NEEDED]
    if len(offsets) > _NEEDED:
        raise malformed(f"{len(offsets)} DT_NEEDED entries")
    return tuple(map(StringReader(file), offsets))


def soname(file: ElfFile) -> str | None:
    """Read DT_SONAME."""
    offset = file.headers.values.get(elf.DT_SONAME)
    return None if offset is None else string_at(file, offset)


def version_needs(file: ElfFile) -> tuple[VersionNeed, ...]:
    """Read verneed records in file order (LSB, "Symbol Version Requirements")."""
    string = StringReader(file)
    return tuple(
        VersionNeed(string(fields[2]), tuple(string(version[3]) for version in versions))
        for fields, versions in verneed_with_versions(file)
    )


def verneed_with_versions(file: ElfFile) -> Iterator[tuple[tuple[int, ...], Iterator[tuple[int, ...]]]]:
    """Yield the fields of each verneed record and those of its vernaux records, which records may share."""
    left = _RECORDS
    for address, fields in _verneed_records(file):
        _, count, _, aux, _ = fields
        left -= count
        if left < 0 or (_RECORDS - left) * len(file.headers.loads) > _STEPS:
            raise malformed("too many version records")
        versions = chained_records(file, address + aux, count, file.headers.layout.vernaux)
        yield fields, (version for _, version in versions)


def _verneed_records(file: ElfFile) -> Iterator[tuple[int, tuple[int, ...]]]:
    values = file.headers.values
    number = values.get(elf.DT_VERNEEDNUM, 0)
    return chained_records(file, values.get(elf.DT_VERNEED), number, file.headers.layout.verneed)


def version_defs(file: ElfFile) -> tuple[str, ...]:
    """Read names of verdef records without the base definition (LSB, "Symbol Version Definitions")."""
    return tuple(name for _, name in verdef_names(file, with_base=False))


def verdef_names(file: ElfFile, *, with_base: bool) -> Iterator[tuple[int, str]]:
    """Yield the version index and the name of each verdef record."""
    layout, values, string = file.headers.layout, file.headers.values, StringReader(file)
    number = values.get(elf.DT_VERDEFNUM, 0)
    for address, fields in chained_records(file, values.get(elf.DT_VERDEF), number, layout.verdef):
        _, flags, index, _, _, aux, _ = fields
        if with_base or not flags & elf.VER_FLG_BASE:
            # The first auxiliary record is the name; the others name its parents.
            name, _ = layout.verdaux.unpack(_read_record(file, address + aux, layout.verdaux.size))
            yield index, string(name)


def chained_records(
    file: ElfFile, address: int | None, number: int, record: struct.Struct
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield ``(address, fields)`` of records whose last field is the distance to the next one.

    The distance is unsigned, so a chain cannot run backwards; a distance of 0 ends it early.
    """
    if address is None or number == 0:
        return
    segments = len(file.headers.loads)
    if number > _RECORDS or number * segments > _STEPS:
        raise malformed(f"{number} version records in {segments} segments")
    for _ in range(number):
        fields = record.unpack(_read_record(file, address, record.size))
        yield address, fields
        if fields[-1] == 0:
            return
        address += fields[-1]


def _read_record(file: ElfFile, address: int, size: int) -> bytes:
    return file.image.read(_record_offset(file, address, size), size)


def _record_offset(file: ElfFile, address: int, size: int) -> int:
    offset = file.headers.file_offset(address, size)
    if offset is None:
        raise malformed("version records lie in no PT_LOAD")
    return offset


@dataclass(frozen=True, slots=True)
class NeedReference:
    """A DT_NEEDED entry or a verneed record: a reference to a needed library by name."""

    name: str
    entry: int | None
    """index of the DT_NEEDED entry among the live ones; None for a verneed record"""
    offset: int
    """offset of ``vn_file`` in the image; -1 for a DT_NEEDED entry"""
    value: int
    """string table offset of the name"""


def need_references(file: ElfFile) -> tuple[NeedReference, ...]:
    """Read DT_NEEDED entries, then verneed records, both in file order.

    Raises:
        SkippedFile: a record's ``vn_file`` is in no PT_LOAD's content.

    """
    string = StringReader(file)
    references = [
        NeedReference(string(entry.value), index, -1, entry.value)
        for index, entry in enumerate(file.headers.live)
        if entry.tag == elf.DT_NEEDED
    ]
    for address, fields in _verneed_records(file):
        offset = _record_offset(file, address + _VN_FILE, VN_FILE_SIZE)
        references.append(NeedReference(string(fields[2]), None, offset, fields[2]))
    return tuple(references)


def pack_vn_file(headers: Headers, value: int) -> bytes:
    """Pack a string table offset as ``vn_file`` holds it."""
    return value.to_bytes(VN_FILE_SIZE, headers.layout.byteorder)


def vn_file_ranges(references: Iterable[NeedReference]) -> Iterator[tuple[int, int]]:
    """Yield ``(offset, length)`` of the names that verneed records hold."""
    return ((reference.offset, VN_FILE_SIZE) for reference in references if reference.entry is None)
