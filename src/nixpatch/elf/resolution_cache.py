"""The resolution cache of a file: a note with the places of its needed libraries.

Its descriptor holds pairs of strings, each with a NUL: a name in DT_NEEDED and the places where to look for
it. An empty string ends it (:data:`nixpatch.model.ResolutionCache` names the sources). A loader reads it in
the first PT_NOTE that has one, by address.

No header is added for it: a PT_NOTE moves into the new area, its notes are copied, and the cache is the last
of them. The sections of that PT_NOTE move along, and the last one grows, because strip makes program headers
anew from sections. The PT_NOTE with the note of GNU properties stays, since PT_GNU_PROPERTY has to go with
its section. One with the build ID moves only if there is no other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from nixpatch.elf import structs as elf
from nixpatch.elf.headers import ElfFile, Headers
from nixpatch.elf.notes import TYPE_OFFSET, Note, note_segments, notes_in, pack_note
from nixpatch.elf.structs import Phdr, Shdr, round_up
from nixpatch.errors import FileRefused
from nixpatch.model import ResolutionCache

OWNER: Final = b"NixOS\0"
CACHE_TYPE: Final = 0x63A86CB6
_GNU: Final = b"GNU\0"
_BUILD_ID: Final = 3
_CANDIDATES: Final = 16
"""PT_NOTEs that may move; linkers make up to three, and each is compared with all sections"""
DESCRIPTION_LIMIT: Final = 1 << 18
"""bytes of a descriptor; a program with a hundred libraries in a hundred directories has some hundred kB"""


def is_cache(note: Note) -> bool:
    """Whether a note is a resolution cache."""
    return (note.owner, note.kind) == (OWNER, CACHE_TYPE)


def cache_of(file: ElfFile) -> ResolutionCache:
    """Return the resolution cache of a file, () without one.

    One that a loader would not take, because it does not end in two NULs, is a single pair without a name.
    """
    for segment, content in note_segments(file):
        if OWNER in content:
            for note in notes_in(content, segment.align, file.headers):
                if is_cache(note):
                    return _parse(note.description)
    return ()


def _parse(description: bytes) -> ResolutionCache:
    texts = [os.fsdecode(text) for text in description.split(b"\0")]
    pairs = tuple(zip(texts[:-2:2], texts[1:-2:2], strict=False))
    well_formed = texts[-2:] == ["", ""] and len(texts) % 2 == 0 and all(map(all, pairs))
    return pairs if pairs and well_formed else (("", os.fsdecode(description)),)


def description_of(cache: ResolutionCache) -> bytes:
    """Return the descriptor of a note that holds a cache."""
    return b"".join(os.fsencode(text) + b"\0" for pair in cache for text in pair) + b"\0"


def pack_cache(headers: Headers, cache: ResolutionCache) -> bytes:
    """Return the note that holds a cache.

    Raises:
        FileRefused: no note can hold it.

    """
    texts = [os.fsencode(text) for pair in cache for text in pair]
    description = description_of(cache)
    if not all(texts) or any(b"\0" in text for text in texts) or len(description) > DESCRIPTION_LIMIT:
        raise FileRefused("no note can hold this resolution cache")
    return pack_note(headers, OWNER, CACHE_TYPE, description)


@dataclass(frozen=True, slots=True)
class NoteSegment:
    """A PT_NOTE that can move, and its sections."""

    segment: Phdr
    sections: tuple[Shdr, ...]
    """sorted by address"""
    content: bytes
    """its notes without a cache, padded to 4 bytes"""

    def with_cache(self, headers: Headers, cache: ResolutionCache) -> bytes:
        """Return the content with a cache at its end."""
        # A PT_NOTE that only had a cache keeps an inert note: no tool expects an empty one.
        note = pack_cache(headers, cache) if cache or self.content else pack_note(headers, OWNER, 0, b"")
        return self.content + (note if cache or not self.content else b"")


@dataclass(frozen=True, slots=True)
class FileNotes:
    """What an edit needs to know of the notes of a file."""

    movable: NoteSegment | None = None
    """the PT_NOTE to which a cache can be added"""
    obstacle: str = "it has no PT_NOTE to which a note can be added without another program header"
    """why there is none"""
    fields: tuple[tuple[int, bytes], ...] = ()
    """(offset, bytes) in the image of type and descriptor of each cache: as zeros they are none any more"""

    def ranges(self, headers: Headers) -> Iterator[tuple[int, int]]:
        """Yield ``(offset, length)`` of ``fields`` outside code, where no edit writes."""
        return ((offset, len(old)) for offset, old in self.fields if old and not _is_code(headers, offset))


def read_notes(file: ElfFile) -> FileNotes:
    """Read the notes of a file, and choose the PT_NOTE that can move."""
    headers = file.headers
    candidates: list[tuple[int, NoteSegment]] = []
    obstacle = FileNotes().obstacle
    fields: dict[int, bytes] = {}
    for count, (segment, content) in enumerate(note_segments(file)):
        notes = tuple(notes_in(content, segment.align, headers))
        caches = [note for note in notes if is_cache(note)]
        for note in caches:
            fields[segment.offset + note.start + TYPE_OFFSET] = content[note.start + TYPE_OFFSET :][:4]
            fields[segment.offset + note.description_start] = note.description
        if count >= _CANDIDATES:
            continue
        try:
            movable = _movable(headers, segment, content, notes)
        except FileRefused as refused:
            obstacle = str(refused)
            continue
        has_build_id = any((note.owner, note.kind) == (_GNU, _BUILD_ID) for note in notes)
        candidates.append((0 if caches else 2 if has_build_id else 1, movable))
    best = min(candidates, key=lambda candidate: candidate[0], default=(0, None))[1]
    return FileNotes(best, obstacle, tuple(sorted(fields.items())))


def _movable(headers: Headers, segment: Phdr, content: bytes, notes: tuple[Note, ...]) -> NoteSegment:
    """Return a PT_NOTE as one that can move.

    Raises:
        FileRefused: it cannot.

    """
    if segment.align > 4:
        # That of GNU properties. mold puts all notes there, and loaders then take the others for misplaced.
        raise FileRefused("its PT_NOTE is aligned to 8 bytes, which a cache is not")
    end = notes[-1].end if notes else 0
    if not notes or any(content[end:]) or segment.memsz != segment.filesz:
        raise FileRefused("its PT_NOTE holds something else than notes")
    if headers.file_offset(segment.vaddr, segment.filesz) != segment.offset:
        raise FileRefused("its PT_NOTE lies in no PT_LOAD")
    passed = {elf.PT_LOAD, elf.PT_GNU_RELRO}
    others = [p for p in headers.phdrs if p is not segment and p.type not in passed]
    if any(_overlap(segment, p.vaddr, p.memsz) for p in others):
        raise FileRefused("another program header covers its notes, such as PT_GNU_PROPERTY")
    if any(_overlap(segment, headers.values.get(tag, -1), 1) for tag in elf.ADDRESS_TAGS):
        raise FileRefused("its dynamic section points into its notes")
    covering = [s for s in headers.shdrs if s.flags & elf.SHF_ALLOC and _overlap(segment, s.addr, s.size)]
    sections = sorted(covering, key=lambda section: section.addr)
    shift = segment.offset - segment.vaddr
    kept = next((note.start for note in notes if is_cache(note)), end)
    if headers.shdrs and not sections:
        raise FileRefused("no section covers its notes, so that strip would lose them")
    if any(
        section.type != elf.SHT_NOTE
        or not segment.vaddr <= section.addr <= section.addr + section.size <= segment.memory_end
        or section.offset - section.addr != shift
        for section in sections
    ):
        raise FileRefused("its notes and its sections do not agree")
    if any(s.addr - segment.vaddr > kept for s in sections[-1:]) or any(
        not is_cache(note) for note in notes if note.start >= kept
    ):
        raise FileRefused("its resolution cache is not the last of its notes")
    return NoteSegment(segment, tuple(sections), content[:kept].ljust(round_up(kept, 4), b"\0"))


def refuse_code(headers: Headers, offsets: Iterable[int]) -> None:
    """Refuse to overwrite notes that are mapped as code, as linkers placed them before -z separate-code.

    Raises:
        FileRefused: one of the offsets is.

    """
    if any(_is_code(headers, offset) for offset in offsets):
        raise FileRefused("its resolution cache lies in an executable segment, so it cannot be dropped")


def _is_code(headers: Headers, offset: int) -> bool:
    return any(p.flags & elf.PF_X and p.offset <= offset < p.file_end for p in headers.loads)


def _overlap(segment: Phdr, address: int, size: int) -> bool:
    return size > 0 and address < segment.memory_end and segment.vaddr < address + size


def obstacle(file: ElfFile) -> str | None:
    """Return why a file cannot get a resolution cache; None if it can."""
    notes = read_notes(file)
    return None if notes.movable is not None else notes.obstacle
