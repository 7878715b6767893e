"""The entries of the header tables after an edit whose sizes are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nixpatch.elf import structs as elf
from nixpatch.elf.headers import Headers
from nixpatch.elf.resolution_cache import NoteSegment
from nixpatch.elf.segment_growth import SegmentGrowth
from nixpatch.elf.structs import Dyn, Phdr, Shdr, round_up
from nixpatch.errors import FileRefused

_SHIFT_ALIGN = 64
_LARGEST_ALIGN = 1 << 16  # larger values of sh_addralign are ignored: they could make the file huge


@dataclass(frozen=True, slots=True)
class ByteChange:
    """Bytes of the image to replace in place."""

    offset: int
    old: bytes
    new: bytes


@dataclass(frozen=True, slots=True)
class Placement:
    """Address and size of one part of the new area."""

    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Area:
    """Layout of the new area. Parts that stay in their old places are None."""

    end: int
    """address of its end"""
    strings: Placement
    dynamic: Placement | None
    interp: Placement | None
    interp_size: int | None
    """new size of an interpreter that is replaced in its old place"""
    notes: tuple[NoteSegment, Placement] | None = None
    """the PT_NOTE that moves, and where to"""


@dataclass(frozen=True, slots=True)
class HeaderValues:
    """New values of header fields that have nothing to do with the new area. None keeps one."""

    os_abi: int | None = None
    """EI_OSABI"""
    stack_flags: int | None = None
    """p_flags of PT_GNU_STACK, or of the first PT_NULL, which becomes one"""


def shift(headers: Headers, growth: SegmentGrowth, end: int, size: int) -> int:
    """Return the distance by which all behind the segments moves for an area that ends at address ``end``."""
    grown = growth.file_offset(end) - growth.cut
    aligns = [s.addralign for s in headers.shdrs if _moves(s, growth) and s.size]
    if size <= growth.cut or (not aligns and headers.ehdr.shoff < growth.cut):
        return grown  # nothing follows, or only an overlay, which stays directly behind the segments
    wide = [a for a in aligns if a <= _LARGEST_ALIGN and a & (a - 1) == 0]
    return round_up(grown, max([_SHIFT_ALIGN, *wide]))


def table_changes(
    headers: Headers, growth: SegmentGrowth, area: Area, delta: int, values: HeaderValues
) -> Iterator[ByteChange]:
    """Yield the changes of the ELF header, the program headers and the section headers."""
    layout, ehdr = headers.layout, headers.ehdr
    if area.end >= 1 << layout.bits:
        raise FileRefused("no address space is left behind its last segment")
    moved = ehdr._replace(shoff=ehdr.shoff + delta if ehdr.shoff >= growth.cut else ehdr.shoff)
    ident = bytearray(headers.ident)
    if values.os_abi is not None:
        ident[elf.EI_OSABI] = values.os_abi
    old, new = layout.pack_ehdr(headers.ident, ehdr), layout.pack_ehdr(bytes(ident), moved)
    yield from difference(0, old, new)
    width = layout.phdr.size
    stack = headers.stack_segment or next((p for p in headers.phdrs if p.type == elf.PT_NULL), None)
    for start, header in zip(range(0, len(headers.phdr_bytes), width), headers.phdrs, strict=True):
        changed = _phdr(header, growth, area, delta)
        if header is stack and values.stack_flags is not None:
            changed = stack_header(changed, values.stack_flags)
        if changed != header:
            old = headers.phdr_bytes[start : start + width]
            yield from difference(ehdr.phoff + start, old, layout.pack_phdr(changed))
    width = layout.shdr.size
    for start, section in zip(range(0, len(headers.shdr_bytes), width), headers.shdrs, strict=True):
        after = _shdr(section, headers, growth, area, delta)
        if after != section:
            old = headers.shdr_bytes[start : start + width]
            yield from difference(ehdr.shoff + start, old, layout.pack_shdr(after))


def stack_header(header: Phdr, flags: int) -> Phdr:
    """Return a PT_GNU_STACK with new flags; a PT_NULL becomes an empty one."""
    if header.type == elf.PT_GNU_STACK:
        return header._replace(flags=flags)
    return Phdr(elf.PT_GNU_STACK, flags, 0, 0, 0, 0, 0, elf.STACK_ALIGN)


def with_strings(entries: Sequence[Dyn], strings: Placement) -> tuple[Dyn, ...]:
    """Return the dynamic section with the new place and size of the string table."""
    new = {elf.DT_STRTAB: strings.address, elf.DT_STRSZ: strings.size}
    return tuple(Dyn(entry.tag, new[entry.tag]) if entry.tag in new else entry for entry in entries)


def difference(offset: int, old: bytes, new: bytes) -> Iterator[ByteChange]:
    """Yield the shortest run, if any, outside which two strings of the same length agree."""
    if old == new:
        return
    # As numbers: the lowest and the highest bit that differ are in the first and the last byte that differs.
    bits = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
    start = ((bits & -bits).bit_length() - 1) // 8
    end = (bits.bit_length() + 7) // 8
    yield ByteChange(offset + start, old[start:end], new[start:end])


def _phdr(header: Phdr, growth: SegmentGrowth, area: Area, delta: int) -> Phdr:
    if header is growth.load:
        size = area.end - header.vaddr
        flags = header.flags | (elf.PF_W if area.dynamic else 0)
        return header._replace(flags=flags, offset=growth.offset, filesz=size, memsz=size)
    if header.type == elf.PT_LOAD:
        return header
    if header.type == elf.PT_DYNAMIC and area.dynamic:
        return _into(header._replace(flags=header.flags | elf.PF_W), area.dynamic, growth)
    if header.type == elf.PT_INTERP and area.interp:
        return _into(header, area.interp, growth)
    if header.type == elf.PT_INTERP and area.interp_size is not None:
        return header._replace(filesz=area.interp_size, memsz=area.interp_size)
    if area.notes and header is area.notes[0].segment:
        return _into(header, area.notes[1], growth)
    if header.filesz and header.offset >= growth.cut:
        return header._replace(offset=header.offset + delta)
    return header


def _into(header: Phdr, placement: Placement, growth: SegmentGrowth) -> Phdr:
    return header._replace(
        offset=growth.file_offset(placement.address),
        vaddr=placement.address,
        paddr=placement.address,
        filesz=placement.size,
        memsz=placement.size,
    )


def _moves(section: Shdr, growth: SegmentGrowth) -> bool:
    """Whether a section is behind the segments and has bytes there, or is empty and not in memory."""
    behind = section.offset >= growth.cut and section.in_file
    return behind and (section.size > 0 or not section.flags & elf.SHF_ALLOC)


def _shdr(section: Shdr, headers: Headers, growth: SegmentGrowth, area: Area, delta: int) -> Shdr:
    if _moves(section, growth):
        return section._replace(offset=section.offset + delta)
    if not section.flags & elf.SHF_ALLOC:
        return section
    if section.type == elf.SHT_STRTAB and section.addr == headers.values[elf.DT_STRTAB]:
        return _section_into(section, area.strings, growth)
    if section.type == elf.SHT_DYNAMIC and area.dynamic and section.addr == headers.dynamic_segment.vaddr:
        return _section_into(section._replace(flags=section.flags | elf.SHF_WRITE), area.dynamic, growth)
    if _is_interp(section, headers):
        if area.interp:
            return _section_into(section, area.interp, growth)
        return section if area.interp_size is None else section._replace(size=area.interp_size)
    if area.notes and section in area.notes[0].sections:
        return _note_section(section, *area.notes, growth)
    if _is_bss(section, growth.load):
        # It stays NOBITS although the file now holds its zeros: strip and linkers expect that of .bss.
        return section._replace(offset=growth.file_offset(section.addr))
    return section


def _section_into(section: Shdr, placement: Placement, growth: SegmentGrowth) -> Shdr:
    return section._replace(
        addr=placement.address, offset=growth.file_offset(placement.address), size=placement.size
    )


def _note_section(section: Shdr, notes: NoteSegment, placement: Placement, growth: SegmentGrowth) -> Shdr:
    """Move a section of notes along; the last one grows over what is added."""
    inside = section.addr - notes.segment.vaddr
    size = placement.size - inside if section is notes.sections[-1] else section.size
    return _section_into(section, Placement(placement.address + inside, size), growth)


def _is_interp(section: Shdr, headers: Headers) -> bool:
    segment = headers.interp_segment
    return (
        segment is not None
        and section.type == elf.SHT_PROGBITS
        and section.addr == segment.vaddr
        and section.size == segment.filesz
    )


def _is_bss(section: Shdr, load: Phdr) -> bool:
    return (
        section.type == elf.SHT_NOBITS
        and not section.flags & elf.SHF_TLS
        and load.vaddr + load.filesz <= section.addr
        and section.addr + section.size <= load.memory_end
    )
