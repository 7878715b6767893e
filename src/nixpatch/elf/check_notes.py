"""Checks of a PT_NOTE that moved, with its sections, to get or to lose a resolution cache."""

from __future__ import annotations

from collections.abc import Iterator

from nixpatch.elf import structs as elf
from nixpatch.elf.check_pair import FilePair
from nixpatch.elf.headers import ElfFile
from nixpatch.elf.notes import notes_in
from nixpatch.elf.resolution_cache import CACHE_TYPE, OWNER
from nixpatch.elf.structs import Phdr, Shdr

_NoteContent = tuple[bytes, int, bytes]


def note_violations(pair: FilePair) -> Iterator[str]:
    """Check that the PT_NOTE that moved holds the old notes, in order, and the cache behind them."""
    for offset, length in pair.cache_fields:
        if not pair.is_zero([(offset, length)]) and not pair.same_bytes(offset, offset, length):
            yield "a resolution cache that was there is neither as before nor zero"
    moved = list(moved_notes(pair))
    if not moved:
        return
    is_discarded = pair.memory_end < pair.old.headers.last_load.memory_end
    if len(moved) > 1 or not (pair.resolved.resolution_cache or is_discarded):
        yield "a PT_NOTE moved without a reason"
        return
    (before, after) = moved[0]
    if after.vaddr % max(after.align, 4):
        yield "the address of the PT_NOTE that moved is not aligned"
    kept = [note for note in _notes(pair.old, before) if note[:2] != (OWNER, CACHE_TYPE)]
    now = _notes(pair.new, after)
    if now[: len(kept)] != kept or len(now) - len(kept) > 1:
        yield "the PT_NOTE that moved does not hold the old notes"
        return
    # What the cache says, linkage_violations checks.
    for owner, kind, description in now[len(kept) :]:
        is_inert = not kept and (kind, description) == (0, b"")
        if owner != OWNER or not (kind == CACHE_TYPE or is_inert):
            yield "the PT_NOTE that moved holds another note than the cache"
    if before.filesz and pair.new.headers.shdrs and not _is_covered(pair, after):
        yield "no section covers the PT_NOTE that moved"


def note_section_ok(old: Phdr, new: Phdr, before: Shdr, after: Shdr) -> bool:
    """Whether a section of notes moved as its PT_NOTE did; only one that ends it may have grown."""
    is_inside = old.vaddr <= before.addr and before.addr + before.size <= old.memory_end
    if before.type != elf.SHT_NOTE or not is_inside:
        return False
    addr = before.addr - old.vaddr + new.vaddr
    place = before._replace(addr=addr, offset=new.offset + addr - new.vaddr)
    return after in {place, place._replace(size=new.memory_end - addr)}


def moved_notes(pair: FilePair) -> Iterator[tuple[Phdr, Phdr]]:
    """Yield each PT_NOTE that moved, as it was and as it is."""
    rows = zip(pair.old.headers.phdrs, pair.new.headers.phdrs, strict=False)
    return (row for row in rows if has_moved(pair, *row))


def has_moved(pair: FilePair, before: Phdr, after: Phdr) -> bool:
    """Whether a program header is a PT_NOTE in another place, or anew in an area that was discarded."""
    is_elsewhere = before.vaddr != after.vaddr or before.vaddr >= pair.memory_end
    return before.type == elf.PT_NOTE and before.memsz > 0 and is_elsewhere


def _notes(file: ElfFile, segment: Phdr) -> list[_NoteContent]:
    content = file.memory(segment.vaddr, segment.filesz) or b""
    return [(owner, kind, text) for owner, kind, text, *_ in notes_in(content, segment.align, file.headers)]


def _is_covered(pair: FilePair, segment: Phdr) -> bool:
    """Whether a section of notes ends with the segment, so that strip keeps all of it."""
    return any(
        section.type == elf.SHT_NOTE
        and segment.vaddr <= section.addr
        and section.addr + section.size == segment.memory_end
        for section in pair.new.headers.shdrs
    )
