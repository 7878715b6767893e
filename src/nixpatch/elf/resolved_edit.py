"""What an edit comes to for one file: which dynamic entries and which interpreter it shall have."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nixpatch.elf import structs as elf
from nixpatch.elf.dynamic import Naming
from nixpatch.elf.headers import Headers
from nixpatch.elf.structs import Dyn
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, Linkage, Tag

_PATH_MAX = 4096
_SPARE = 4  # DT_NULL entries that a moved section offers to the next tool
TAG_NUMBERS = {Tag.RPATH: elf.DT_RPATH, Tag.RUNPATH: elf.DT_RUNPATH}
PATH_TAGS = frozenset(TAG_NUMBERS.values())


@dataclass(frozen=True, slots=True)
class Renamed:
    """A place that names a needed library and shall name another one."""

    naming: Naming
    new: bytes
    """without NUL"""


@dataclass(frozen=True, slots=True)
class Wish:
    """An edit in terms of the file."""

    search_path: bytes | None
    """the string to add to .dynstr; None adds none"""
    tag: Tag
    """the entry that shall hold it"""
    remove: bool
    """take every search path entry away"""
    interp: bytes | None
    """without NUL; None leaves PT_INTERP"""
    renamed: tuple[Renamed, ...] = ()
    """in file order: DT_NEEDED entries, then verneed records"""

    @property
    def nothing(self) -> bool:
        """The file is already as wished."""
        return self.search_path is None and not self.remove and self.interp is None and not self.renamed

    @property
    def strings(self) -> tuple[bytes, ...]:
        """What is added to .dynstr, in this order, each with a NUL: the search path, new names once each."""
        path = () if self.search_path is None else (self.search_path,)
        return (*path, *dict.fromkeys(place.new for place in self.renamed))

    def names_from(self, start: int) -> Mapping[bytes, int]:
        """Offset of each new name in a string table whose additions begin at offset ``start``."""
        found: dict[bytes, int] = {}
        for number, text in enumerate(self.strings):
            if self.search_path is None or number:
                found[text] = start
            start += len(text) + 1
        return found


@dataclass(frozen=True, slots=True)
class NewDynamic:
    """The dynamic section as it shall be, but for the place of the string table."""

    entries: tuple[Dyn, ...]
    moves: bool
    """there is no room for one more entry where it stands"""


def wish_of(headers: Headers, linkage: Linkage, edit: ElfEdit, namings: Sequence[Naming] = ()) -> Wish:
    """Compare an edit with the file. Raises ``FileRefused`` for what no file can have.

    ``namings`` are the places that name needed libraries (:func:`nixpatch.elf.dynamic.namings`); they count
    only for an edit that renames one.
    """
    for text, name in ((edit.search_path, "search path"), (edit.interp, "interpreter")):
        if text is not None and "\0" in text:
            raise FileRefused(f"the new {name} contains a NUL byte")
    return Wish(
        *_path_wish(headers, linkage, edit),
        _interp_wish(headers, linkage, edit),
        _renamed(edit, namings),
    )


def _renamed(edit: ElfEdit, namings: Sequence[Naming]) -> tuple[Renamed, ...]:
    new = {old: name for old, name in edit.renames if old != name}
    needed = {naming.name for naming in namings if naming.entry is not None}
    for old, name in new.items():
        if old not in needed:
            raise FileRefused(f"it does not need {old}, so that cannot be renamed")
        if not name or "\0" in name or len(os.fsencode(name)) >= _PATH_MAX:
            raise FileRefused(f"{name!r} cannot be the name of a needed library")
    return tuple(Renamed(naming, os.fsencode(new[naming.name])) for naming in namings if naming.name in new)


def _path_wish(headers: Headers, linkage: Linkage, edit: ElfEdit) -> tuple[bytes | None, Tag, bool]:
    tag = edit.tag or linkage.tag or Tag.RUNPATH
    entries = sum(entry.tag in PATH_TAGS for entry in headers.live)
    if edit.search_path is None:
        return None, tag, False
    if not edit.search_path:
        return None, tag, entries > 0
    if entries == 1 and edit.search_path == linkage.search_path and tag is linkage.tag:
        return None, tag, False
    return os.fsencode(edit.search_path), tag, False


def _interp_wish(headers: Headers, linkage: Linkage, edit: ElfEdit) -> bytes | None:
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


def new_dynamic(headers: Headers, wish: Wish, string: int, *, must_move: bool) -> NewDynamic:
    """Make the entries for a wish whose strings begin at offset ``string`` of the string table.

    An entry that goes leaves no hole: ld.so reads up to the first DT_NULL, and nothing but
    DT_MIPS_RLD_MAP_REL, which no supported machine has, points at a place in the section.
    """
    live = list(headers.live)
    names = wish.names_from(string)
    for place in wish.renamed:
        if place.naming.entry is not None:
            live[place.naming.entry] = Dyn(elf.DT_NEEDED, names[place.new])
    if wish.remove:
        live = [entry for entry in live if entry.tag not in PATH_TAGS]
    elif wish.search_path is not None:
        live = _set(live, wish, string)
    room = len(headers.live) + 1
    if len(live) + 1 > room:
        room = len(live) + 1
        spare = headers.dynamic[room - 1 : room]
        must_move = must_move or not spare or spare[0].tag != elf.DT_NULL
    if must_move:
        room = len(live) + 1 + _SPARE
    null = Dyn(elf.DT_NULL, 0)
    return NewDynamic((*live, *[null] * (room - len(live))), must_move)


def _set(live: list[Dyn], wish: Wish, string: int) -> list[Dyn]:
    """One entry with the wished tag, in the place of the one that counted so far."""
    places = [i for i, entry in enumerate(live) if entry.tag in PATH_TAGS]
    runpaths = [i for i in places if live[i].tag == elf.DT_RUNPATH]
    new = Dyn(TAG_NUMBERS[wish.tag], string)
    if not places:
        return [*live, new]
    kept = (runpaths or places)[-1]
    return [new if i == kept else entry for i, entry in enumerate(live) if i == kept or i not in places]
