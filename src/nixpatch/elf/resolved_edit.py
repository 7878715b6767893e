"""An edit resolved against one file: the byte strings and dynamic entries to write."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nixpatch.elf import structs as elf
from nixpatch.elf.dynamic import NeedReference, vn_file_ranges
from nixpatch.elf.edit_subject import EditSubject
from nixpatch.elf.headers import Headers
from nixpatch.elf.structs import Dyn
from nixpatch.elf.symbol_edit import ResolvedSymbols, resolve_symbols
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
class NeededEntry:
    """A DT_NEEDED entry of the edited file: one of the original, or a new one."""

    kept: int | None
    """index among the live entries of the original; None for a new entry"""
    name: bytes
    """without NUL; an entry that is kept already has it, or gets it as a rename"""


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
    needed: tuple[NeededEntry, ...] | None = None
    """all of DT_NEEDED, if entries are added or removed"""
    unneeded_versions: tuple[str, ...] = ()
    """names in verneed records that lose their DT_NEEDED entry"""
    soname: bytes | None = None
    flags_1: int = 0
    """bits to set in DT_FLAGS_1"""
    has_debug_tag: bool = False
    """add DT_DEBUG"""
    stack_flags: int | None = None
    """new p_flags of PT_GNU_STACK, or of a PT_NULL that becomes one"""
    os_abi: int | None = None
    symbols: ResolvedSymbols | None = None

    @property
    def is_noop(self) -> bool:
        """The file already is as the edit would make it."""
        return replace(self, unneeded_versions=()) == ResolvedEdit(
            None, self.tag, removes_search_path=False, interp=None
        )

    @property
    def changes_search(self) -> bool:
        """The edit changes what ld.so looks for, or in which directories."""
        has_path = self.search_path is not None or self.removes_search_path
        return has_path or bool(self.renames) or self.needed is not None

    @property
    def strings(self) -> tuple[bytes, ...]:
        """Strings to add to .dynstr, in this order, each with a NUL: search path, then each new name once."""
        search_path = () if self.search_path is None else (self.search_path,)
        names = [rename.name for rename in self.renames]
        names += [entry.name for entry in self.needed or () if entry.kept is None]
        names += [] if self.soname is None else [self.soname]
        names += [os.fsencode(name) for name in self.symbols.names.values()] if self.symbols else []
        return (*search_path, *dict.fromkeys(names))

    @property
    def overwritten(self) -> list[tuple[int, int, str]]:
        """Offset, length and name of what is overwritten beside the headers."""
        references = (rename.reference for rename in self.renames)
        ranges = [(start, length, "a version record") for start, length in vn_file_ranges(references)]
        return [*ranges, *(self.symbols.tables.ranges if self.symbols else ())]

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


def resolve_edit(headers: Headers, subject: EditSubject, edit: ElfEdit) -> ResolvedEdit:
    """Compare an edit with a file.

    Args:
        headers: headers of the original.
        subject: result of :func:`nixpatch.elf.edit_subject.read_subject` for the original and this edit.
        edit: the linkage that it is to have.

    Raises:
        FileRefused: no file, or not this one, can be edited like this.

    """
    for text, name in ((edit.search_path, "search path"), (edit.interp, "interpreter")):
        if text is not None and "\0" in text:
            raise FileRefused(f"the new {name} contains a NUL byte")
    manual, linkage = edit.manual, subject.linkage
    no_flag = manual.no_default_lib and not headers.values.get(elf.DT_FLAGS_1, 0) & elf.DF_1_NODEFLIB
    resolved = ResolvedEdit(
        *_resolve_search_path(headers, linkage, edit),
        _resolve_interp(headers, linkage, edit),
        _resolve_renames(edit, subject.references),
        needed=_resolve_needed(edit, subject.references),
        unneeded_versions=_unneeded_versions(edit, subject.references),
        soname=_resolve_soname(headers, subject, edit),
        flags_1=elf.DF_1_NODEFLIB if no_flag else 0,
        has_debug_tag=manual.debug_tag and elf.DT_DEBUG not in headers.values,
        stack_flags=_resolve_stack(headers, edit),
        os_abi=None if manual.os_abi == headers.ident[elf.EI_OSABI] else manual.os_abi,
        symbols=resolve_symbols(subject.symbols, manual) if subject.symbols else None,
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
        _refuse_name(new, "needed library")
    renamed = (reference for reference in references if reference.name in names)
    return tuple(RenamedNeed(reference, os.fsencode(names[reference.name])) for reference in renamed)


def _refuse_name(name: str, kind: str) -> None:
    if not name or "\0" in name or len(os.fsencode(name)) >= _PATH_MAX:
        raise FileRefused(f"{name!r} cannot be the name of a {kind}")


def _resolve_needed(edit: ElfEdit, references: Sequence[NeedReference]) -> tuple[NeededEntry, ...] | None:
    """Align the new DT_NEEDED with the old one, from the end: additions come first, as in patchelf."""
    if edit.manual.needed is None:
        return None
    for name in edit.manual.needed:
        _refuse_name(name, "needed library")
    names = dict(edit.renames)
    old = [(ref.entry, names.get(ref.name, ref.name)) for ref in references if ref.entry is not None]
    if tuple(name for _, name in old) == edit.manual.needed:
        return None
    entries: list[NeededEntry] = []
    end = len(old)
    for name in reversed(edit.manual.needed):
        index = next((index for index in reversed(range(end)) if old[index][1] == name), None)
        entries.append(NeededEntry(None if index is None else old[index][0], os.fsencode(name)))
        end = end if index is None else index
    return tuple(reversed(entries))


def _unneeded_versions(edit: ElfEdit, references: Sequence[NeedReference]) -> tuple[str, ...]:
    if edit.manual.needed is None:
        return ()
    was_needed = {reference.name for reference in references if reference.entry is not None}
    new = dict(edit.renames)
    files = (ref.name for ref in references if ref.entry is None and ref.name in was_needed)
    names = dict.fromkeys(new.get(name, name) for name in files)
    return tuple(name for name in names if name not in edit.manual.needed)


def _resolve_soname(headers: Headers, subject: EditSubject, edit: ElfEdit) -> bytes | None:
    name = edit.manual.soname
    if name is None or name == subject.soname:
        return None
    _refuse_name(name, "library")
    if headers.ehdr.type != elf.ET_DYN:
        raise FileRefused("it is a program with fixed addresses (ET_EXEC), which has no soname")
    return os.fsencode(name)


def _resolve_stack(headers: Headers, edit: ElfEdit) -> int | None:
    wanted, segment = edit.manual.executable_stack, headers.stack_segment
    if wanted is None or (segment and bool(segment.flags & elf.PF_X) is wanted):
        return None
    if segment is None and all(p.type != elf.PT_NULL for p in headers.phdrs):
        raise FileRefused("it has no PT_GNU_STACK and no PT_NULL that could become one: link it again")
    flags = segment.flags if segment else elf.PF_R | elf.PF_W
    return flags | elf.PF_X if wanted else flags & ~elf.PF_X


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
    offsets = resolved.name_offsets(string)
    live = _with_names(list(headers.live), resolved, offsets)
    if resolved.flags_1:
        live = _with_flags(live, resolved.flags_1)
    if resolved.has_debug_tag:
        live.append(Dyn(elf.DT_DEBUG, 0))
    if resolved.removes_search_path:
        live = [entry for entry in live if entry.tag not in SEARCH_PATH_TAGS]
    elif resolved.search_path is not None:
        live = _with_search_path(live, Dyn(TAG_NUMBERS[resolved.tag], string))
    room = len(headers.live) + 1
    if len(live) + 1 > room:
        spare = headers.dynamic[room : len(live) + 1]
        is_full = len(spare) < len(live) + 1 - room or any(entry.tag != elf.DT_NULL for entry in spare)
        hint = next((i for i, entry in enumerate(live) if entry.tag in elf.HINT_TAGS), None)
        last = live[-1].tag in SEARCH_PATH_TAGS and len(live) == room
        if is_full and not can_move and not must_move and hint is not None and last:
            live[hint] = live.pop()
            return NewDynamic((*live, Dyn(elf.DT_NULL, 0)), moves=False, replaces_hint=True)
        must_move = must_move or is_full
        room = len(live) + 1
    if must_move:
        room = len(live) + 1 + _SPARE
    null = Dyn(elf.DT_NULL, 0)
    return NewDynamic((*live, *[null] * (room - len(live))), must_move)


def _with_names(live: list[Dyn], resolved: ResolvedEdit, offsets: Mapping[bytes, int]) -> list[Dyn]:
    """Write DT_NEEDED and DT_SONAME."""
    for rename in resolved.renames:
        if rename.reference.entry is not None:
            live[rename.reference.entry] = Dyn(elf.DT_NEEDED, offsets[rename.name])
    if resolved.soname is not None:
        new = Dyn(elf.DT_SONAME, offsets[resolved.soname])
        index = _last(live, elf.DT_SONAME)
        live[index : index + 1] = [new]
    if resolved.needed is None:
        return live
    inserted: dict[int, list[Dyn]] = {}
    pending: list[Dyn] = []
    last = None  # the last entry that is kept; the first place in the section if there is none
    for need in resolved.needed:
        if need.kept is None:
            pending.append(Dyn(elf.DT_NEEDED, offsets[need.name]))
        else:
            inserted[need.kept], pending, last = pending, [], need.kept
    entries = [] if last is not None else pending
    for index, entry in enumerate(live):
        if entry.tag == elf.DT_NEEDED and index not in inserted:
            continue
        entries += [*inserted.get(index, []), entry, *(pending if index == last else [])]
    return entries


def _last(live: Sequence[Dyn], tag: int) -> int:
    """Return the index of the last entry with a tag, or the number of entries."""
    return max((index for index, entry in enumerate(live) if entry.tag == tag), default=len(live))


def _with_flags(live: list[Dyn], bits: int) -> list[Dyn]:
    index = _last(live, elf.DT_FLAGS_1)
    old = live[index].value if index < len(live) else 0
    return [*live[:index], Dyn(elf.DT_FLAGS_1, old | bits), *live[index + 1 :]]


def _with_search_path(live: list[Dyn], new: Dyn) -> list[Dyn]:
    """Replace the search path entry that ld.so used, and remove the others."""
    indexes = [i for i, entry in enumerate(live) if entry.tag in SEARCH_PATH_TAGS]
    runpaths = [i for i in indexes if live[i].tag == elf.DT_RUNPATH]
    if not indexes:
        return [*live, new]
    kept = (runpaths or indexes)[-1]
    return [new if i == kept else entry for i, entry in enumerate(live) if i == kept or i not in indexes]
