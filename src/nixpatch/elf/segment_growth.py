"""Where new bytes can go: behind the last PT_LOAD, which has to grow for them.

No program header is added or moved, so every address, AT_PHDR on every kernel, and the layout that strip
derives from the section headers stay what they were.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from nixpatch.elf import structs as elf
from nixpatch.elf.dynamic import Naming, places
from nixpatch.elf.headers import Headers, refuse_machine
from nixpatch.elf.structs import Phdr, Shdr
from nixpatch.elf.undo_record import Footer
from nixpatch.errors import FileRefused

_BSS = 256 << 20  # bytes of .bss that become file content; the largest seen in a wheel is 14 MiB
_ALIGN = 16


@dataclass(frozen=True, slots=True)
class Room:
    """The last PT_LOAD and the place behind it."""

    load: Phdr
    """as it is"""
    offset: int
    """p_offset that it will have; differs only for a segment without file content"""
    head: int
    """image bytes [0, head) keep their place"""
    cut: int
    """image bytes from here on move by a constant; in between lies what is thrown away"""
    area: int
    """address of the first new byte"""
    string_size: int
    """how much of the string table is copied"""
    discarded: bool
    """an area of an earlier edit is built anew"""

    def at(self, address: int) -> int:
        """File offset of an address in the new area."""
        return self.offset + address - self.load.vaddr

    def in_old_area(self, address: int) -> bool:
        """Whether an address lies in what is thrown away."""
        return self.discarded and address >= self.area


def room_for(headers: Headers, size: int, stale: Footer | None) -> Room:
    """Find the place in a file of ``size`` bytes. Raises ``FileRefused`` where there is none."""
    _must_be_editable(headers)
    load = headers.last_load
    cut = max(p.file_end for p in headers.loads if p.filesz)
    if load.filesz and load.file_end != cut:
        raise FileRefused("the PT_LOAD with the highest address is not the last one in the file")
    offset = load.offset if load.filesz else cut + (load.vaddr - cut) % max(load.align, 1)
    old = _old_area(headers, stale) if stale else None
    if stale and old:
        room = Room(load, offset, offset + old - load.vaddr, cut, old, stale.string_size, discarded=True)
    else:
        area = elf.round_up(load.memory_end, _ALIGN)
        room = Room(load, offset, cut, cut, area, headers.string_size, discarded=False)
    if room.at(room.area) - cut > _BSS:
        raise FileRefused(f"its .bss of {room.at(room.area) - cut} bytes would have to become file content")
    _must_be_apart(headers, room, size)
    return room


def _must_be_editable(headers: Headers) -> None:
    refuse_machine(headers)
    if headers.null_index is None:
        raise FileRefused("its dynamic section has no DT_NULL, so it has no end that could be moved")
    addresses = [p.vaddr for p in headers.loads]
    if addresses != sorted(addresses):
        raise FileRefused("its PT_LOADs are not in ascending order (gABI)")
    if not headers.last_load.flags & elf.PF_R:
        raise FileRefused("its last PT_LOAD is not readable, so no string table can stand there")


def must_be_apart_from(headers: Headers, room: Room, renamed: Iterable[Naming]) -> None:
    """Refuse if a verneed record that is overwritten overlaps anything else that is, or is thrown away."""
    names = [(start, length, "a version record") for start, length in places(renamed)]
    if not names:
        return
    _must_not_overlap([*_overwritten(headers), *names])
    if any(start + length > room.head for start, length, _ in names):
        raise FileRefused("its version records lie behind its segments, or in the area of an earlier edit")


def _overwritten(headers: Headers) -> list[tuple[int, int, str]]:
    ehdr, segment = headers.ehdr, headers.interp_segment
    found = [
        (0, headers.layout.ehdr.size, "the ELF header"),
        (ehdr.phoff, len(headers.phdr_bytes), "the program headers"),
        (headers.dynamic_offset, len(headers.dynamic_bytes), "the dynamic section"),
        (headers.string_offset, headers.string_size, "the string table"),
    ]
    if headers.shdr_bytes:
        found.append((ehdr.shoff, len(headers.shdr_bytes), "the section headers"))
    if segment:
        found.append((segment.offset, segment.filesz, "the interpreter"))
    return found


def _must_not_overlap(ranges: list[tuple[int, int, str]]) -> None:
    for (start, length, name), (after, _, other) in itertools.pairwise(sorted(ranges)):
        if start + length > after:
            raise FileRefused(f"{name} and {other} overlap")


def _must_be_apart(headers: Headers, room: Room, size: int) -> None:
    """Refuse if what is overwritten overlaps, or if something would be torn apart where bytes come in."""
    ehdr = headers.ehdr
    _must_not_overlap(_overwritten(headers))
    if ehdr.phoff + len(headers.phdr_bytes) > room.head:
        raise FileRefused("its program headers lie behind its segments")
    things = [(ehdr.shoff, len(headers.shdr_bytes))]
    things += [(p.offset, p.filesz) for p in headers.phdrs if p.type not in {elf.PT_LOAD, elf.PT_GNU_RELRO}]
    things += [(s.offset, s.size) for s in headers.shdrs if not is_memory(s)]
    if any(length and start < room.cut < start + length for start, length in things):
        raise FileRefused("something lies half inside and half behind its last segment")
    if room.discarded and headers.shdr_bytes and room.head <= ehdr.shoff < room.cut:
        raise FileRefused("its section headers lie in the area of an earlier edit")
    if room.cut > size:
        raise FileRefused("truncated")


def is_memory(section: Shdr) -> bool:
    """Whether a section has no bytes of its own in the file."""
    return section.type in {elf.SHT_NULL, elf.SHT_NOBITS}


def _old_area(headers: Headers, stale: Footer) -> int | None:
    """Address of an earlier edit's area if only what we put there is in it, else None.

    Without this, editing and stripping in turns would add one more string table each time.
    """
    load, area = headers.last_load, stale.area
    values = headers.values
    if not load.vaddr <= area < load.vaddr + load.filesz or values[elf.DT_STRTAB] < area:
        return None
    if not 0 < stale.string_size <= headers.string_size:
        return None
    kept = (value for tag, value in headers.live if tag in elf.STRING_TAGS - {elf.DT_RPATH, elf.DT_RUNPATH})
    if any(offset >= stale.string_size for offset in kept):
        return None
    others = [values[tag] for tag in elf.ADDRESS_TAGS if tag in values and tag != elf.DT_STRTAB]
    ours = {elf.PT_DYNAMIC, elf.PT_INTERP, elf.PT_LOAD}
    others += [p.vaddr for p in headers.phdrs if p.type not in ours and p.memsz]
    starts = {values[elf.DT_STRTAB], headers.dynamic_segment.vaddr}
    if headers.interp_segment:
        starts.add(headers.interp_segment.vaddr)
    others += [s.addr for s in headers.shdrs if s.flags & elf.SHF_ALLOC and s.size and s.addr not in starts]
    return None if any(area <= address for address in others) else area
