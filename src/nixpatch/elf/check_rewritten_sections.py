"""The section headers of a file that was laid out anew: true, and every content the same."""

from __future__ import annotations

from collections.abc import Iterator

from nixpatch.elf import structs as elf
from nixpatch.elf.check_pair import chunks
from nixpatch.elf.headers import Headers
from nixpatch.elf.image import Image
from nixpatch.elf.structs import Shdr

_NAMES = 1 << 22  # bytes


def section_violations(old_image: Image, old: Headers, new_image: Image, new: Headers) -> Iterator[str]:
    """Compare section by section; memory is compared elsewhere, here is what has no address.

    The section of section names is the one content that may differ: it is written anew, so names are
    compared as words.
    """
    if not old.shdrs:
        return
    if len(old.shdrs) != len(new.shdrs):
        yield "the number of sections changed"
        return
    names = [_names(old_image, old), _names(new_image, new)]
    for index, (before, after) in enumerate(zip(old.shdrs, new.shdrs, strict=True)):
        if _name(names[0], before) != _name(names[1], after):
            yield f"section {index} has another name"
        free = {"name": 0, "addr": 0, "offset": 0, "size": 0, "flags": 0}
        if before._replace(**free) != after._replace(**free):
            yield f"section {index}: type, link, information, alignment or entry size changed"
        elif before.flags & elf.SHF_ALLOC:
            if not _allocated_ok(old, new, before, after):
                yield f"section {index} at {after.addr:#x}: address, offset or size is wrong"
        elif index != old.ehdr.shstrndx and not _same(old_image, new_image, before, after):
            yield f"section {index} no longer has the bytes it had"


def _allocated_ok(old: Headers, new: Headers, before: Shdr, after: Shdr) -> bool:
    if before.type == elf.SHT_STRTAB and before.addr == old.values[elf.DT_STRTAB]:
        return (after.addr, after.offset) == (new.values[elf.DT_STRTAB], new.string_offset)
    if before.type == elf.SHT_DYNAMIC and before.addr == old.dynamic_segment.vaddr:
        segment = new.dynamic_segment
        return (after.addr, after.offset) == (segment.vaddr, segment.offset)
    was, now = old.interp_segment, new.interp_segment
    if was and now and (before.addr, before.size) == (was.vaddr, was.filesz):
        return (after.addr, after.offset, after.size) == (now.vaddr, now.offset, now.filesz)
    if (before.addr, before.size, before.flags) != (after.addr, after.size, after.flags):
        return False
    if before.type == elf.SHT_NOBITS or not before.size:
        inside = any(p.vaddr <= after.addr <= p.memory_end for p in new.loads)
        return inside or not any(p.vaddr <= before.addr <= p.memory_end for p in old.loads)
    return new.file_offset(after.addr, after.size) == after.offset or (
        old.file_offset(before.addr, before.size) != before.offset
    )


def _same(old_image: Image, new_image: Image, before: Shdr, after: Shdr) -> bool:
    if before.type in {elf.SHT_NULL, elf.SHT_NOBITS}:
        return True
    return (before.size, before.addr, before.flags) == (after.size, after.addr, after.flags) and all(
        old_image.read(at, count) == new_image.read(after.offset + at - before.offset, count)
        for at, count in chunks(before.offset, before.size)
    )


def _names(image: Image, headers: Headers) -> bytes:
    index = headers.ehdr.shstrndx
    if not index < len(headers.shdrs):
        return b""
    section = headers.shdrs[index]
    return image.read(section.offset, min(section.size, _NAMES))


def _name(table: bytes, section: Shdr) -> bytes:
    end = table.find(b"\0", section.name)
    return table[section.name : end] if end >= 0 else b""
