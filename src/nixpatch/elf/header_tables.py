"""The header tables after an edit: what each entry becomes once the sizes are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nixpatch.elf import structs as elf
from nixpatch.elf.headers import Headers
from nixpatch.elf.segment_growth import Room, is_memory
from nixpatch.elf.structs import Dyn, Phdr, Shdr, round_up
from nixpatch.errors import FileRefused

_SHIFT_ALIGN = 64
_LARGEST_ALIGN = (
    1 << 16
)  # a section header cannot ask for more: an absurd sh_addralign would blow up the file


@dataclass(frozen=True, slots=True)
class Change:
    """Bytes of the image that become others, in place."""

    offset: int
    old: bytes
    new: bytes


@dataclass(frozen=True, slots=True)
class Placed:
    """Something that stands in the new area."""

    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Area:
    """What the new area holds."""

    end: int
    """address behind it"""
    strings: Placed
    dynamic: Placed | None
    interp: Placed | None
    interp_size: int | None
    """new size of an interpreter that stays in its place"""


def shift(headers: Headers, room: Room, end: int, size: int) -> int:
    """By how much everything behind the segments moves for an area that ends at address ``end``."""
    grown = room.at(end) - room.cut
    aligns = [s.addralign for s in headers.shdrs if _moves(s, room) and s.size]
    if size <= room.cut or (not aligns and headers.ehdr.shoff < room.cut):
        return grown  # nothing follows, or only what no header describes: it stays right behind the segments
    wide = [a for a in aligns if a <= _LARGEST_ALIGN and a & (a - 1) == 0]
    return round_up(grown, max([_SHIFT_ALIGN, *wide]))


def table_changes(headers: Headers, room: Room, area: Area, delta: int) -> Iterator[Change]:
    """Yield what becomes of the ELF header, the program headers and the section headers."""
    layout, ehdr = headers.layout, headers.ehdr
    if area.end >= 1 << layout.bits:
        raise FileRefused("no address space is left behind its last segment")
    if headers.shdr_bytes or ehdr.shoff >= room.cut:
        moved = ehdr._replace(shoff=ehdr.shoff + delta if ehdr.shoff >= room.cut else ehdr.shoff)
        yield from difference(
            0, layout.pack_ehdr(headers.ident, ehdr), layout.pack_ehdr(headers.ident, moved)
        )
    width = layout.phdr.size
    for index, header in enumerate(headers.phdrs):
        new = _phdr(header, room, area, delta)
        if new != header:
            old = headers.phdr_bytes[index * width : (index + 1) * width]
            yield from difference(ehdr.phoff + index * width, old, layout.pack_phdr(new))
    width = layout.shdr.size
    for index, section in enumerate(headers.shdrs):
        after = _shdr(section, headers, room, area, delta)
        if after != section:
            old = headers.shdr_bytes[index * width : (index + 1) * width]
            yield from difference(ehdr.shoff + index * width, old, layout.pack_shdr(after))


def with_strings(entries: Sequence[Dyn], strings: Placed) -> tuple[Dyn, ...]:
    """Give the dynamic section the new place and size of the string table."""
    new = {elf.DT_STRTAB: strings.address, elf.DT_STRSZ: strings.size}
    return tuple(Dyn(entry.tag, new[entry.tag]) if entry.tag in new else entry for entry in entries)


def difference(offset: int, old: bytes, new: bytes) -> Iterator[Change]:
    """Yield the one run, if any, in which two texts of the same length differ."""
    if old == new:
        return
    # As numbers: the lowest and the highest bit that differ lie in the first and in the last byte that does.
    bits = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
    start = ((bits & -bits).bit_length() - 1) // 8
    end = (bits.bit_length() + 7) // 8
    yield Change(offset + start, old[start:end], new[start:end])


def _phdr(header: Phdr, room: Room, area: Area, delta: int) -> Phdr:
    if header is room.load:
        size = area.end - header.vaddr
        flags = header.flags | (elf.PF_W if area.dynamic else 0)
        return header._replace(flags=flags, offset=room.offset, filesz=size, memsz=size)
    if header.type == elf.PT_LOAD:
        return header
    if header.type == elf.PT_DYNAMIC and area.dynamic:
        return _into(header._replace(flags=header.flags | elf.PF_W), area.dynamic, room)
    if header.type == elf.PT_INTERP and area.interp:
        return _into(header, area.interp, room)
    if header.type == elf.PT_INTERP and area.interp_size is not None:
        return header._replace(filesz=area.interp_size, memsz=area.interp_size)
    if header.filesz and header.offset >= room.cut:
        return header._replace(offset=header.offset + delta)
    return header


def _into(header: Phdr, placed: Placed, room: Room) -> Phdr:
    return header._replace(
        offset=room.at(placed.address),
        vaddr=placed.address,
        paddr=placed.address,
        filesz=placed.size,
        memsz=placed.size,
    )


def _moves(section: Shdr, room: Room) -> bool:
    """Tell a section behind the segments, with bytes of its own (or none, but also no place in memory)."""
    behind = section.offset >= room.cut and not is_memory(section)
    return behind and (section.size > 0 or not section.flags & elf.SHF_ALLOC)


def _shdr(section: Shdr, headers: Headers, room: Room, area: Area, delta: int) -> Shdr:
    if _moves(section, room):
        return section._replace(offset=section.offset + delta)
    if not section.flags & elf.SHF_ALLOC:
        return section
    if section.type == elf.SHT_STRTAB and section.addr == headers.values[elf.DT_STRTAB]:
        return _section_into(section, area.strings, room)
    if section.type == elf.SHT_DYNAMIC and area.dynamic and section.addr == headers.dynamic_segment.vaddr:
        return _section_into(section._replace(flags=section.flags | elf.SHF_WRITE), area.dynamic, room)
    if _is_interp(section, headers):
        if area.interp:
            return _section_into(section, area.interp, room)
        return section if area.interp_size is None else section._replace(size=area.interp_size)
    if _is_bss(section, room.load):
        # Still NOBITS although the file holds its zeros now: what strip and the linkers expect of .bss.
        return section._replace(offset=room.at(section.addr))
    return section


def _section_into(section: Shdr, placed: Placed, room: Room) -> Shdr:
    return section._replace(addr=placed.address, offset=room.at(placed.address), size=placed.size)


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
