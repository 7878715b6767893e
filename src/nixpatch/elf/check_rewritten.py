"""Holding a file that another writer laid out anew against its original.

The set is its own, not the one of :mod:`nixpatch.elf.check_inplace`: here program headers may be added and
moved.
What must hold instead: no address of the original moves, and every byte of its memory is the same but for
header tables, dynamic section and interpreter. All bytes are compared, not samples: the writer copied nothing
by construction.

The program headers of a file that was laid out anew: what the kernel and ld.so go by.

The section headers of a file that was laid out anew: true, and every content the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from nixpatch.elf import dynamic
from nixpatch.elf import structs as elf
from nixpatch.elf.check_pair import chunks, shared_pages
from nixpatch.elf.headers import Headers
from nixpatch.elf.image import Image
from nixpatch.elf.resolved_edit import PATH_TAGS, TAG_NUMBERS, wish_of
from nixpatch.elf.source import opened
from nixpatch.elf.structs import Phdr, Shdr
from nixpatch.elf.undo import look
from nixpatch.elf.unfit import Unfit
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit

_SKIPPED = PATH_TAGS | {elf.DT_STRTAB, elf.DT_STRSZ}


def check_rewritten(source: str | int, rewritten: str | int, edit: ElfEdit) -> tuple[str, ...]:
    """Say what is wrong with ``rewritten`` as the outcome of ``edit`` on the original of ``source``.

    Empty means that nothing is. Both files are parsed anew and read once in full; they are paths, or
    descriptors that stay open.

    Raises ``FileRefused`` if ``source`` itself cannot be read as ELF, and ``OSError``.
    """
    with opened(source) as source_fd, opened(rewritten) as rewritten_fd:
        before = look(source_fd)
        old = Side(before.original_image, before.original)
        try:
            after = look(rewritten_fd)
        except Unfit as unfit:
            return (f"the result cannot be read: {unfit}",)
        new = Side(after.current_image, after.current)
        groups = (
            _header(old, new),
            segment_violations(old, new),
            load_violations(old, new),
            _linkage(old, new, edit),
            _dynamic(old, new),
            _strings(old, new),
            _memory(old, new),
            section_violations(old.image, old.headers, new.image, new.headers),
            _overlay(old, new),
        )
        return tuple(violation for group in groups for violation in _all_of(group))


def _all_of(violations: Iterator[str]) -> Iterator[str]:
    try:
        yield from violations
    except FileRefused as refused:
        yield f"the result contradicts itself: {refused}"


def _header(old: Side, new: Side) -> Iterator[str]:
    """See that the ELF header differs only in where the tables are and how long."""
    free = {"phoff": 0, "shoff": 0, "phnum": 0, "shnum": 0, "shstrndx": 0}
    if old.headers.ident != new.headers.ident or old.headers.ehdr._replace(
        **free
    ) != new.headers.ehdr._replace(**free):
        yield "the ELF header differs in more than the places of the tables"


def _linkage(old: Side, new: Side, edit: ElfEdit) -> Iterator[str]:
    """Search path, tag and interpreter as wished."""
    before = dynamic.linkage(old.image, old.headers)
    found = dynamic.linkage(new.image, new.headers)
    wish = wish_of(old.headers, before, edit)
    tags = [entry.tag for entry in new.headers.live if entry.tag in PATH_TAGS]
    if edit.search_path == "":
        if tags:
            yield "a search path entry is left"
    elif edit.search_path is None:
        if (found.search_path, found.tag) != (before.search_path, before.tag):
            yield "the search path changed"
    elif found.search_path != edit.search_path or tags != [TAG_NUMBERS[wish.tag]]:
        yield f"the search path is {found.search_path!r}, wished is {edit.search_path!r} as {wish.tag.value}"
    wished = before.interp if edit.interp is None else edit.interp
    if found.interp != wished:
        yield f"the interpreter is {found.interp!r}, wished is {wished!r}"


def _dynamic(old: Side, new: Side) -> Iterator[str]:
    """Every other dynamic entry is what it was, in order; those that are strings, as strings."""
    if new.headers.null_index is None:
        yield "the dynamic section has no DT_NULL"
    if _entries(old) != _entries(new):
        yield "a dynamic entry other than the search path and the string table changed"
    for tag, name in elf.ADDRESS_TAGS.items():
        address = new.headers.values.get(tag)
        if address is not None and not any(p.vaddr <= address <= p.memory_end for p in new.headers.loads):
            yield f"{name} points outside all segments"


def _entries(side: Side) -> list[tuple[int, int | str]]:
    return [
        (tag, dynamic.string_at(side.image, side.headers, value) if tag in elf.STRING_TAGS else value)
        for tag, value in side.headers.live
        if tag not in _SKIPPED
    ]


def _strings(old: Side, new: Side) -> Iterator[str]:
    """See that the string table is the old one with additions: offsets in all tables keep their meaning."""
    size = old.headers.string_size
    if new.headers.string_size < size or any(
        old.image.read(old.headers.string_offset + at, count)
        != new.image.read(new.headers.string_offset + at, count)
        for at, count in chunks(0, size)
    ):
        yield "the string table is not the old one with additions"


def _memory(old: Side, new: Side) -> Iterator[str]:
    """See that memory holds what it held, but for what the edit and the new place of the headers change."""
    holes = list(_written_anew(old))
    for load in old.headers.loads:
        for start, end in _without(load.vaddr, load.vaddr + load.filesz, holes):
            for address, length in chunks(start, end - start):
                if old.memory(address, length) != new.memory(address, length):
                    yield f"memory differs between {address:#x} and {address + length:#x}"
                    return
        for grown in new.headers.loads:
            if grown.vaddr == load.vaddr and grown.filesz > load.filesz:
                count = min(grown.filesz, load.memsz) - load.filesz
                for at, length in chunks(grown.offset + load.filesz, max(count, 0)):
                    if new.image.read(at, length).count(0) != length:
                        yield "memory that was .bss is not zero"
                        return


def _written_anew(old: Side) -> Iterator[tuple[int, int]]:
    """Address ranges of header tables, dynamic section and interpreter."""
    headers = old.headers
    tables = [(0, headers.layout.ehdr.size), (headers.ehdr.phoff, len(headers.phdr_bytes))]
    tables.append((headers.ehdr.shoff, len(headers.shdr_bytes)))
    for offset, size in tables:
        for load in headers.loads:
            if size and load.offset <= offset < load.file_end:
                yield offset - load.offset + load.vaddr, size
    yield headers.dynamic_segment.vaddr, headers.dynamic_segment.filesz
    if headers.interp_segment:
        yield headers.interp_segment.vaddr, headers.interp_segment.filesz


def _without(start: int, end: int, holes: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Give what is left of a range."""
    for hole, size in sorted(holes):
        if hole >= end or hole + size <= start:
            continue
        if hole > start:
            yield start, hole
        start = max(start, hole + size)
    if start < end:
        yield start, end


