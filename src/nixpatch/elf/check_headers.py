"""Invariants over the header tables: nothing but the listed fields may differ from the original's."""

from __future__ import annotations

from collections.abc import Iterator

from nixpatch.elf import structs as elf
from nixpatch.elf.check_pair import Pair, shared_pages
from nixpatch.elf.headers import Headers
from nixpatch.elf.structs import Phdr, Shdr


def header_violations(pair: Pair) -> Iterator[str]:
    """ELF header and program headers, one by one."""
    old, new = pair.old, pair.new
    moved = old.ehdr._replace(shoff=pair.moved(old.ehdr.shoff))
    if old.ident != new.ident or moved != new.ehdr:
        yield "the ELF header differs in more than the place of the section headers"
    if [p.type for p in old.phdrs] != [p.type for p in new.phdrs]:
        yield "the program headers are not the same in number and order"
        return
    for index, (before, after) in enumerate(zip(old.phdrs, new.phdrs, strict=True)):
        if not _phdr_ok(pair, before, after):
            yield f"program header {index} (type {before.type:#x}) changed in a field that must stay"


def load_violations(pair: Pair) -> Iterator[str]:
    """See to what the kernel and ld.so ask of PT_LOADs, as far as the original held to it."""
    old, new = pair.old, pair.new
    addresses = [p.vaddr for p in new.loads]
    if addresses != sorted(addresses):
        yield "PT_LOADs are not in ascending order"
    for load, after in zip(old.loads, new.loads, strict=False):
        if _congruent(load) and not _congruent(after):
            yield f"the PT_LOAD at {after.vaddr:#x}: offset and address differ modulo its alignment"
    for index in sorted(shared_pages(new) - shared_pages(old)):
        yield f"the PT_LOAD at {new.loads[index].vaddr:#x} shares a page with the one before it"
    if any(p.filesz and p.file_end > pair.new_image.size for p in new.loads):
        yield "a PT_LOAD reaches beyond the end of the file"
    if _dynamic_is_writable(old) and not _dynamic_is_writable(new):
        yield "PT_DYNAMIC lies in no writable PT_LOAD"
    for tag, name in elf.ADDRESS_TAGS.items():
        if (
            tag in new.values
            and not _mapped(new, new.values[tag])
            and (tag not in old.values or _mapped(old, old.values[tag]))
        ):
            yield f"{name} points outside all segments"


def section_violations(pair: Pair) -> Iterator[str]:
    """See that the section header table tells the truth: strip and debuggers go by it."""
    old, new = pair.old, pair.new
    if len(old.shdrs) != len(new.shdrs):
        yield "the number of sections changed"
        return
    for index, (before, after) in enumerate(zip(old.shdrs, new.shdrs, strict=True)):
        if before._replace(addr=0, offset=0, size=0, flags=0) != after._replace(
            addr=0, offset=0, size=0, flags=0
        ):
            yield f"section {index}: name, type, link, alignment or entry size changed"
        elif before.flags & elf.SHF_ALLOC:
            if not _allocated_ok(pair, before, after):
                yield f"section {index} at {after.addr:#x}: address, offset or size is wrong"
        elif not _plain_ok(pair, before, after):
            yield f"section {index}: does not point at the bytes it had"


def _phdr_ok(pair: Pair, before: Phdr, after: Phdr) -> bool:
    moved = pair.new.dynamic_segment.vaddr != pair.old.dynamic_segment.vaddr
    if before is pair.old.last_load:
        flags = before.flags | (elf.PF_W if moved else 0)
        offset = before.offset if before.filesz else after.offset
        expected = before._replace(flags=flags, offset=offset, filesz=after.memsz, memsz=after.memsz)
        return after == expected and after.memory_end > pair.memory_end
    if before.type == elf.PT_LOAD:
        return after == before
    if before.type == elf.PT_DYNAMIC and moved:
        return (
            _in_area(pair, after) and after.flags == before.flags | elf.PF_W and after.align == before.align
        )
    if before.type == elf.PT_INTERP and after.vaddr != before.vaddr:
        return _in_area(pair, after) and after.flags == before.flags and after.align == before.align
    if before.type == elf.PT_INTERP and pair.wish.interp is not None:
        return after == before._replace(filesz=after.filesz, memsz=after.filesz)
    if before.filesz:
        return after == before._replace(offset=pair.moved(before.offset))
    return after == before


def _in_area(pair: Pair, segment: Phdr) -> bool:
    return (
        segment.vaddr >= pair.memory_end
        and segment.filesz == segment.memsz
        and pair.new.file_offset(segment.vaddr, segment.filesz) == segment.offset
    )


def _congruent(load: Phdr) -> bool:
    return load.align <= 1 or (load.offset - load.vaddr) % load.align == 0


def _dynamic_is_writable(headers: Headers) -> bool:
    segment = headers.dynamic_segment
    return any(
        p.flags & elf.PF_W and p.vaddr <= segment.vaddr and segment.memory_end <= p.memory_end
        for p in headers.loads
    )


def _mapped(headers: Headers, address: int) -> bool:
    return any(p.vaddr <= address <= p.memory_end for p in headers.loads)


def _allocated_ok(pair: Pair, before: Shdr, after: Shdr) -> bool:
    old, new = pair.old, pair.new
    if before.type == elf.SHT_STRTAB and before.addr == old.values[elf.DT_STRTAB]:
        place = (new.values[elf.DT_STRTAB], new.string_offset, new.values[elf.DT_STRSZ])
        return (after.addr, after.offset, after.size) == place and after.flags == before.flags
    if before.type == elf.SHT_DYNAMIC and before.addr == old.dynamic_segment.vaddr:
        segment = new.dynamic_segment
        if segment.vaddr == before.addr:
            return after == before
        place = (segment.vaddr, segment.offset, segment.filesz)
        return (after.addr, after.offset, after.size) == place and after.flags == before.flags | elf.SHF_WRITE
    was, now = old.interp_segment, new.interp_segment
    if was and now and (before.addr, before.size) == (was.vaddr, was.filesz):
        return after == before._replace(addr=now.vaddr, offset=now.offset, size=now.filesz)
    if before.type == elf.SHT_NOBITS:
        load = new.last_load
        in_load = after.offset == load.offset + after.addr - load.vaddr
        return after == before._replace(offset=after.offset) and (in_load or after.offset == before.offset)
    return after == before or (before.size > 0 and after == before._replace(offset=pair.moved(before.offset)))


def _plain_ok(pair: Pair, before: Shdr, after: Shdr) -> bool:
    if before.type in {elf.SHT_NULL, elf.SHT_NOBITS}:
        return after == before
    return after == before._replace(offset=pair.moved(before.offset))
