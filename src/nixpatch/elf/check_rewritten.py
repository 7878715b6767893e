"""Checks of a file that another writer laid out anew against the original.

Unlike in :mod:`nixpatch.elf.check_inplace`, program headers may be added and moved. Instead, no address of
the original may move, and all memory must be the same except for header tables, dynamic section and
interpreter. All bytes are compared, not samples, because such a writer does not copy them by construction.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from nixpatch.elf import dynamic
from nixpatch.elf import structs as elf
from nixpatch.elf.check_pair import FilePair, collect, shared_pages
from nixpatch.elf.errors import SkippedFile
from nixpatch.elf.headers import ElfFile, Headers
from nixpatch.elf.image import chunks
from nixpatch.elf.resolved_edit import SEARCH_PATH_TAGS
from nixpatch.elf.structs import Phdr, Shdr
from nixpatch.elf.undo import open_source, open_views, views_of
from nixpatch.model import ElfEdit

_SKIPPED = SEARCH_PATH_TAGS | {elf.DT_STRTAB, elf.DT_STRSZ}
_SECTION_NAMES = 1 << 22  # bytes


def check_rewritten(source: str | int, rewritten: str | int, edit: ElfEdit) -> tuple[str, ...]:
    """Check that ``rewritten`` is the result of ``edit`` on the original of ``source``.

    Both are paths, or descriptors, which stay open. They are parsed anew and read once in full.

    Returns:
        a line for each violation.

    Raises:
        FileRefused: ``source`` is not a well-formed dynamic ELF file.
        OSError: a file cannot be read.

    """
    with open_views(source) as before, open_source(rewritten) as rewritten_fd:
        try:
            after = views_of(rewritten_fd)
        except SkippedFile as error:
            return (f"the result cannot be read: {error}",)
        pair = FilePair.of(before, after, edit, deep=True)
        old, new = pair.old, pair.new
        return collect(
            (
                _header_violations(old.headers, new.headers),
                _segment_violations(pair),
                pair.load_table_violations(),
                _load_violations(old.headers, new.headers),
                pair.linkage_violations(),
                _dynamic_violations(old, new),
                pair.string_table_violations(old.headers.string_size),
                _memory_violations(pair),
                _section_violations(pair),
                _overlay_violations(pair),
            )
        )


def _header_violations(old: Headers, new: Headers) -> Iterator[str]:
    """Check that the ELF header differs only in place and length of the tables."""
    free = {"phoff": 0, "shoff": 0, "phnum": 0, "shnum": 0, "shstrndx": 0}
    if old.ident != new.ident or old.ehdr._replace(**free) != new.ehdr._replace(**free):
        yield "the ELF header differs in more than the places of the tables"


def _dynamic_violations(old: ElfFile, new: ElfFile) -> Iterator[str]:
    """Check that all other dynamic entries are as before, in order. Strings are compared as strings."""
    if _entries(old) != _entries(new):
        yield "a dynamic entry other than the search path and the string table changed"
    for name in new.headers.unmapped_entries:
        yield f"{name} points outside all segments"


def _entries(file: ElfFile) -> list[tuple[int, int | str]]:
    return [
        (tag, dynamic.string_at(file, value) if tag in elf.STRING_TAGS else value)
        for tag, value in file.headers.live
        if tag not in _SKIPPED
    ]


def _memory_violations(pair: FilePair) -> Iterator[str]:
    """Compare memory, except for what the edit and the new place of the headers change."""
    old, new = pair.old, pair.new
    holes = sorted(_rewritten_addresses(old.headers))
    for load in old.headers.loads:
        for start, end in _without(load.vaddr, load.vaddr + load.filesz, holes):
            for address, length in chunks(start, end - start):
                if old.memory(address, length) != new.memory(address, length):
                    yield f"memory differs between {address:#x} and {address + length:#x}"
                    return
        for grown in new.headers.loads:
            if grown.vaddr == load.vaddr and grown.filesz > load.filesz:
                length = max(min(grown.filesz, load.memsz) - load.filesz, 0)
                if not pair.is_zero(chunks(grown.offset + load.filesz, length)):
                    yield "memory that was .bss is not zero"
                    return


def _rewritten_addresses(headers: Headers) -> Iterator[tuple[int, int]]:
    """Yield ``(address, length)`` of header tables, dynamic section and interpreter."""
    for offset, size, _ in headers.tables:
        for load in headers.loads:
            if load.offset <= offset < load.file_end:
                yield offset - load.offset + load.vaddr, size
    yield headers.dynamic_segment.vaddr, headers.dynamic_segment.filesz
    if headers.interp_segment:
        yield headers.interp_segment.vaddr, headers.interp_segment.filesz


def _without(start: int, end: int, holes: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the parts of a range outside sorted holes."""
    for hole, size in holes:
        if hole >= end or hole + size <= start:
            continue
        if hole > start:
            yield start, hole
        start = max(start, hole + size)
    if start < end:
        yield start, end


