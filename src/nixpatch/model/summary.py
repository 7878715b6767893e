"""Counts of a plan or of its outcome: by dist and for the whole tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nixpatch.model.elf import SkipReason
from nixpatch.model.installed import Tree

UNOWNED = "(no dist)"
"""the owner of files that no RECORD lists"""


@dataclass(frozen=True, slots=True)
class DistTotals:
    """The ELF files of one dist."""

    name: str
    version: str
    changed: int
    untouched: int
    """files that need no change"""
    skipped: int
    failed: int
    missing: tuple[str, ...]
    """sonames that nothing provides, sorted"""
    store_paths: tuple[str, ...]
    """names of the store paths that serve its needs, sorted"""


@dataclass(frozen=True, slots=True)
class Totals:
    """The ELF files of a whole tree."""

    files: int
    changed: int
    bytes: int
    """total size of the changed files"""
    untouched: int
    """files that need no change"""
    skipped: Mapping[SkipReason, int]
    failed: int
    missing: int
    """needs that nothing meets and that stop an import or a program: one for each file and soname"""
    optional: int
    """the same for needs of optional parts: no error"""
    errors: int
    """findings of severity ``error``"""

    @property
    def satisfied(self) -> bool:
        """Whether nothing failed, is missing or was found wrong: the command line then exits with 0."""
        return not (self.failed or self.missing or self.errors)


def owner_names(tree: Tree) -> dict[str, str]:
    """Map each ELF file of a tree to its dist, as ``name version``; a file of two dists to the first one."""
    names = {dist.info: f"{dist.name} {dist.version}" for dist in tree.dists}
    return {file.path: names.get(next(iter(file.owners), ""), UNOWNED) for file in tree.files}
