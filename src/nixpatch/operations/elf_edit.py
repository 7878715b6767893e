"""Edit single files with the semantics of patchelf. RECORD and provenance are neither read nor updated."""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO, Final

from nixpatch import elf
from nixpatch.elf.headers import stack_and_system
from nixpatch.elf.image import Image
from nixpatch.elf.inplace_writer import write_original
from nixpatch.elf.symbol_tables import read_symbol_tables
from nixpatch.elf.undo import open_source, open_views
from nixpatch.elf.writer import write_checked
from nixpatch.errors import FileRefused, RequestError
from nixpatch.fs import granted_to_contents, is_stream, replacement, streamed, sweep, write_all
from nixpatch.model import ElfEdit, ElfFacts, Linkage, ManualEdit, ResolutionCache, Skip, SkipReason, Tag
from nixpatch.operations.signatures import broken_signatures, text_of_dropped

_OS_ABIS: Final = {
    0: ("System V", "system-v", "sysv"),
    1: ("HP-UX",),
    2: ("NetBSD",),
    3: ("Linux", "gnu"),
    4: ("GNU Hurd", "gnu-hurd", "hurd"),
    6: ("Solaris",),
    7: ("AIX",),
    8: ("IRIX",),
    9: ("FreeBSD",),
    10: ("Tru64",),
    12: ("OpenBSD",),
    13: ("OpenVMS",),
}
"""values of EI_OSABI (gABI, ELF header): the name that patchelf prints, and others that it accepts"""


def os_abi_name(number: int) -> str:
    """Return the name of a value of EI_OSABI."""
    names = _OS_ABIS.get(number)
    return names[0] if names else f"0x{number:02X}"


def os_abi_number(name: str) -> int:
    """Return the value of EI_OSABI for a name, in any case.

    Raises:
        RequestError: there is no such name.

    """
    wanted = name.strip().lower()
    for number, names in _OS_ABIS.items():
        if wanted in map(str.lower, names):
            return number
    known = ", ".join(names[0] for names in _OS_ABIS.values())
    raise RequestError(f"{name!r} is no OS ABI; known are {known}")


class PathAction(enum.Enum):
    """What to do with the search path."""

    KEEP = enum.auto()
    SET = enum.auto()
    ADD = enum.auto()
    REMOVE = enum.auto()
    SHRINK = enum.auto()


@dataclass(frozen=True, slots=True)
class FileChange:
    """The changes that one command line makes to each of its files."""

    path: PathAction = PathAction.KEEP
    entries: str = ""
    """the entries to set or add"""
    prefixes: tuple[str, ...] = ()
    """for ``SHRINK``: remove absolute entries that begin with none of these; empty keeps all"""
    rpath: bool = False
    """write DT_RPATH instead of DT_RUNPATH"""
    interp: str | None = None
    needs: tuple[tuple[str, str], ...] = ()
    """(old name, new name) of DT_NEEDED entries; the last of several for one name counts"""
    removed_needs: tuple[str, ...] = ()
    added_needs: tuple[str, ...] = ()
    soname: str | None = None
    os_abi: int | None = None
    """EI_OSABI"""
    executable_stack: bool | None = None
    no_default_lib: bool = False
    debug_tag: bool = False
    symbols: tuple[tuple[str, str], ...] | None = None
    """(old name, new name) of dynamic symbols; each old name once; None without a list of names"""
    unversioned_symbols: tuple[str, ...] = ()

    resolution_cache: bool = False
    """write a resolution cache, whether or not the file has one"""

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return replace(self, prefixes=(), rpath=False) == FileChange()


def facts_of(path: str, *, payload_ok: bool) -> ElfFacts:
    """Read a file; ``payload_ok`` also reads programs with appended data.

    Raises:
        FileRefused: it is no ELF file that can be edited.
        OSError: it cannot be read.

    """
    facts = elf.read(path, payload_ok=payload_ok, any_os=True)
    if isinstance(facts, Skip):
        raise FileRefused(facts.text)
    return facts


def stack_and_system_of(path: str) -> tuple[bool | None, int]:
    """Return whether a program or library, static or not, wants an executable stack, and its EI_OSABI.

    Raises:
        FileRefused: it is neither.
        OSError: it cannot be read.

    """
    with open_source(path) as descriptor:
        return stack_and_system(Image.of(descriptor))


def payload_of(path: str) -> str | None:
    """Describe the data appended to a program, None without any.

    Raises:
        OSError: the file cannot be read.

    """
    facts = elf.read(path)
    return facts.detail if isinstance(facts, Skip) and facts.reason is SkipReason.PAYLOAD else None


