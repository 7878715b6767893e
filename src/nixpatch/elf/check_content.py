"""Invariants over words and bytes: linkage as wished, everything else as it was, a way back."""

from __future__ import annotations

import os
from collections.abc import Iterator

from nixpatch.elf import dynamic
from nixpatch.elf import structs as elf
from nixpatch.elf.check_pair import SAMPLE, Pair, chunks
from nixpatch.elf.resolved_edit import PATH_TAGS, TAG_NUMBERS
from nixpatch.elf.undo import Opened, State
from nixpatch.model import VersionNeed

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
