"""Holding an edited file against its original, before anybody is asked to trust it."""

from __future__ import annotations

from collections.abc import Iterator

from nixpatch.elf.check_content import (
    content_violations,
    dynamic_violations,
    linkage_violations,
    same_file,
    undo_violations,
)
from nixpatch.elf.check_headers import header_violations, load_violations, section_violations
from nixpatch.elf.check_pair import Pair
from nixpatch.elf.source import opened
from nixpatch.elf.undo import Opened, look
from nixpatch.elf.unfit import Unfit
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit


def check(source: str | int, edited: str | int, edit: ElfEdit, *, deep: bool = False) -> tuple[str, ...]:
    """Say what is wrong with ``edited`` as the outcome of ``edit`` on ``source``; empty means nothing is.

    Both files are parsed anew; nothing of the plan or the writer is used. ``source`` is seen as its original,
    through its undo record, as the writer sees it. Headers, dynamic section, names, versions, string table
    and undo record are compared in full; segment contents, sections and appended data by samples from both
    ends, or in full with ``deep``, which reads both files once. ``source`` and ``edited`` are paths or
    descriptors that stay open.

    Raises ``FileRefused`` if ``source`` itself cannot be read as ELF, and ``OSError``.
    """
    with opened(source) as source_fd, opened(edited) as edited_fd:
        return check_seen(look(source_fd), edited_fd, edit, deep=deep)


def check_seen(before: Opened, edited: int, edit: ElfEdit, *, deep: bool = False) -> tuple[str, ...]:
    """Do what :func:`check` does for a source that was looked at and is still open."""
    try:
        after = look(edited)
    except Unfit as unfit:
        return (f"the result cannot be read: {unfit}",)
    pair = Pair.of(before, after, edit, deep=deep)
    if pair.wish.nothing:
        return () if same_file(pair) else ("nothing was wished, but the file is not the original",)
    groups = (
        header_violations(pair),
        load_violations(pair),
        section_violations(pair),
        linkage_violations(pair),
        dynamic_violations(pair),
        content_violations(pair),
        undo_violations(pair, before, after),
    )
    return tuple(violation for group in groups for violation in _all_of(group))


def _all_of(violations: Iterator[str]) -> Iterator[str]:
    """Pass violations on; what keeps a check from going on is one itself."""
    try:
        yield from violations
    except FileRefused as refused:
        yield f"the result contradicts itself: {refused}"