def edit_of(
    facts: ElfFacts,
    change: FileChange,
    has: Callable[[str, str], bool],
    cache_for: Callable[[tuple[str, ...], Linkage], ResolutionCache] = lambda *_: (),
    symbols: Collection[str] = (),
) -> ElfEdit | None:
    """Return the complete edit for a change; None if the file has the result already.

    An :class:`ElfEdit` starts from the original file, a command line from the current one: values that it
    does not change stay as they are now. As in patchelf, a written search path becomes DT_RUNPATH unless
    ``--force-rpath`` is given.

    Args:
        facts: of the file.
        change: what the command line asks for.
        has: ``has(directory, name)`` is whether a directory has a library for this file.
        cache_for: ``cache_for(needed, linkage)`` is the resolution cache of a file with these needs and this
            linkage: a file that has one gets it anew where the old one would be stale.
        symbols: names of the dynamic symbols, if the change has symbols.

    """
    now, was = facts.current, facts.original
    path, tag = now.search_path, now.tag
    match change.path:
        case PathAction.KEEP:
            pass
        case PathAction.REMOVE:
            path = None
        case PathAction.SET:
            path = change.entries
        case PathAction.ADD:
            path = ":".join(part for part in (path, change.entries) if part)
        case PathAction.SHRINK:
            path = shrunk(path or "", facts.needed, has, change.prefixes)
    path = path or None
    if path is None:
        tag = None
    elif change.path is not PathAction.KEEP:
        tag = Tag.RPATH if change.rpath else Tag.RUNPATH
    interp = now.interp if change.interp is None else change.interp
    renames = renamed(facts, dict(change.needs))
    settled = not facts.both_tags or change.path is PathAction.KEEP
    manual = manual_edit_of(facts, change, symbols)
    same_search = (path, tag) == (now.search_path, now.tag) and renames == now.renamed
    same_search &= manual.needed == facts.manual.needed
    cache = now.resolution_cache
    if change.resolution_cache or (cache and not same_search):
        names, needed = dict(change.needs), manual.needed
        if needed is None:
            needed = tuple(names.get(name, name) for name in facts.needed)
        cache = cache_for(needed, Linkage(path, tag, interp, renames))
    is_kept = same_search and manual == facts.manual and settled
    if is_kept and (interp, cache) == (now.interp, now.resolution_cache):
        return None
    as_it_was = (path, tag) == (was.search_path, was.tag) and settled
    return ElfEdit(
        None if as_it_was else path or "",
        None if as_it_was else tag,
        None if interp == was.interp else interp,
        renames=renames,
        resolution_cache=cache,
        manual=manual,
    )


def manual_edit_of(facts: ElfFacts, change: FileChange, symbols: Collection[str]) -> ManualEdit:
    """Return all changes, those of earlier command lines included, of what the linkage does not cover."""
    now = facts.manual
    stack = change.executable_stack
    return ManualEdit(
        needed=_needed(facts, change),
        soname=now.soname if change.soname in {None, facts.soname} else change.soname,
        os_abi=now.os_abi if change.os_abi in {None, facts.os_abi} else change.os_abi,
        executable_stack=now.executable_stack if stack in {None, facts.executable_stack} else stack,
        no_default_lib=now.no_default_lib or (change.no_default_lib and not facts.no_default_lib),
        debug_tag=now.debug_tag or (change.debug_tag and not facts.debug_tag),
        renamed_symbols=_renamed_symbols(now, dict(change.symbols or ()), symbols),
        unversioned_symbols=_unversioned_symbols(now, change, symbols),
    )


def _needed(facts: ElfFacts, change: FileChange) -> tuple[str, ...] | None:
    """Remove, rename, then add, as patchelf does: sorted, and first. A name that is there is not added."""
    removed, names = set(change.removed_needs), dict(change.needs)
    kept = [names.get(name, name) for name in facts.needed if name not in removed]
    added = sorted(set(change.added_needs) - set(kept), key=os.fsencode)
    if not added and len(kept) == len(facts.needed) and facts.manual.needed is None:
        return None
    return (*added, *kept)


def _renamed_symbols(
    now: ManualEdit, names: Mapping[str, str], symbols: Collection[str]
) -> tuple[tuple[str, str], ...]:
    """Return all new names of symbols by original name; a name of an earlier edit may get another one."""
    earlier = dict(now.renamed_symbols)
    pairs = {old: names.get(new, new) for old, new in earlier.items()}
    pairs |= {old: new for old, new in names.items() if old in symbols and old not in earlier}
    return tuple(sorted((old, new) for old, new in pairs.items() if old != new))


def _unversioned_symbols(now: ManualEdit, change: FileChange, symbols: Collection[str]) -> tuple[str, ...]:
    """Return the original names of all symbols without their version."""
    earlier, names = dict(now.renamed_symbols), set(change.unversioned_symbols)
    original = {old for old, new in earlier.items() if new in names}
    original |= {name for name in names if name in symbols and name not in earlier}
    return tuple(sorted({*now.unversioned_symbols, *original}))


