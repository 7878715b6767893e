"""Libraries that a file declares for dlopen(3) in an ELF note.

The note of owner FDO holds a JSON array; each entry has alternative names of one library, the preferred one
first, and a priority (https://uapi-group.org/specifications/specs/elf_dlopen_metadata/).
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator

from nixpatch.elf.headers import ElfFile
from nixpatch.elf.notes import note_segments, notes_in
from nixpatch.fs import can_be_path
from nixpatch.model import DlopenNeed, DlopenPriority

_OWNER = b"FDO\0"
_TYPE = 0x407C0C0A
_ENTRIES = 256
_ALTERNATIVES = 16  # each costs a lookup
_SONAME = 255  # bytes; NAME_MAX


def dlopen_needs(file: ElfFile) -> tuple[DlopenNeed, ...]:
    """Read the declared libraries. Notes that violate the specification are ignored."""
    needs = (
        need
        for segment, content in note_segments(file)
        if _OWNER in content
        for note in notes_in(content, segment.align, file.headers)
        if (note.owner, note.kind) == (_OWNER, _TYPE)
        for need in _needs(note.description)
    )
    return tuple(dict.fromkeys(itertools.islice(needs, _ENTRIES)))


def _needs(description: bytes) -> Iterator[DlopenNeed]:
    try:
        entries = json.loads(os.fsdecode(description.rstrip(b"\0")))
    except (ValueError, RecursionError):
        return
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        sonames = entry.get("soname")
        given = (name for name in sonames if _is_name(name)) if isinstance(sonames, list) else ()
        names = tuple(itertools.islice(given, _ALTERNATIVES))
        if names:
            yield DlopenNeed(names, _priority(entry.get("priority")))


def _is_name(name: object) -> bool:
    """Whether this can be a file name. JSON can also hold half a surrogate pair, which cannot."""
    return isinstance(name, str) and 0 < len(name) <= _SONAME and "/" not in name and can_be_path(name)


def _priority(text: object) -> DlopenPriority:
    try:
        return DlopenPriority(text)
    except ValueError:
        return DlopenPriority.RECOMMENDED  # the specification's default
