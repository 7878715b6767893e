"""nixpatch's own reader, which goes by program headers and dynamic entries, as ld.so does."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator
from typing import Final

from nixpatch.elf import structs as elf
from nixpatch.elf import symbols as syms
from nixpatch.elf.dynamic import (
    StringReader,
    chained_records,
    linkage,
    needed,
    soname,
    string_at,
    verneed_with_versions,
)
from nixpatch.elf.errors import malformed
from nixpatch.elf.headers import ElfFile, Headers
from nixpatch.elf.image import Image
from nixpatch.elf.notes import note_segments, notes_in
from nixpatch.model.elf_description import (
    OTHER_BITS,
    DefinitionFields,
    ElfDescription,
    HeaderFields,
    NeedFields,
    NoteFields,
    SectionFields,
    SegmentFields,
    SymbolFields,
    TableDigest,
    VersionFields,
    plt_counts_already,
    text_of,
)

_DT_RELRSZ, _DT_RELR = 35, 36
_RELATIVE: Final = 64 << 20  # bytes
_SECTION_NAMES: Final = 4 << 20  # bytes, of the table and of all names together
_RECORDS: Final = 1 << 16  # verdaux records; dynamic.py has the same bound on vernaux records


def describe(fd: int) -> ElfDescription:
    """Describe a file as it is now.

    Raises:
        SkippedFile: it is not a well-formed dynamic ELF file.
        OSError: it cannot be read.

    """
    file = ElfFile.of(Image.of(fd))
    headers = file.headers
    text = functools.cache(text_of)  # thousands of entries may share a long name: keep one copy
    table = syms.SymbolTable(file)
    count, is_exact = table.count()
    osabi, abiversion = headers.ident[elf.EI_OSABI : elf.EI_OSABI + 2]
    versioned = elf.DT_VERSYM in headers.values
    return ElfDescription(
        header=HeaderFields(headers.layout.bits, headers.layout.byteorder, osabi, abiversion, *headers.ehdr),
        segments=tuple(SegmentFields(*segment) for segment in headers.phdrs),
        sections=tuple(_sections(file)),
        interp=_text(linkage(file).interp),
        dynamic=tuple((entry.tag, entry.value) for entry in headers.live),
        needed=tuple(map(text, needed(file))),
        soname=_text(soname(file)),
        rpath=_string(file, elf.DT_RPATH),
        runpath=_string(file, elf.DT_RUNPATH),
        symbols=TableDigest.of(_symbols(table, count), count, is_exact=is_exact),
        symbol_versions=TableDigest.of(
            table.version_indexes(count) if versioned else (), count if versioned else 0, is_exact=is_exact
        ),
        version_needs=tuple(_version_needs(file, text)),
        version_definitions=tuple(_version_definitions(file, text)),
        relocations=_relocations(headers),
        relative_relocations=_relative_relocations(file),
        notes=tuple(
            NoteFields.of(owner, kind, content)
            for segment, data in note_segments(file)
            for owner, kind, content, *_ in notes_in(data, segment.align, headers)
        ),
    )


def _text(name: str | None) -> str | None:
    return None if name is None else text_of(name)


def _string(file: ElfFile, tag: int) -> str | None:
    offset = file.headers.values.get(tag)
    return None if offset is None else text_of(string_at(file, offset))


def _sections(file: ElfFile) -> Iterator[SectionFields]:
    shdrs = file.headers.shdrs
    index = file.headers.ehdr.shstrndx
    if shdrs and index == 0xFFFF:  # SHN_XINDEX
        index = shdrs[0].link
    table = shdrs[index] if 0 < index < len(shdrs) else None
    if table is not None and table.size > _SECTION_NAMES:
        raise malformed(f"section names of {table.size} bytes")
    names = file.image.read(table.offset, table.size) if table is not None else b""
    left = _SECTION_NAMES
    for section in shdrs:
        name = names[section.name : names.find(b"\0", section.name)] if section.name < len(names) else b""
        left -= len(name)
        if left < 0:
            raise malformed(f"section names of more than {_SECTION_NAMES} bytes")
        yield SectionFields(text_of(name), *section[1:])


def _symbols(table: syms.SymbolTable, count: int) -> Iterator[SymbolFields]:
    if count == 0:
        return
    name_of = table.names()
    for name_offset, value, size, info, other, section in table.entries(count):
        name = text_of(name_of(name_offset)) if name_offset else ""
        yield SymbolFields(name, value, size, info, other & OTHER_BITS, section)


def _version_needs(file: ElfFile, text: Callable[[str], str]) -> Iterator[NeedFields]:
    string = StringReader(file)
    for record, versions in verneed_with_versions(file):
        yield NeedFields(
            text(string(record[2])),
            tuple(
                VersionFields(text(string(name)), digest, flags, index)
                for digest, flags, index, name, _ in versions
            ),
        )


def _version_definitions(file: ElfFile, text: Callable[[str], str]) -> Iterator[DefinitionFields]:
    string, layout, values = StringReader(file), file.headers.layout, file.headers.values
    left = _RECORDS
    number = values.get(elf.DT_VERDEFNUM, 0)
    for address, fields in chained_records(file, values.get(elf.DT_VERDEF), number, layout.verdef):
        _, flags, index, count, digest, aux, _ = fields
        left -= count
        if left < 0:
            raise malformed("too many version records")
        parts = chained_records(file, address + aux, count, layout.verdaux)
        yield DefinitionFields(tuple(text(string(part[0])) for _, part in parts), flags, index, digest)


def _relocations(headers: Headers) -> int:
    values, word = headers.values, headers.layout.bits // 8
    sizes = {elf.DT_RELA: 3 * word, elf.DT_REL: 2 * word}
    total = sum(
        values.get(size, 0) // sizes[tag]
        for tag, size in ((elf.DT_RELA, elf.DT_RELASZ), (elf.DT_REL, elf.DT_RELSZ))
        if tag in values
    )
    if elf.DT_JMPREL in values and not plt_counts_already(values):
        kind = values.get(elf.DT_PLTREL, elf.DT_RELA)
        total += values.get(elf.DT_PLTRELSZ, 0) // sizes.get(kind, 3 * word)
    return total


def _relative_relocations(file: ElfFile) -> int:
    """Count what DT_RELR packs: an address, or a bitmap of the words behind it where bit 0 is set (gABI)."""
    address, size = file.headers.values.get(_DT_RELR), file.headers.values.get(_DT_RELRSZ, 0)
    if address is None or size == 0:
        return 0
    if size > _RELATIVE:
        raise malformed(f"{size} bytes of relative relocations")
    words = struct.Struct(file.headers.layout.order + ("Q" if file.headers.layout.bits == 64 else "I"))
    data = file.memory(address, size - size % words.size)
    if data is None:
        raise malformed("DT_RELR lies in no PT_LOAD")
    return sum((word >> 1).bit_count() if word & 1 else 1 for (word,) in words.iter_unpack(data))