def _overlay_violations(pair: FilePair) -> Iterator[str]:
    """Check that appended data is still the end of the file."""
    start, size = pair.old.headers.described_end, pair.new.image.size
    length = pair.old.image.size - start
    if length <= 1:  # old versions of patchelf leave one byte behind
        return
    if length > size or not pair.same_bytes(start, size - length, length):
        yield "the appended data is no longer the last thing in the file"


def _segment_violations(pair: FilePair) -> Iterator[str]:
    """Check that each segment but PT_LOADs is there once, with the same memory, at the right offset."""
    old, new = pair.old.headers, pair.new.headers
    free = {elf.PT_LOAD, elf.PT_PHDR, elf.PT_DYNAMIC, elf.PT_INTERP}
    before = [p for p in old.phdrs if p.type not in free]
    after = [p for p in new.phdrs if p.type not in free]
    if [p._replace(offset=0) for p in before] != [p._replace(offset=0) for p in after]:
        yield "a program header other than PT_LOAD, PT_PHDR, PT_DYNAMIC and PT_INTERP changed"
    for first, second in zip(before, after, strict=False):
        if first.filesz and not _same_content(pair, first, second):
            yield f"the program header of type {second.type:#x} does not lead to the bytes it had"
    for kind in free - {elf.PT_LOAD}:
        if _count(old, kind) != _count(new, kind):
            yield f"the number of program headers of type {kind} changed"
    for segment in new.phdrs:
        if segment.type in {elf.PT_DYNAMIC, elf.PT_INTERP} and not _offset_fits(new, segment):
            yield f"the program header of type {segment.type} is not where its address is in the file"
    yield from _phdr_table_violations(new)


def _offset_fits(headers: Headers, segment: Phdr) -> bool:
    """Whether a segment's offset is that of its address."""
    return headers.file_offset(segment.vaddr, segment.filesz) == segment.offset


def _same_content(pair: FilePair, before: Phdr, after: Phdr) -> bool:
    """Compare a segment in memory by address, any other (such as RISC-V attributes) by content."""
    if _offset_fits(pair.old.headers, before):
        return _offset_fits(pair.new.headers, after)
    return pair.same_bytes(before.offset, after.offset, before.filesz)


def _count(headers: Headers, kind: int) -> int:
    return sum(p.type == kind for p in headers.phdrs)


def _phdr_table_violations(headers: Headers) -> Iterator[str]:
    """Check that kernel and ld.so find the table (AT_PHDR, PT_PHDR)."""
    start, size = headers.ehdr.phoff, len(headers.phdr_bytes)
    load = next((p for p in headers.loads if p.offset <= start and start + size <= p.file_end), None)
    if load is None:
        yield "the program headers lie in no PT_LOAD"
        return
    address = start - load.offset + load.vaddr
    for segment in headers.phdrs:
        if segment.type == elf.PT_PHDR and (
            (segment.offset, segment.vaddr) != (start, address) or segment.memsz < size
        ):
            yield "PT_PHDR does not describe the program headers"
    first = headers.loads[0]
    if headers.interp_segment and address != first.vaddr - first.offset + start:
        # Before 5.18, AT_PHDR is load_addr + e_phoff (fs/binfmt_elf.c, create_elf_tables).
        yield "the program headers are not where kernels before 5.18 say they are"


def _load_violations(old: Headers, new: Headers) -> Iterator[str]:
    """Check the rules of kernel and ld.so for PT_LOADs. Old ones must be there, new ones must be data."""
    loads = new.loads
    if any(load.memory_end > following.vaddr for load, following in itertools.pairwise(loads)):
        yield "PT_LOADs overlap"
    known: set[int] = set()
    for load in old.loads:
        same = [p for p in loads if p.vaddr == load.vaddr]
        known.update(p.vaddr for p in same)
        if len(same) != 1 or not _is_grown(load, same[0]):
            yield f"the PT_LOAD at {load.vaddr:#x} is gone or no longer what it was"
    page = new.machine.arch.max_page
    for load in loads:
        if load.vaddr not in known and load.flags & elf.PF_X:
            yield f"the new PT_LOAD at {load.vaddr:#x} is executable"
        if load.align > 1 and (load.offset - load.vaddr) % load.align:
            yield f"the PT_LOAD at {load.vaddr:#x}: offset and address differ modulo its alignment"
        if (load.offset - load.vaddr) % page and load.vaddr not in known:
            yield f"the new PT_LOAD at {load.vaddr:#x} cannot be mapped with the largest pages"
    yield from _page_violations(old, new, page)
    if not new.dynamic_is_writable:
        yield "PT_DYNAMIC lies in no writable PT_LOAD"


