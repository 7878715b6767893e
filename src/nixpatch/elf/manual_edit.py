"""What ``nixpatch elf`` changed in a file, read from the file and its original."""

from __future__ import annotations

import os
from collections import Counter

from nixpatch.elf import structs as elf
from nixpatch.elf.dynamic import need_references, soname
from nixpatch.elf.headers import ElfFile, Headers
from nixpatch.elf.undo import ElfViews
from nixpatch.model import ManualEdit


def renames_and_manual_edit(views: ElfViews) -> tuple[tuple[tuple[str, str], ...], ManualEdit]:
    """Return renamed needs, as ``Linkage.renamed``, and the other differences of a file from its original.

    Raises:
        SkippedFile: one of the two contradicts itself.

    """
    old, new = views.original, views.current
    before, after = old.headers, new.headers
    renames: tuple[tuple[str, str], ...] = ()
    needed: tuple[str, ...] | None = None
    names: tuple[str | None, str | None] = (None, None)
    if _named(before) != _named(after):  # they are the same after most edits, and names take time to read
        renames, needed = _needs(old, new)
        names = soname(old), soname(new)
    abis = before.ident[elf.EI_OSABI], after.ident[elf.EI_OSABI]
    stacks = _executable_stack(before), _executable_stack(after)
    record = views.record
    return renames, ManualEdit(
        needed=needed,
        soname=None if names[0] == names[1] else names[1],
        os_abi=None if abis[0] == abis[1] else abis[1],
        executable_stack=None if stacks[0] == stacks[1] else stacks[1],
        no_default_lib=bool(
            (after.values.get(elf.DT_FLAGS_1, 0) & ~before.values.get(elf.DT_FLAGS_1, 0)) & elf.DF_1_NODEFLIB
        ),
        debug_tag=elf.DT_DEBUG in after.values and elf.DT_DEBUG not in before.values,
        renamed_symbols=tuple(
            (os.fsdecode(name), os.fsdecode(to)) for name, to in (record.renamed_symbols if record else ())
        ),
        unversioned_symbols=tuple(map(os.fsdecode, record.unversioned_symbols if record else ())),
    )


def _named(headers: Headers) -> list[tuple[int, int]]:
    """Return the places of needs and soname in the string table, whose old part no edit changes."""
    return [entry for entry in headers.live if entry.tag in {elf.DT_NEEDED, elf.DT_SONAME}]


def _places_of_needs(headers: Headers, others: Headers) -> list[int]:
    """Return where DT_NEEDED stands among the entries with tags that both files have equally often."""
    counts, other_counts = (Counter(entry.tag for entry in file.live) for file in (headers, others))
    tags = [entry.tag for entry in headers.live if counts[entry.tag] == other_counts[entry.tag]]
    return [index for index, tag in enumerate(tags) if tag == elf.DT_NEEDED]


def _executable_stack(headers: Headers) -> bool | None:
    return headers.stack_segment and bool(headers.stack_segment.flags & elf.PF_X)


def _needs(old: ElfFile, new: ElfFile) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...] | None]:
    """Return renames, and DT_NEEDED if they alone do not explain it.

    A rename changes DT_NEEDED and the version record, if there is one.
    """
    before, after = need_references(old), need_references(new)
    names = [
        [reference.name for reference in references if (reference.entry is not None) is is_entry]
        for is_entry in (True, False)
        for references in (before, after)
    ]
    old_needed, needed, old_files, files = names
    of_versions = dict(zip(old_files, files, strict=False))
    added = len(needed) - len(old_needed)
    places = (_places_of_needs(old.headers, new.headers), _places_of_needs(new.headers, old.headers))
    is_moved = added == 0 and places[0] != places[1]
    if added >= 0 and not is_moved:  # additions come first, and a rename moves no entry
        renames = dict(zip(old_needed, needed[added:], strict=True))
        if (
            all(renames.get(name, name) == to for name, to in of_versions.items())
            and [renames[name] for name in old_needed] == needed[added:]
        ):
            changed = tuple(sorted((name, to) for name, to in renames.items() if name != to))
            return changed, tuple(needed) if added else None
    renames = {name: to for name, to in of_versions.items() if name != to and name in old_needed}
    return tuple(sorted(renames.items())), tuple(needed)
