"""An edit resolved against one file: the byte strings and dynamic entries to write."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nixpatch.elf import structs as elf
from nixpatch.elf.dynamic import NeedReference
from nixpatch.elf.headers import Headers
from nixpatch.elf.structs import Dyn
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, Linkage, ResolutionCache, Tag

_PATH_MAX = 4096
_SPARE = 4  # DT_NULL entries that a moved section leaves to other tools
TAG_NUMBERS = {Tag.RPATH: elf.DT_RPATH, Tag.RUNPATH: elf.DT_RUNPATH}
SEARCH_PATH_TAGS = frozenset(TAG_NUMBERS.values())


@dataclass(frozen=True, slots=True)
class RenamedNeed:
    """A reference to a needed library and its new name."""

    reference: NeedReference
    name: bytes
    """without NUL"""


@dataclass(frozen=True, slots=True)
class ResolvedEdit:
    """The byte strings and dynamic entries to write. Parts that the file already has are left out."""

    search_path: bytes | None
    """string to add to .dynstr; None adds none"""
    tag: Tag
    """dynamic entry of ``search_path``"""
    removes_search_path: bool
    """remove every search path entry"""
    interp: bytes | None
    """without NUL; None leaves PT_INTERP alone"""
    renames: tuple[RenamedNeed, ...] = ()
    """in file order: DT_NEEDED entries, then verneed records"""
    resolution_cache: ResolutionCache | None = None
    """the cache to write, () to drop the one that is there; None leaves it alone"""

    @property
    def is_noop(self) -> bool:
        """The file already is as the edit would make it."""
        return not (self.changes_search or self.interp) and self.resolution_cache is None

    @property
    def changes_search(self) -> bool:
        """The edit changes what ld.so looks for, or in which directories."""
        return self.search_path is not None or self.removes_search_path or bool(self.renames)

    @property
    def strings(self) -> tuple[bytes, ...]:
        """Strings to add to .dynstr, in this order, each with a NUL: search path, then each new name once."""
        search_path = () if self.search_path is None else (self.search_path,)
        return (*search_path, *dict.fromkeys(rename.name for rename in self.renames))

    def name_offsets(self, start: int) -> Mapping[bytes, int]:
        """Map new names to offsets in a string table whose additions begin at offset ``start``."""
        offsets: dict[bytes, int] = {}
        for index, text in enumerate(self.strings):
            if self.search_path is None or index:
                offsets[text] = start
            start += len(text) + 1
        return offsets


@dataclass(frozen=True, slots=True)
class NewDynamic:
    """The edited dynamic section, with the old place of the string table."""

    entries: tuple[Dyn, ...]
    moves: bool
    """it does not fit into its old place"""
    replaces_hint: bool = False
    """the first search path has the place of one of ``HINT_TAGS``"""


def resolve_edit(
    headers: Headers, linkage: Linkage, edit: ElfEdit, references: Sequence[NeedReference] = ()
) -> ResolvedEdit:
    """Compare an edit with a file.

    Args:
        headers: headers of the original.
        linkage: linkage of the original.
        edit: the linkage that it is to have.
        references: result of :func:`nixpatch.elf.dynamic.need_references`, if the edit has renames.

    Raises:
        FileRefused: no file, or not this one, can be edited like this.

    """
    for text, name in ((edit.search_path, "search path"), (edit.interp, "interpreter")):
        if text is not None and "\0" in text:
            raise FileRefused(f"the new {name} contains a NUL byte")
    resolved = ResolvedEdit(
        *_resolve_search_path(headers, linkage, edit),
        _resolve_interp(headers, linkage, edit),
        _resolve_renames(edit, references),
    )
    cache = edit.resolution_cache
    if cache is None and resolved.changes_search:
        cache = ()  # the one that is there would be stale
    if cache is None or cache == linkage.resolution_cache:
        return resolved
    return replace(resolved, resolution_cache=cache)


def _resolve_renames(edit: ElfEdit, references: Sequence[NeedReference]) -> tuple[RenamedNeed, ...]:
    names = {old: new for old, new in edit.renames if old != new}
    needed = {reference.name for reference in references if reference.entry is not None}
    for old, new in names.items():
        if old not in needed:
            raise FileRefused(f"it does not need {old}, so that cannot be renamed")
        if not new or "\0" in new or len(os.fsencode(new)) >= _PATH_MAX:
            raise FileRefused(f"{new!r} cannot be the name of a needed library")
    renamed = (reference for reference in references if reference.name in names)
    return tuple(RenamedNeed(reference, os.fsencode(names[reference.name])) for reference in renamed)


def _resolve_search_path(headers: Headers, linkage: Linkage, edit: ElfEdit) -> tuple[bytes | None, Tag, bool]:
    tag = edit.tag or linkage.tag or Tag.RUNPATH
    entries = sum(entry.tag in SEARCH_PATH_TAGS for entry in headers.live)
    if edit.search_path is None:
        return None, tag, False
    if not edit.search_path:
        return None, tag, entries > 0
    if entries == 1 and edit.search_path == linkage.search_path and tag is linkage.tag:
        return None, tag, False
    return os.fsencode(edit.search_path), tag, False


def _resolve_interp(headers: Headers, linkage: Linkage, edit: ElfEdit) -> bytes | None:
    if edit.interp is None:
        return None
    if headers.interp_segment is None:
        raise FileRefused("it has no PT_INTERP, so it cannot get an interpreter")
    if edit.interp == linkage.interp:
        return None
    interp = os.fsencode(edit.interp)
    if not 1 <= len(interp) < _PATH_MAX:
        raise FileRefused(f"an interpreter of {len(interp)} bytes: the kernel takes 1 to {_PATH_MAX - 1}")
    return interp


def new_dynamic(
    headers: Headers, resolved: ResolvedEdit, string: int, *, must_move: bool, can_move: bool = True
) -> NewDynamic:
    """Make the dynamic entries of an edit whose strings begin at offset ``string`` of the string table.

    A removed entry leaves no gap: ld.so reads up to the first DT_NULL, and only DT_MIPS_RLD_MAP_REL, which no
    supported machine has, refers to a place in the section. Where a full section cannot move, the first
    search path takes the place of an entry that is only a hint.
    """
    live = list(headers.live)
    offsets = resolved.name_offsets(string)
    for rename in resolved.renames:
        if rename.reference.entry is not None:
            live[rename.reference.entry] = Dyn(elf.DT_NEEDED, offsets[rename.name])
    if resolved.removes_search_path:
        live = [entry for entry in live if entry.tag not in SEARCH_PATH_TAGS]
    elif resolved.search_path is not None:
        live = _with_search_path(live, Dyn(TAG_NUMBERS[resolved.tag], string))
    room = len(headers.live) + 1
    if len(live) + 1 > room:
        room = len(live) + 1
        spare = headers.dynamic[room - 1 : room]
        is_full = not spare or spare[0].tag != elf.DT_NULL
        hint = next((i for i, entry in enumerate(live) if entry.tag in elf.HINT_TAGS), None)
        if is_full and not can_move and not must_move and hint is not None:
            live[hint] = live.pop()
            return NewDynamic((*live, Dyn(elf.DT_NULL, 0)), moves=False, replaces_hint=True)
        must_move = must_move or is_full
    if must_move:
        room = len(live) + 1 + _SPARE
    null = Dyn(elf.DT_NULL, 0)
    return NewDynamic((*live, *[null] * (room - len(live))), must_move)


def _with_search_path(live: list[Dyn], new: Dyn) -> list[Dyn]:
    """Replace the search path entry that ld.so used, and remove the others."""
    indexes = [i for i, entry in enumerate(live) if entry.tag in SEARCH_PATH_TAGS]
    runpaths = [i for i in indexes if live[i].tag == elf.DT_RUNPATH]
    if not indexes:
        return [*live, new]
    kept = (runpaths or indexes)[-1]
    return [new if i == kept else entry for i, entry in enumerate(live) if i == kept or i not in indexes]