def _is_grown(before: Phdr, after: Phdr) -> bool:
    """Whether a segment is the old one, or the old one with more bytes at its end."""
    if before.filesz < before.memsz:
        grown = before.filesz <= after.filesz <= after.memsz == before.memsz or (
            after.memsz > before.memsz and after.filesz == after.memsz
        )
    else:
        grown = after.filesz == after.memsz >= before.memsz
    return grown and (before.flags, before.align) == (after.flags, after.align)


def _page_violations(old: Headers, new: Headers, page: int) -> Iterator[str]:
    """Check that no two PT_LOADs share a page, unless they did before or it is the same page of the file.

    The later one is mapped over the earlier. If both map the same page of the file, that only changes the
    page's permissions: harmless for what was added between the two, but not for the original's content.
    """
    old_shared = {old.loads[index].vaddr for index in shared_pages(old)}
    for index in sorted(shared_pages(new)):
        load, previous = new.loads[index], new.loads[index - 1]
        if load.vaddr in old_shared:
            continue
        ends = [p.memory_end for p in old.loads if p.vaddr == previous.vaddr]
        were_apart = ends and (ends[0] - 1) // page < load.vaddr // page
        same_page = previous.offset - previous.vaddr == load.offset - load.vaddr
        if not (were_apart and same_page and load.flags & elf.PF_R):
            yield f"the PT_LOAD at {load.vaddr:#x} shares a page with the one before it"


def _section_violations(pair: FilePair) -> Iterator[str]:
    """Compare section headers, and contents of sections without an address.

    Section names are compared as strings, because writers write that section anew.
    """
    old, new = pair.old.headers, pair.new.headers
    if not old.shdrs:
        return
    if len(old.shdrs) != len(new.shdrs):
        yield "the number of sections changed"
        return
    old_names, new_names = _section_names(pair.old), _section_names(pair.new)
    free = {"name": 0, "addr": 0, "offset": 0, "size": 0, "flags": 0}
    for index, (before, after) in enumerate(zip(old.shdrs, new.shdrs, strict=True)):
        if _name(old_names, before) != _name(new_names, after):
            yield f"section {index} has another name"
        if before._replace(**free) != after._replace(**free):
            yield f"section {index}: type, link, information, alignment or entry size changed"
        elif before.flags & elf.SHF_ALLOC:
            if not _allocated_ok(old, new, before, after):
                yield f"section {index} at {after.addr:#x}: address, offset or size is wrong"
        elif index != old.ehdr.shstrndx and not _same_section(pair, before, after):
            yield f"section {index} no longer has the bytes it had"


def _allocated_ok(old: Headers, new: Headers, before: Shdr, after: Shdr) -> bool:
    if before.type == elf.SHT_STRTAB and before.addr == old.values[elf.DT_STRTAB]:
        return (after.addr, after.offset) == (new.values[elf.DT_STRTAB], new.string_offset)
    if before.type == elf.SHT_DYNAMIC and before.addr == old.dynamic_segment.vaddr:
        segment = new.dynamic_segment
        return (after.addr, after.offset) == (segment.vaddr, segment.offset)
    old_interp, new_interp = old.interp_segment, new.interp_segment
    if old_interp and new_interp and (before.addr, before.size) == (old_interp.vaddr, old_interp.filesz):
        interp = (new_interp.vaddr, new_interp.offset, new_interp.filesz)
        return (after.addr, after.offset, after.size) == interp
    if (before.addr, before.size, before.flags) != (after.addr, after.size, after.flags):
        return False
    if before.type == elf.SHT_NOBITS or not before.size:
        return new.is_mapped(after.addr) or not old.is_mapped(before.addr)
    return new.file_offset(after.addr, after.size) == after.offset or (
        old.file_offset(before.addr, before.size) != before.offset
    )


def _same_section(pair: FilePair, before: Shdr, after: Shdr) -> bool:
    if not before.in_file:
        return True
    same = (before.size, before.addr, before.flags) == (after.size, after.addr, after.flags)
    return same and pair.same_bytes(before.offset, after.offset, before.size)


def _section_names(file: ElfFile) -> bytes:
    index = file.headers.ehdr.shstrndx
    if index >= len(file.headers.shdrs):
        return b""
    section = file.headers.shdrs[index]
    return file.image.read(section.offset, min(section.size, _SECTION_NAMES))


def _name(table: bytes, section: Shdr) -> bytes:
    end = table.find(b"\0", section.name)
    return table[section.name : end] if end >= 0 else b""