def symbol_names(path: str) -> frozenset[str]:
    """Read the names of a file's dynamic symbols.

    Raises:
        FileRefused: its symbols contradict each other.
        OSError: it cannot be read.

    """
    with open_views(path) as views:
        return frozenset(read_symbol_tables(views.current).names)


def renamed(facts: ElfFacts, names: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return all renames of the file's needs after those of ``names``: (original name, name).

    As in patchelf, all are made at once, so that two may swap names, and a file that does not need a name is
    not changed.
    """
    pairs = {(was, names.get(now, now)) for was, now in zip(original_needs(facts), facts.needed, strict=True)}
    known = set(facts.original_needed) if facts.manual.needed is not None else {was for was, _ in pairs}
    return tuple(sorted((was, now) for was, now in pairs if was != now and was in known))


def original_needs(facts: ElfFacts) -> tuple[str, ...]:
    """Return the names of the needs before any edit."""
    back = {now: was for was, now in facts.current.renamed}
    return tuple(back.get(need, need) for need in facts.needed)


def shrunk(
    search_path: str, needed: Iterable[str], has: Callable[[str, str], bool], prefixes: Iterable[str] = ()
) -> str:
    """Remove the absolute directories that are not the first to have a needed library.

    This is patchelf's ``--shrink-rpath``: entries that do not begin with a slash stay, unless they are empty.
    With ``prefixes``, absolute entries that begin with none of them are removed, too.
    """
    prefixes = tuple(prefixes)
    missing = dict.fromkeys(needed)
    kept: list[str] = []
    for entry in search_path.split(":"):
        if not entry.startswith("/"):
            kept += [entry] if entry else []
            continue
        if prefixes and not entry.startswith(prefixes):
            continue
        served = [name for name in missing if has(entry, name)]
        if served:
            kept.append(entry)
        for name in served:
            del missing[name]
    return ":".join(kept)


def library_finder(facts: ElfFacts) -> Callable[[str, str], bool]:
    """Return ``has(directory, name)``: whether a directory has a library for this file's machine."""

    def has(directory: str, name: str) -> bool:
        try:
            machine = elf.machine_of_library(os.path.realpath(os.path.join(directory, name)))
        except OSError:
            return False
        return machine == facts.machine

    return has


def apply_edit(source: str, output: str | BinaryIO, edit: ElfEdit | None) -> tuple[str, ...]:
    """Write the edited file, or without an edit a copy.

    Args:
        source: the file.
        output: a path, which may be ``source``, of a file to replace or of a pipe or device to write to; or
            an open stream.
        edit: the edit.

    Returns:
        notes for the user.

    Raises:
        FileRefused: the file cannot be edited safely; ``output`` is unchanged.
        OSError: a file cannot be read or written; ``output`` is unchanged.

    """
    dropped = _dropped(source)
    with _destination(source, output) as temp:
        if edit is None:
            _copy(source, temp)
            notes: tuple[str, ...] = ()
        else:
            with open_source(source) as descriptor:
                checked = write_checked(descriptor, temp, edit)
            result = checked.result
            if not result.changed and elf.original_sha256(temp) != result.original_sha256:
                raise FileRefused(
                    "another tool changed it after the last edit: its original cannot be restored"
                )
            notes = (*result.notes, *([f"not in place: {checked.declined}"] if checked.declined else ()))
    signed = broken_signatures(output) if isinstance(output, str) and edit is not None else ()
    return (*notes, *dropped, *signed)


def restore(source: str, output: str | BinaryIO) -> tuple[str, ...]:
    """Write the original of ``source``; ``output`` is as in :func:`apply_edit`.

    Returns:
        notes for the user.

    Raises:
        FileRefused: there is no intact undo record; ``output`` is unchanged.
        OSError: a file cannot be read or written; ``output`` is unchanged.

    """
    dropped = _dropped(source)
    with _destination(source, output) as temp:
        write_original(source, temp)
    return dropped


@contextlib.contextmanager
def _destination(source: str, output: str | BinaryIO) -> Iterator[int]:
    """Yield a descriptor of an empty file whose contents end up in ``output`` unless the block raises."""
    if not isinstance(output, str) or is_stream(output):
        with streamed(output) as temp:
            yield temp
        return
    real = os.path.realpath(output)
    sweep(real)
    with replacement(real, mode=_mode_for(source, real)) as temp:
        yield temp


def _dropped(source: str) -> tuple[str, ...]:
    with open(source, "rb") as file:
        dropped = granted_to_contents(file.fileno())
    return (text_of_dropped(dropped),) if dropped else ()


def _copy(source: str, temp: int) -> None:
    with open(source, "rb") as file:
        while data := file.read(1 << 20):
            write_all(temp, data)


def _mode_for(source: str, output: str) -> int | None:
    """Return the permissions of the source for an output of another name, else None."""
    return None if output == source else os.stat(source).st_mode & 0o777
