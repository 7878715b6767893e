"""pyelftools. It goes by section headers where a file has them, as strip and debuggers do.

Imported in a child process only, like :mod:`nixpatch.elf.readers.lief`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final

import elftools
from elftools.common.utils import struct_parse
from elftools.elf import enums
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection, GNUVerSymSection
from elftools.elf.relocation import RelocationSection, RelrRelocationSection
from elftools.elf.sections import SymbolTableSection
from elftools.elf.segments import InterpSegment, NoteSegment

from nixpatch.model.elf_description import (
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

NAME: Final = f"pyelftools {elftools.__version__}"
_SHF_ALLOC: Final = 2

# It replaces numbers that it knows by names, which are unique over all of its tables.
_NUMBERS: Final = {
    key: number
    for table, content in vars(enums).items()
    if table.startswith("ENUM_") and not table.startswith("ENUM_RELOC")
    for key, number in content.items()
    if isinstance(number, int)
}


def describe(path: str, limit: int | None) -> ElfDescription:
    """Describe a file; digest at most ``limit`` of its symbols. Raises what pyelftools raises."""
    with open(path, "rb") as stream:
        return _describe(stream, limit)


def _describe(stream: BinaryIO, limit: int | None) -> ElfDescription:
    file = ELFFile(stream)
    segments, sections = list(file.iter_segments()), list(file.iter_sections())
    dynamic = next((segment for segment in segments if isinstance(segment, DynamicSegment)), None)
    if dynamic is None:
        raise ValueError("no PT_DYNAMIC")
    tags: list[Any] = [tag for tag in dynamic.iter_tags() if tag.entry.d_tag != "DT_NULL"]
    texts = {tag.entry.d_tag: tag for tag in tags}
    interp = next((segment for segment in segments if isinstance(segment, InterpSegment)), None)
    needs = _only(sections, GNUVerNeedSection)
    definitions = _only(sections, GNUVerDefSection)
    return ElfDescription(
        header=_header(file),
        segments=tuple(
            SegmentFields(
                _number(segment["p_type"]), *(segment[f"p_{key}"] for key in SegmentFields._fields[1:])
            )
            for segment in segments
        ),
        sections=tuple(
            SectionFields(
                text_of(section.name),
                _number(section["sh_type"]),
                *(section[f"sh_{key}"] for key in SectionFields._fields[2:]),
            )
            for section in sections
        ),
        interp=text_of(interp.get_interp_name()) or None if interp else None,
        dynamic=tuple((_number(tag.entry.d_tag), tag.entry.d_val) for tag in tags),
        needed=tuple(text_of(tag.needed) for tag in tags if tag.entry.d_tag == "DT_NEEDED"),
        soname=text_of(texts["DT_SONAME"].soname) if "DT_SONAME" in texts else None,
        rpath=text_of(texts["DT_RPATH"].rpath) if "DT_RPATH" in texts else None,
        runpath=text_of(texts["DT_RUNPATH"].runpath) if "DT_RUNPATH" in texts else None,
        symbols=_symbols(sections, dynamic, limit),
        symbol_versions=_symbol_versions(sections, limit),
        # It finds these records by section headers only.
        version_needs=tuple(map(_need, needs.iter_versions())) if needs else () if sections else None,
        version_definitions=(
            tuple(map(_definition, definitions.iter_versions())) if definitions else () if sections else None
        ),
        relocations=_relocations(
            sections, dynamic, {_number(tag.entry.d_tag): tag.entry.d_val for tag in tags}
        ),
        relative_relocations=_relative_relocations(sections, dynamic),
        notes=tuple(
            NoteFields.of(note["n_name"] or "", _number(note["n_type"]), note["n_descdata"])
            for segment in segments
            if isinstance(segment, NoteSegment)
            for note in segment.iter_notes()
        ),
    )


def _number(value: int | str) -> int:
    return value if isinstance(value, int) else _NUMBERS[value]


def _only(sections: list[Any], kind: type) -> Any:
    return next((section for section in sections if isinstance(section, kind)), None)


def _header(file: Any) -> HeaderFields:
    ident = file["e_ident"]
    return HeaderFields(
        file.elfclass,
        "little" if file.little_endian else "big",
        _number(ident["EI_OSABI"]),
        ident["EI_ABIVERSION"],
        *(_number(file[f"e_{key}"]) for key in HeaderFields._fields[4:]),
    )


def _symbols(sections: list[Any], dynamic: Any, limit: int | None) -> TableDigest:
    table = next(
        (s for s in sections if isinstance(s, SymbolTableSection) and s["sh_type"] == "SHT_DYNSYM"), None
    )
    if table is None and sections:
        return TableDigest(0, ())
    source = table or dynamic
    return TableDigest.of(map(_symbol, source.iter_symbols()), source.num_symbols(), limit)


def _symbol(symbol: Any) -> SymbolFields:
    info, other = symbol["st_info"], symbol["st_other"]
    return SymbolFields(
        text_of(symbol.name),
        symbol["st_value"],
        symbol["st_size"],
        _number(info["bind"]) << 4 | _number(info["type"]),
        _number(other["local"]) << 5 | _number(other["visibility"]),
        _number(symbol["st_shndx"]),
    )


def _symbol_versions(sections: list[Any], limit: int | None) -> TableDigest | None:
    table = _only(sections, GNUVerSymSection)
    if table is None:
        return TableDigest(0, ()) if sections else None
    count, start, width = table.num_symbols(), table["sh_offset"], table["sh_entsize"]
    # Its get_symbol() would read each symbol once more.
    entries = (struct_parse(table.structs.Elf_Versym, table.stream, start + n * width) for n in range(count))
    return TableDigest.of((_number(entry["ndx"]) for entry in entries), count, limit)


def _need(parts: tuple[Any, Iterator[Any]]) -> NeedFields:
    record, versions = parts
    return NeedFields(
        text_of(record.name),
        tuple(
            VersionFields(
                text_of(version.name), version["vna_hash"], version["vna_flags"], version["vna_other"]
            )
            for version in versions
        ),
    )


def _definition(parts: tuple[Any, Iterator[Any]]) -> DefinitionFields:
    record, names = parts
    return DefinitionFields(
        tuple(text_of(name.name) for name in names), record["vd_flags"], record["vd_ndx"], record["vd_hash"]
    )


def _relocations(sections: list[Any], dynamic: Any, tags: Mapping[int, int]) -> int:
    if sections:
        allocated = (s for s in sections if isinstance(s, RelocationSection) and s["sh_flags"] & _SHF_ALLOC)
        return sum(section.num_relocations() for section in allocated)
    tables = dynamic.get_relocation_tables()
    names = {"RELA", "REL"} if plt_counts_already(tags) else {"RELA", "REL", "JMPREL"}
    return sum(table.num_relocations() for name, table in tables.items() if name in names)


def _relative_relocations(sections: list[Any], dynamic: Any) -> int:
    if sections:
        return sum(s.num_relocations() for s in sections if isinstance(s, RelrRelocationSection))
    table = dynamic.get_relocation_tables().get("RELR")
    return table.num_relocations() if table else 0
