"""Holding an edited file against its original, before anybody is asked to trust it.

Invariants over words and bytes: linkage as wished, everything else as it was, a way back.

Invariants over the header tables: nothing but the listed fields may differ from the original's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from nixpatch.elf import dynamic
from nixpatch.elf import structs as elf
from nixpatch.elf.check_pair import SAMPLE, Pair, chunks, shared_pages
from nixpatch.elf.headers import Headers
from nixpatch.elf.resolved_edit import PATH_TAGS, TAG_NUMBERS
from nixpatch.elf.source import opened
from nixpatch.elf.structs import Phdr, Shdr
from nixpatch.elf.undo import Opened, State, look
from nixpatch.elf.unfit import Unfit
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, VersionNeed


def check(source: str | int, edited: str | int, edit: ElfEdit, *, deep: bool = False) -> tuple[str, ...]:
    """Say what is wrong with ``edited`` as the outcome of ``edit`` on ``source``; empty means nothing is.

    Both files are parsed anew; nothing of the plan or the writer is used. ``source`` is seen as its original,
    through its undo record, as the writer sees it. Headers, dynamic section, names, versions, string table
    and undo record are compared in full; segment contents, sections and appended data by samples from both
    ends, or in full with ``deep``, which reads both files once. ``source`` and ``edited`` are paths or
    descriptors that stay open.

    Raises ``FileRefused`` if ``source`` itself cannot be read as ELF, and ``OSError``.
    """
    with opened(source) as source_fd, opened(edited) as edited_fd:
        return check_seen(look(source_fd), edited_fd, edit, deep=deep)


def check_seen(before: Opened, edited: int, edit: ElfEdit, *, deep: bool = False) -> tuple[str, ...]:
    """Do what :func:`check` does for a source that was looked at and is still open."""
    try:
        after = look(edited)
    except Unfit as unfit:
        return (f"the result cannot be read: {unfit}",)
    pair = Pair.of(before, after, edit, deep=deep)
    if pair.wish.nothing:
        return () if same_file(pair) else ("nothing was wished, but the file is not the original",)
    groups = (
        header_violations(pair),
        load_violations(pair),
        section_violations(pair),
        linkage_violations(pair),
        dynamic_violations(pair),
        content_violations(pair),
        undo_violations(pair, before, after),
    )
    return tuple(violation for group in groups for violation in _all_of(group))


def _all_of(violations: Iterator[str]) -> Iterator[str]:
    """Pass violations on; what keeps a check from going on is one itself."""
    try:
        yield from violations
    except FileRefused as refused:
        yield f"the result contradicts itself: {refused}"


_STRING_TABLE = frozenset({elf.DT_STRTAB, elf.DT_STRSZ})


def linkage_violations(pair: Pair) -> Iterator[str]:
    """Search path, tag and interpreter as wished."""
    found = dynamic.linkage(pair.new_image, pair.new)
    tags = [entry.tag for entry in pair.new.live if entry.tag in PATH_TAGS]
    wished = pair.old_linkage.search_path if pair.edit.search_path is None else pair.edit.search_path
    if pair.edit.search_path == "":
        if tags:
            yield "a search path entry is left"
    elif found.search_path != wished:
        yield f"the search path is {found.search_path!r}, wished is {wished!r}"
    elif pair.edit.search_path is not None and tags != [TAG_NUMBERS[pair.wish.tag]]:
        yield f"not exactly one search path entry, with tag DT_{pair.wish.tag.value}"
    interp = pair.old_linkage.interp if pair.edit.interp is None else pair.edit.interp
    if found.interp != interp:
        yield f"the interpreter is {found.interp!r}, wished is {interp!r}"


def dynamic_violations(pair: Pair) -> Iterator[str]:
    """Every other dynamic entry, and the names and versions behind them, are what they were."""
    if pair.new.null_index is None:
        yield "the dynamic section has no DT_NULL"
    skipped = PATH_TAGS | _STRING_TABLE if _path_is_touched(pair) else _STRING_TABLE
    renamed = {place.naming.name: os.fsdecode(place.new) for place in pair.wish.renamed}
    names = dynamic.Names(pair.old_image, pair.old)
    before = [entry for entry in pair.old.live if entry.tag not in skipped]
    after = [entry for entry in pair.new.live if entry.tag not in skipped]
    if len(before) != len(after) or not all(
        one == other or (one.tag == other.tag == elf.DT_NEEDED and names.at(one.value) in renamed)
        for one, other in zip(before, after, strict=True)
    ):
        yield "a dynamic entry other than the search path and the string table changed"
    old, new = (pair.old_image, pair.old), (pair.new_image, pair.new)
    if [renamed.get(name, name) for name in dynamic.needed(*old)] != list(dynamic.needed(*new)):
        yield "DT_NEEDED changed" if not renamed else "DT_NEEDED is not what it was with the new names"
    versions = [
        VersionNeed(renamed.get(need.soname, need.soname), need.versions)
        for need in dynamic.version_needs(*old)
    ]
    if versions != list(dynamic.version_needs(*new)):
        yield "version needs changed"
    for name, read in (("DT_SONAME", dynamic.soname), ("version definitions", dynamic.version_defs)):
        if read(*old) != read(*new):
            yield f"{name} changed"
    kept = pair.footer.string_size if pair.footer else pair.old.string_size
    if pair.new.string_size < kept or any(
        pair.old_image.read(pair.old.string_offset + start, count)
        != pair.new_image.read(pair.new.string_offset + start, count)
        for start, count in chunks(0, min(kept, pair.new.string_size, pair.old.string_size))
    ):
        yield "the string table is not the old one with additions"


def content_violations(pair: Pair) -> Iterator[str]:
    """Compare the memory image of every PT_LOAD, and what stands behind the segments, byte for byte."""
    holes = pair.rewritten
    for load in pair.old.loads:
        length = min(load.filesz, max(pair.memory_end - load.vaddr, 0))
        if load.filesz and load.offset + length <= pair.new_image.size:
            at = pair.differ(load.offset, load.offset, length, holes)
            if at is not None:
                yield f"content of the PT_LOAD at {load.vaddr:#x} differs at offset {at:#x}"
    for tag, name in elf.ADDRESS_TAGS.items():
        address = pair.old.values.get(tag, -1)
        offset = pair.old.file_offset(address)
        if offset is not None and tag != elf.DT_STRTAB:
            length = min(SAMPLE, pair.cut - offset, pair.memory_end - address)
            if pair.differ(offset, offset, length, holes) is not None:
                yield f"what {name} points at differs"
    if not _bss_is_zero(pair):
        yield "memory that was .bss is not zero"
    behind = pair.old_image.size - pair.cut
    if behind > 0:
        at = pair.differ(pair.cut, pair.moved(pair.cut), behind, holes)
        if at is not None:
            yield f"what stands behind the segments differs at offset {at:#x} of the original"
    overlay = pair.old_image.size - pair.old.described_end
    if overlay > 0 and pair.new_image.size - pair.new.described_end != overlay:
        yield "the appended data is no longer the last thing in the file"


def undo_violations(pair: Pair, before: Opened, after: Opened) -> Iterator[str]:
    """See that the undo record leads back to the original."""
    if before.state is State.STALE:
        return  # there is no original to go back to, and the file says so
    if after.state is not State.INTACT or after.footer is None:
        yield "the undo record cannot be read back"
        return
    image, headers = after.original_image, after.original
    same = (
        image.size == pair.old_image.size
        and headers == pair.old
        and all(
            image.read(start, length) == pair.old_image.read(start, length)
            for start, length in pair.rewritten
        )
    )
    if not same:
        yield "the undo record does not give the original headers"
    if before.footer and before.footer.sha256 != after.footer.sha256:
        yield "the undo record holds another digest of the original"


def _path_is_touched(pair: Pair) -> bool:
    return (
        pair.wish.search_path is not None
        or pair.wish.remove
        or pair.memory_end < pair.old.last_load.memory_end
    )


def _bss_is_zero(pair: Pair) -> bool:
    load, after = pair.old.last_load, pair.new.last_load
    start = after.offset + load.filesz
    length = min(pair.memory_end - load.vaddr, after.filesz) - load.filesz
    if length <= 0:
        return True
    if not pair.deep and length > 2 * SAMPLE:
        ranges = [(start, SAMPLE), (start + length - SAMPLE, SAMPLE)]
    else:
        ranges = list(chunks(start, length))
    return all(pair.new_image.read(at, count).count(0) == count for at, count in ranges)


def same_file(pair: Pair) -> bool:
    """Whether the edited file is the original, byte for byte."""
    if pair.old_image.size != pair.new_image.size:
        return False
    return all(
        pair.old_image.read(at, count) == pair.new_image.read(at, count)
        for at, count in chunks(0, pair.old_image.size)
    )


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
