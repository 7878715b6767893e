"""Holding a file that another writer laid out anew against its original.

The set is its own, not the one of :mod:`nixpatch.elf.check_inplace`: here program headers may be added and
moved.
What must hold instead: no address of the original moves, and every byte of its memory is the same but for
header tables, dynamic section and interpreter. All bytes are compared, not samples: the writer copied nothing
by construction.
"""

from __future__ import annotations

from collections.abc import Iterator

from nixpatch.elf import dynamic
from nixpatch.elf import structs as elf
from nixpatch.elf.check_pair import chunks
from nixpatch.elf.check_rewritten_sections import section_violations
from nixpatch.elf.check_rewritten_segments import Side, load_violations, segment_violations
from nixpatch.elf.resolved_edit import PATH_TAGS, TAG_NUMBERS, wish_of
from nixpatch.elf.source import opened
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