def _overlay(old: Side, new: Side) -> Iterator[str]:
    """See that data behind all that headers describe stays the last thing in the file."""
    start = old.headers.described_end
    length = old.image.size - start
    if length <= 1:  # one odd byte is what old versions of patchelf leave behind
        return
    if length > new.image.size or any(
        old.image.read(at, count) != new.image.read(new.image.size - old.image.size + at, count)
        for at, count in chunks(start, length)
    ):
        yield "the appended data is no longer the last thing in the file"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two files."""

    image: Image
    headers: Headers

    def memory(self, address: int, length: int) -> bytes | None:
        """Content of a range of addresses; None where the file does not hold all of it."""
        offset = self.headers.file_offset(address, length)
        return None if offset is None else self.image.read(offset, length)


def segment_violations(old: Side, new: Side) -> Iterator[str]:
    """Every segment but PT_LOAD is there once, with the same memory, and where the tables say."""
    apart = {elf.PT_LOAD, elf.PT_PHDR, elf.PT_DYNAMIC, elf.PT_INTERP}
    before = [p for p in old.headers.phdrs if p.type not in apart]
    after = [p for p in new.headers.phdrs if p.type not in apart]
    if [p._replace(offset=0) for p in before] != [p._replace(offset=0) for p in after]:
        yield "a program header other than PT_LOAD, PT_PHDR, PT_DYNAMIC and PT_INTERP changed"
    for was, now in zip(before, after, strict=False):
        if was.filesz and not _same_content(old, new, was, now):
            yield f"the program header of type {now.type:#x} does not lead to the bytes it had"
    for kind in apart - {elf.PT_LOAD}:
        if _count(old, kind) != _count(new, kind):
            yield f"the number of program headers of type {kind} changed"
    for segment in new.headers.phdrs:
        if segment.type in {elf.PT_DYNAMIC, elf.PT_INTERP} and not _in_place(new, segment):
            yield f"the program header of type {segment.type} is not where its address is in the file"
    yield from _phdr_table(new)


def _in_place(side: Side, segment: Phdr) -> bool:
    return side.headers.file_offset(segment.vaddr, segment.filesz) == segment.offset


def _same_content(old: Side, new: Side, was: Phdr, now: Phdr) -> bool:
    """Compare a segment that is in memory by its address, any other (attributes, RISC-V) by its bytes."""
    if _in_place(old, was):
        return _in_place(new, now)
    return all(
        old.image.read(at, count) == new.image.read(now.offset + at - was.offset, count)
        for at, count in chunks(was.offset, was.filesz)
    )


def _count(side: Side, kind: int) -> int:
    return sum(p.type == kind for p in side.headers.phdrs)


def _phdr_table(new: Side) -> Iterator[str]:
    """See that the kernel and ld.so find the table: AT_PHDR, PT_PHDR."""
    headers = new.headers
    start, size = headers.ehdr.phoff, len(headers.phdr_bytes)
    holding = [p for p in headers.loads if p.offset <= start and start + size <= p.file_end]
    if not holding:
        yield "the program headers lie in no PT_LOAD"
        return
    address = start - holding[0].offset + holding[0].vaddr
    for segment in headers.phdrs:
        if segment.type == elf.PT_PHDR and (
            (segment.offset, segment.vaddr) != (start, address) or segment.memsz < size
        ):
            yield "PT_PHDR does not describe the program headers"
    first = headers.loads[0]
    if headers.interp_segment and address != first.vaddr - first.offset + start:
        # Linux before 5.18 tells a program load_addr + e_phoff (fs/binfmt_elf.c, create_elf_tables).
        yield "the program headers are not where kernels before 5.18 say they are"


def load_violations(old: Side, new: Side) -> Iterator[str]:
    """See to what the kernel and ld.so ask of PT_LOADs; every old one is there, new ones are data."""
    loads = new.headers.loads
    addresses = [p.vaddr for p in loads]
    if addresses != sorted(addresses):
        yield "PT_LOADs are not in ascending order"
    if any(one.memory_end > other.vaddr for one, other in itertools.pairwise(loads)):
        yield "PT_LOADs overlap"
    known: set[int] = set()
    for load in old.headers.loads:
        same = [p for p in loads if p.vaddr == load.vaddr]
        known.update(p.vaddr for p in same)
        if len(same) != 1 or not _grown(load, same[0]):
            yield f"the PT_LOAD at {load.vaddr:#x} is gone or no longer what it was"
    page = new.headers.machine.arch.max_page
    for load in loads:
        if load.vaddr not in known and load.flags & elf.PF_X:
            yield f"the new PT_LOAD at {load.vaddr:#x} is executable"
        if load.align > 1 and (load.offset - load.vaddr) % load.align:
            yield f"the PT_LOAD at {load.vaddr:#x}: offset and address differ modulo its alignment"
        if (load.offset - load.vaddr) % page and load.vaddr not in known:
            yield f"the new PT_LOAD at {load.vaddr:#x} cannot be mapped with the largest pages"
        if load.filesz and load.file_end > new.image.size:
            yield "a PT_LOAD reaches beyond the end of the file"
    yield from _pages(old, new, page)
    dynamic = new.headers.dynamic_segment
    if not any(
        p.flags & elf.PF_W and p.vaddr <= dynamic.vaddr and dynamic.memory_end <= p.memory_end for p in loads
    ):
        yield "PT_DYNAMIC lies in no writable PT_LOAD"


def _grown(before: Phdr, after: Phdr) -> bool:
    """Tell whether a segment is the old one, or the old one with more file behind its bytes."""
    if before.filesz < before.memsz:
        grown = before.filesz <= after.filesz <= after.memsz == before.memsz or (
            after.memsz > before.memsz and after.filesz == after.memsz
        )
    else:
        grown = after.filesz == after.memsz >= before.memsz
    return grown and (before.flags, before.align) == (after.flags, after.align)


def _pages(old: Side, new: Side, page: int) -> Iterator[str]:
    """No two PT_LOADs may share a page, unless they did or it is the same page of the file.

    The later one is mapped over the earlier. Where both map the same page of the file, that changes the
    page's permissions only: harmless for what has been put between the two, not for what the original has.
    """
    loads = new.headers.loads
    old_shared = {old.headers.loads[index].vaddr for index in shared_pages(old.headers)}
    for index in sorted(shared_pages(new.headers)):
        load, previous = loads[index], loads[index - 1]
        if load.vaddr in old_shared:
            continue
        ends = [p.memory_end for p in old.headers.loads if p.vaddr == previous.vaddr]
        apart = ends and (ends[0] - 1) // page < load.vaddr // page
        same_file = previous.offset - previous.vaddr == load.offset - load.vaddr
        if not (apart and same_file and load.flags & elf.PF_R):
            yield f"the PT_LOAD at {load.vaddr:#x} shares a page with the one before it"


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
