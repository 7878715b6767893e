"""LIEF. It goes by the dynamic section, as ld.so does.

Imported in a child process only: it may fail to import, it prints, and it ends the process on some input.
"""

from __future__ import annotations

import array
import sys
from typing import Any, Final

import lief as _lief

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

lief: Final[Any] = _lief
lief.logging.disable()
NAME: Final = f"LIEF {lief.__version__.split('-')[0]}"
_WORD: Final = 0xFFFFFFFF  # LIEF puts the machine into the bits above where a type depends on it


def describe(path: str, limit: int | None) -> ElfDescription:
    """Describe a file; digest at most ``limit`` of its symbols. Raises what LIEF raises."""
    parsing = lief.ELF.ParserConfig()
    parsing.parse_symtab_symbols = parsing.parse_overlay = False
    binary = lief.ELF.parse(path, parsing)
    if binary is None:
        raise ValueError("it is no ELF file")
    entries = [
        (int(entry.tag) & _WORD, entry.value, entry) for entry in binary.dynamic_entries if int(entry.tag)
    ]
    texts = {tag: entry for tag, _, entry in entries}
    symbols, versions = binary.dynamic_symbols, binary.symbols_version
    header = _header(binary.header)
    return ElfDescription(
        header=header,
        segments=tuple(
            SegmentFields(
                int(segment.type) & _WORD,
                segment.raw_flags,
                segment.file_offset,
                segment.virtual_address,
                segment.physical_address,
                segment.physical_size,
                segment.virtual_size,
                segment.alignment,
            )
            for segment in binary.segments
        ),
        sections=tuple(
            SectionFields(
                text_of(section.fullname.split(b"\0")[0]),
                int(section.type) & _WORD,
                section.flags,
                section.virtual_address,
                section.file_offset,
                section.size,
                section.link,
                section.information,
                section.alignment,
                section.entry_size,
            )
            for section in binary.sections
        ),
        interp=text_of(binary.interpreter) or None if binary.has_interpreter else None,
        dynamic=tuple((tag, value) for tag, value, _ in entries),
        needed=tuple(_text(entry, "name") for tag, _, entry in entries if tag == 1),
        soname=_text(texts[14], "name") if 14 in texts else None,
        rpath=_text(texts[15], "rpath") if 15 in texts else None,
        runpath=_text(texts[29], "runpath") if 29 in texts else None,
        symbols=TableDigest.of(map(_symbol, symbols), len(symbols), limit),
        symbol_versions=TableDigest.of((version.value for version in versions), len(versions), limit),
        version_needs=tuple(map(_need, binary.symbols_version_requirement)),
        version_definitions=tuple(
            DefinitionFields(
                tuple(_text(name, "name") for name in definition.auxiliary_symbols),
                definition.flags,
                definition.ndx,
                definition.hash,
            )
            for definition in binary.symbols_version_definition
        ),
        **_relocations(binary, {tag: value for tag, value, _ in entries}),
        notes=tuple(
            NoteFields.of(_text(note, "name"), note.original_type, _content(note, header.byteorder))
            for note in binary.notes
        ),
    )


def _text(thing: Any, attribute: str) -> str:
    try:
        return text_of(getattr(thing, attribute))
    except UnicodeDecodeError as error:  # annobin's notes have such names
        return text_of(error.object)


def _header(header: Any) -> HeaderFields:
    return HeaderFields(
        32 * int(header.identity_class),
        "little" if int(header.identity_data) == 1 else "big",
        int(header.identity_os_abi),
        header.identity_abi_version,
        int(header.file_type),
        int(header.machine_type),
        int(header.object_file_version),
        header.entrypoint,
        header.program_header_offset,
        header.section_header_offset,
        header.processor_flag,
        header.header_size,
        header.program_header_size,
        header.numberof_segments,
        header.section_header_size,
        header.numberof_sections,
        header.section_name_table_idx,
    )


def _symbol(symbol: Any) -> SymbolFields:
    return SymbolFields(
        _text(symbol, "name"),
        symbol.value,
        symbol.size,
        symbol.information,
        symbol.other & OTHER_BITS,
        symbol.shndx,
    )


def _need(need: Any) -> NeedFields:
    return NeedFields(
        _text(need, "name"),
        tuple(
            VersionFields(_text(version, "name"), version.hash, version.flags, version.other)
            for version in need.get_auxiliary_symbols()
        ),
    )


def _content(note: Any, byteorder: str) -> bytes:
    words = array.array("I", bytes(note.description))
    if byteorder != sys.byteorder:  # LIEF reads words of 32 bits
        words.byteswap()
    return words.tobytes()


def _relocations(binary: Any, values: dict[int, int]) -> dict[str, int]:
    relative = lief.ELF.Relocation.ENCODING.RELR
    dynamic = binary.dynamic_relocations
    packed = sum(entry.encoding == relative for entry in dynamic) if 36 in values else 0
    plt = 0 if plt_counts_already(values) else len(binary.pltgot_relocations)
    return {"relocations": len(dynamic) - packed + plt, "relative_relocations": packed}
