"""Checks of an in-place edit against the original.

Linkage is as the edit wants it, nothing else changed, only listed header fields differ, and the undo record
leads back.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace

from nixpatch.elf import dynamic
from nixpatch.elf import structs as elf
from nixpatch.elf.check_notes import has_moved, moved_notes, note_section_ok, note_violations
from nixpatch.elf.check_pair import SAMPLE, FilePair, collect, shared_pages
from nixpatch.elf.dynamic import linkage, string_at
from nixpatch.elf.errors import SkippedFile
from nixpatch.elf.headers import ElfFile
from nixpatch.elf.image import Patch, chunks
from nixpatch.elf.manual_edit import renames_and_manual_edit
from nixpatch.elf.resolved_edit import SEARCH_PATH_TAGS
from nixpatch.elf.structs import Dyn, Phdr, Shdr
from nixpatch.elf.undo import ElfViews, UndoState, open_source, open_views, views_of
from nixpatch.elf.undo_record import UndoFooter
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, ManualEdit, VersionNeed

_RELOCATIONS = 64 << 20  # bytes
_STRING_TABLE = frozenset({elf.DT_STRTAB, elf.DT_STRSZ})


def check(source: str | int, edited: str | int, edit: ElfEdit, *, deep: bool = False) -> tuple[str, ...]:
    """Check that ``edited`` is the result of ``edit`` on ``source``.

    Both files are parsed anew; nothing of the plan or the writer is used. ``source`` counts as its original.
    Headers, dynamic section, names, versions, string table and undo record are compared completely; contents
    of segments, sections and appended data by samples of both ends.

    Args:
        source: a path, or a descriptor, which stays open.
        edited: the same.
        edit: the linkage that ``edited`` is to have.
        deep: compare contents completely, reading both files once.

    Returns:
        a line for each violation.

    Raises:
        FileRefused: ``source`` is not a well-formed dynamic ELF file.
        OSError: a file cannot be read.

    """
    with open_views(source) as before, open_source(edited) as edited_fd:
        return check_views(before, edited_fd, edit, deep=deep)


def check_views(before: ElfViews, edited: int, edit: ElfEdit, *, deep: bool = False) -> tuple[str, ...]:
    """Do the work of :func:`check` for a source that is parsed and still open."""
    try:
        after = views_of(edited)
    except SkippedFile as error:
        return (f"the result cannot be read: {error}",)
    pair = FilePair.of(before, after, edit, deep=deep)
    if pair.resolved.is_noop:
        return () if _same_file(pair) else ("the edit changes nothing, but the file is not the original",)
    return collect(
        (
            _header_violations(pair),
            pair.load_table_violations(),
            _load_violations(pair),
            _section_violations(pair),
            pair.linkage_violations(),
            pair.string_table_violations(pair.kept_strings),
            _dynamic_violations(pair),
            _symbol_violations(pair),
            _content_violations(pair),
            note_violations(pair),
            _undo_violations(pair, before, after),
        )
    )


def undo_violations(views: ElfViews, *, strict: bool = False) -> tuple[str, ...]:
    """Check that the original in an undo record differs from the file by no more than an edit changes.

    The record itself proves nothing: any file may bring one. What these checks let it put back are header
    tables, the places of dynamic section, strings and interpreter, and names; code and data stay.

    Args:
        views: the file.
        strict: names in the string table count, too. They differ in a file that was damaged since.

    Returns:
        a line for each violation.

    """
    footer, old = views.footer, views.original
    if views.state is not UndoState.INTACT or footer is None:
        return ()
    try:
        pair = FilePair.of(replace(views, current=old), views, _edit_between(views), deep=False)
    except FileRefused as error:
        return (str(error),)
    names = (
        (
            pair.linkage_violations(),
            pair.string_table_violations(footer.string_size),
            _dynamic_violations(pair),
        )
        if strict
        else (_entry_violations(pair),)
    )
    return collect(
        (
            _record_violations(pair, footer, old.image.patches),
            _header_violations(pair),
            pair.load_table_violations(),
            _load_violations(pair),
            _section_violations(pair),
            _symbol_violations(pair),
            _content_violations(pair),
            note_violations(pair),
            *names,
        )
    )


def _search_paths(file: ElfFile) -> list[tuple[int, str]]:
    return [(tag, string_at(file, value)) for tag, value in file.headers.live if tag in SEARCH_PATH_TAGS]


def _readable_search_paths(file: ElfFile) -> list[tuple[int, str | int]]:
    """Return all search paths; of one that cannot be read, since ld.so takes a later entry, the offset."""
    texts: list[tuple[int, str | int]] = []
    for tag, value in file.headers.live:
        if tag in SEARCH_PATH_TAGS:
            try:
                texts.append((tag, string_at(file, value)))
            except FileRefused:
                texts.append((tag, value))
    return texts


def _edit_between(views: ElfViews) -> ElfEdit:
    """Return the edit that turns the original into the file."""
    old, new = views.original, views.current
    before, after = linkage(old), linkage(new)
    paths = [_readable_search_paths(file) for file in (old, new)]
    same_path = paths[0] == paths[1]
    renames, manual = renames_and_manual_edit(views)
    return ElfEdit(
        None if same_path else after.search_path or "",
        None if same_path else after.tag,
        None if after.interp == before.interp else after.interp,
        renames,
        None if after.resolution_cache == before.resolution_cache else after.resolution_cache,
        manual,
    )


def _symbol_violations(pair: FilePair) -> Iterator[str]:
    manual = pair.edit.manual
    if manual.renamed_symbols or manual.unversioned_symbols:
        # Imported here, because trees have no such files.
        from nixpatch.elf.check_symbols import symbol_violations  # noqa: PLC0415

        yield from symbol_violations(pair.old, pair.new, manual)


def _record_violations(pair: FilePair, footer: UndoFooter, patches: Iterable[Patch]) -> Iterator[str]:
    """Check where an undo record removes and overwrites bytes."""
    old, new = pair.old.headers, pair.new.headers
    load, grown = old.last_load, new.last_load
    if footer.cut != old.tail_start or footer.area < load.memory_end or footer.string_size != old.string_size:
        yield "the undo record removes other bytes than those behind the last segment"
        return
    if not pair.same_bytes(old.tail_start, old.tail_start, old.loads_end - old.tail_start):
        yield "the undo record changes the end of a segment"
    if not pair.is_zero([(grown.offset + load.filesz, load.memsz - load.filesz)]):
        yield "the undo record removes memory that is not zero"
    ranges = [(start, length) for start, length, _ in old.tables]
    ranges += [(start, length) for start, length, _ in pair.resolved.overwritten]
    ranges += pair.cache_fields
    if old.dynamic_segment.vaddr == new.dynamic_segment.vaddr:
        # By its address, as ld.so finds it: p_offset may be anything.
        ranges.append((old.dynamic_offset, len(old.dynamic_bytes)))
    before, after = old.interp_segment, new.interp_segment
    if before and after and before.vaddr == after.vaddr:
        ranges.append((before.offset, before.filesz))
    for patch in patches:
        end = patch.offset + len(patch.data)
        if not any(start <= patch.offset and end <= start + length for start, length in ranges):
            yield f"the undo record overwrites bytes at {patch.offset:#x} that no edit changes"
            return


def _same_file(pair: FilePair) -> bool:
    size = pair.old.image.size
    return size == pair.new.image.size and pair.same_bytes(0, 0, size)


def _dynamic_violations(pair: FilePair) -> Iterator[str]:
    """Check that all other dynamic entries, and their names and versions, are as before."""
    old, new = pair.old, pair.new
    renamed, manual = dict(pair.edit.renames), pair.edit.manual
    yield from _entry_violations(pair)
    needed = manual.needed
    if needed is None:
        needed = tuple(renamed.get(name, name) for name in dynamic.needed(old))
    if needed != dynamic.needed(new):
        yield "DT_NEEDED changed" if needed == dynamic.needed(old) else "DT_NEEDED is not what it should be"
    versions = [
        VersionNeed(renamed.get(need.soname, need.soname), need.versions)
        for need in dynamic.version_needs(old)
    ]
    if versions != list(dynamic.version_needs(new)):
        yield "version needs changed"
    if (manual.soname or dynamic.soname(old)) != dynamic.soname(new):
        yield "DT_SONAME changed" if manual.soname is None else "DT_SONAME is not the new one"
    if dynamic.version_defs(old) != dynamic.version_defs(new):
        yield "version definitions changed"


def _entry_violations(pair: FilePair) -> Iterator[str]:
    """Compare the entries that stay. A name that is new stands in what was added to the string table."""
    old, new, manual = pair.old, pair.new, pair.edit.manual
    skipped = SEARCH_PATH_TAGS | _STRING_TABLE if _path_is_rewritten(pair) else _STRING_TABLE
    hint, text = (
        _replaced_hint(pair),
        "a dynamic entry other than the search path and the string table changed",
    )
    before = [e for i, e in enumerate(old.headers.live) if e.tag not in skipped and i != hint]
    after = [entry for entry in new.headers.live if entry.tag not in skipped]
    if manual.needed is not None:
        kept = {entry.value for entry in before if entry.tag == elf.DT_NEEDED}
        added = {entry.value for entry in after if entry.tag == elf.DT_NEEDED} - kept
        if any(value < pair.kept_strings for value in added):
            yield "a new DT_NEEDED is in the old string table"
        before = [entry for entry in before if entry.tag != elf.DT_NEEDED]
        after = [entry for entry in after if entry.tag != elf.DT_NEEDED]
    tags = {entry.tag for entry in before}
    added_tags = {tag for tag in _added_tags(manual) if tag not in tags}
    new_entries = [entry for entry in after if entry.tag in added_tags]
    after = [entry for entry in after if entry.tag not in added_tags]
    if sorted(entry.tag for entry in new_entries) != sorted(added_tags):
        yield "a new dynamic entry is missing, or is there twice"
    if len(before) != len(after) or not all(
        first == second or _may_differ(pair, first, second)
        for first, second in zip(before, after, strict=True)
    ):
        yield text
    for entry in new_entries:
        if (entry.tag == elf.DT_DEBUG and entry.value) or (
            entry.tag == elf.DT_FLAGS_1 and entry.value != elf.DF_1_NODEFLIB
        ):
            yield "a new dynamic entry has another value"


def _added_tags(manual: ManualEdit) -> Iterator[int]:
    """Yield the tags of entries that an edit may add."""
    if manual.soname is not None:
        yield elf.DT_SONAME
    if manual.no_default_lib:
        yield elf.DT_FLAGS_1
    if manual.debug_tag:
        yield elf.DT_DEBUG


def _may_differ(pair: FilePair, before: Dyn, after: Dyn) -> bool:
    """Whether the edit changes the value of an entry like this."""
    if before.tag != after.tag:
        return False
    manual = pair.edit.manual
    if before.tag == elf.DT_FLAGS_1:
        return manual.no_default_lib and after.value == before.value | elf.DF_1_NODEFLIB
    if before.tag == elf.DT_SONAME:
        return manual.soname is not None and after.value >= pair.kept_strings
    names = {rename.reference.value for rename in pair.resolved.renames}
    return before.tag == elf.DT_NEEDED and before.value in names


def _replaced_hint(pair: FilePair) -> int | None:
    """Return the index of the ``HINT_TAGS`` entry whose place the first search path has; None if it may not.

    It may if the dynamic section has no room for another entry and cannot move, because the last PT_LOAD
    would become writable and executable.
    """
    old, new = pair.old.headers, pair.new.headers
    count, load = len(old.live), old.last_load
    has_room = any(entry.tag == elf.DT_NULL for entry in old.dynamic[count + 1 : count + 2])
    had_path = any(entry.tag in SEARCH_PATH_TAGS for entry in old.live)
    moved = new.dynamic_segment.vaddr != old.dynamic_segment.vaddr
    can_move = load.flags & elf.PF_W or not load.flags & elf.PF_X
    hints = [index for index, entry in enumerate(old.live) if entry.tag in elf.HINT_TAGS]
    if has_room or had_path or moved or can_move or len(hints) != 1 or len(new.live) != count:
        return None
    index = hints[0]
    is_replaced = new.live[index].tag in SEARCH_PATH_TAGS and _is_relative_count(pair.old, old.live[index])
    return index if is_replaced else None


def _is_relative_count(file: ElfFile, entry: Dyn) -> bool:
    """Whether a table starts with so many R_*_RELATIVE. With a wrong number, ld.so misreads the others."""
    headers, relative = file.headers, file.headers.machine.arch.relative
    has_addend = entry.tag == elf.DT_RELACOUNT
    table, length = (elf.DT_RELA, elf.DT_RELASZ) if has_addend else (elf.DT_REL, elf.DT_RELSZ)
    fields = ("3" if has_addend else "2") + ("Q" if headers.layout.bits == 64 else "I")
    record = struct.Struct(headers.layout.order + fields)
    size = entry.value * record.size
    if relative is None or not 0 < size <= min(headers.values.get(length, 0), _RELOCATIONS):
        return False
    data = file.memory(headers.values.get(table, -1), size)
    return data is not None and all(info == relative for _, info, *_ in record.iter_unpack(data))


def _path_is_rewritten(pair: FilePair) -> bool:
    if pair.resolved.search_path is not None or pair.resolved.removes_search_path:
        return True
    # Where patchelf shortens a path in its place, the old path may be the result, in a new string.
    added = (
        entry.tag in SEARCH_PATH_TAGS and entry.value >= pair.old.headers.string_size
        for entry in pair.new.headers.live
    )
    return any(added) or pair.memory_end < pair.old.headers.last_load.memory_end


def _content_violations(pair: FilePair) -> Iterator[str]:
    """Compare the memory image of every PT_LOAD, and what follows the segments."""
    old, new, holes = pair.old.headers, pair.new.headers, pair.rewritten
    for load in old.loads:
        length = min(load.filesz, max(pair.memory_end - load.vaddr, 0))
        if load.filesz and load.offset + length <= pair.new.image.size:
            offset = pair.first_difference(load.offset, load.offset, length, holes)
            if offset is not None:
                yield f"content of the PT_LOAD at {load.vaddr:#x} differs at offset {offset:#x}"
    for tag, name in elf.ADDRESS_TAGS.items():
        address = old.values.get(tag, -1)
        segment = next((p for p in old.loads if p.vaddr <= address < p.vaddr + p.filesz), None)
        if segment is not None and tag != elf.DT_STRTAB:
            # Up to the end of its PT_LOAD: in the file, another address may follow at once (lld, mold, gold).
            offset = address - segment.vaddr + segment.offset
            length = min(SAMPLE, segment.file_end - offset, pair.memory_end - address)
            if pair.first_difference(offset, offset, length, holes) is not None:
                yield f"what {name} points at differs"
    if not _bss_is_zero(pair):
        yield "memory that was .bss is not zero"
    behind = pair.old.image.size - pair.cut
    if behind > 0:
        offset = pair.first_difference(pair.cut, pair.moved(pair.cut), behind, holes)
        if offset is not None:
            yield f"what stands behind the segments differs at offset {offset:#x} of the original"
    overlay = pair.old.image.size - old.described_end
    if overlay > 0 and pair.new.image.size - new.described_end != overlay:
        yield "the appended data is no longer the last thing in the file"


def _bss_is_zero(pair: FilePair) -> bool:
    load, after = pair.old.headers.last_load, pair.new.headers.last_load
    start = after.offset + load.filesz
    length = min(pair.memory_end - load.vaddr, after.filesz) - load.filesz
    if length <= 0:
        return True
    if not pair.deep and length > 2 * SAMPLE:
        return pair.is_zero([(start, SAMPLE), (start + length - SAMPLE, SAMPLE)])
    return pair.is_zero(chunks(start, length))


def _undo_violations(pair: FilePair, before: ElfViews, after: ElfViews) -> Iterator[str]:
    """Check that the undo record leads back to the original."""
    if before.state is UndoState.STALE:
        return  # the original is lost, and the footer of the new file records that
    if after.state is not UndoState.INTACT or after.footer is None:
        yield "the undo record cannot be read back"
        return
    original = after.original
    same = (
        original.image.size == pair.old.image.size
        and original.headers == pair.old.headers
        and all(
            original.image.read(start, length) == pair.old.image.read(start, length)
            for start, length in pair.rewritten
        )
    )
    if not same:
        yield "the undo record does not give the original headers"
    if before.footer and before.footer.sha256 != after.footer.sha256:
        yield "the undo record holds another digest of the original"


def _header_violations(pair: FilePair) -> Iterator[str]:
    """Compare the ELF header and each program header."""
    old, new = pair.old.headers, pair.new.headers
    moved, ident = old.ehdr._replace(shoff=pair.moved(old.ehdr.shoff)), bytearray(old.ident)
    if pair.edit.manual.os_abi is not None:
        ident[elf.EI_OSABI] = pair.edit.manual.os_abi
    if ident != new.ident or moved != new.ehdr:
        yield "the ELF header differs in more than the place of the section headers"
    kinds = [p.type for p in old.phdrs]
    if pair.edit.manual.executable_stack is not None and elf.PT_GNU_STACK not in kinds:
        kinds[kinds.index(elf.PT_NULL)] = elf.PT_GNU_STACK
    if kinds != [p.type for p in new.phdrs]:
        yield "the program headers are not the same in number and order"
        return
    for index, (before, after) in enumerate(zip(old.phdrs, new.phdrs, strict=True)):
        if not _phdr_ok(pair, before, after):
            yield f"program header {index} (type {before.type:#x}) changed in a field that must stay"


def _load_violations(pair: FilePair) -> Iterator[str]:
    """Check the rules of kernel and ld.so for PT_LOADs that the original keeps."""
    old, new = pair.old.headers, pair.new.headers
    for load, after in zip(old.loads, new.loads, strict=False):
        if _is_congruent(load) and not _is_congruent(after):
            yield f"the PT_LOAD at {after.vaddr:#x}: offset and address differ modulo its alignment"
    for index in sorted(shared_pages(new) - shared_pages(old)):
        yield f"the PT_LOAD at {new.loads[index].vaddr:#x} shares a page with the one before it"
    if old.dynamic_is_writable and not new.dynamic_is_writable:
        yield "PT_DYNAMIC lies in no writable PT_LOAD"
    tolerated = old.unmapped_entries
    for name in new.unmapped_entries:
        if name not in tolerated:
            yield f"{name} points outside all segments"


def _section_violations(pair: FilePair) -> Iterator[str]:
    """Compare section headers, on which strip and debuggers rely."""
    old, new = pair.old.headers, pair.new.headers
    if len(old.shdrs) != len(new.shdrs):
        yield "the number of sections changed"
        return
    free = {"addr": 0, "offset": 0, "size": 0, "flags": 0}
    notes = next(moved_notes(pair), None)
    for index, (before, after) in enumerate(zip(old.shdrs, new.shdrs, strict=True)):
        if before._replace(**free) != after._replace(**free):
            yield f"section {index}: name, type, link, alignment or entry size changed"
        elif before.flags & elf.SHF_ALLOC:
            moved_along = notes is not None and note_section_ok(*notes, before, after)
            if not moved_along and not _allocated_ok(pair, before, after):
                yield f"section {index} at {after.addr:#x}: address, offset or size is wrong"
        elif after != (before._replace(offset=pair.moved(before.offset)) if before.in_file else before):
            yield f"section {index}: does not point at the bytes it had"


def _phdr_ok(pair: FilePair, before: Phdr, after: Phdr) -> bool:
    old = pair.old.headers
    moved = pair.dynamic_moved
    if before is old.last_load:
        flags = before.flags | (elf.PF_W if moved else 0)
        offset = before.offset if before.filesz else after.offset
        expected = before._replace(flags=flags, offset=offset, filesz=after.memsz, memsz=after.memsz)
        return after == expected and after.memory_end > pair.memory_end
    if before.type == elf.PT_LOAD:
        return after == before
    if after.type == elf.PT_GNU_STACK:
        return _stack_ok(pair, before, after)
    if before.type == elf.PT_DYNAMIC and moved:
        flags = before.flags | elf.PF_W
        return _in_area(pair, after) and (after.flags, after.align) == (flags, before.align)
    if before.type == elf.PT_INTERP and after.vaddr != before.vaddr:
        return _in_area(pair, after) and (after.flags, after.align) == (before.flags, before.align)
    if before.type == elf.PT_INTERP and pair.resolved.interp is not None:
        return after == before._replace(filesz=after.filesz, memsz=after.filesz)
    if has_moved(pair, before, after):
        return _in_area(pair, after) and (after.flags, after.align) == (before.flags, before.align)
    if before.filesz:
        return after == before._replace(offset=pair.moved(before.offset))
    return after == before


def _stack_ok(pair: FilePair, before: Phdr, after: Phdr) -> bool:
    """Whether only PF_X of PT_GNU_STACK changed, if the edit says so. A new one asks for nothing else."""
    wanted = pair.edit.manual.executable_stack
    if before.type == elf.PT_NULL:
        content = (after.offset, after.vaddr, after.filesz, after.memsz)
        return wanted is not None and after.flags == 6 + wanted and content == (0, 0, 0, 0)
    if wanted is None or before is not pair.old.headers.stack_segment:
        return after == before._replace(offset=after.offset)
    flags = before.flags & ~elf.PF_X | (elf.PF_X if wanted else 0)
    return after == before._replace(flags=flags, offset=after.offset)


def _in_area(pair: FilePair, segment: Phdr) -> bool:
    return (
        segment.vaddr >= pair.memory_end
        and segment.filesz == segment.memsz
        and pair.new.headers.file_offset(segment.vaddr, segment.filesz) == segment.offset
    )


def _is_congruent(load: Phdr) -> bool:
    return load.align <= 1 or (load.offset - load.vaddr) % load.align == 0


def _allocated_ok(pair: FilePair, before: Shdr, after: Shdr) -> bool:
    old, new = pair.old.headers, pair.new.headers
    if before.type == elf.SHT_STRTAB and before.addr == old.values[elf.DT_STRTAB]:
        table = (new.values[elf.DT_STRTAB], new.string_offset, new.values[elf.DT_STRSZ])
        return (after.addr, after.offset, after.size) == table and after.flags == before.flags
    if before.type == elf.SHT_DYNAMIC and before.addr == old.dynamic_segment.vaddr:
        segment = new.dynamic_segment
        if not pair.dynamic_moved:
            return after == before
        table = (segment.vaddr, segment.offset, segment.filesz)
        return (after.addr, after.offset, after.size) == table and after.flags == before.flags | elf.SHF_WRITE
    old_interp, new_interp = old.interp_segment, new.interp_segment
    if old_interp and new_interp and (before.addr, before.size) == (old_interp.vaddr, old_interp.filesz):
        addr, offset, size = new_interp.vaddr, new_interp.offset, new_interp.filesz
        return after == before._replace(addr=addr, offset=offset, size=size)
    if before.type == elf.SHT_NOBITS:
        load = new.last_load
        in_load = after.offset == load.offset + after.addr - load.vaddr
        return after == before._replace(offset=after.offset) and (in_load or after.offset == before.offset)
    return after == before or (before.size > 0 and after == before._replace(offset=pair.moved(before.offset)))
