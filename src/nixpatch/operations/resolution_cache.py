"""Make the resolution cache of a file from the directories of its search path, and compare it with them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nixpatch import elf
from nixpatch.errors import FileRefused
from nixpatch.installed.dist_records import TreeRecords
from nixpatch.installed.provenance import INPLACE
from nixpatch.model import (
    ElfFacts,
    FilePlan,
    Finding,
    Libc,
    Linkage,
    ResolutionCache,
    Tag,
    Target,
    Tree,
)
from nixpatch.resolve.file_plan import with_cache
from nixpatch.resolve.resolution_cache import cache_entries, untrue_entries, useful_entries
from nixpatch.resolve.search_path import inside

_OLD_TAG = "ld.so searches DT_RPATH before it reads a cache; with DT_RUNPATH it would"


@dataclass(frozen=True, slots=True)
class CacheDecision:
    """The resolution cache that a file is to have."""

    cache: ResolutionCache
    reason: str | None = None
    """why it gets none although ld.so could use it"""


class DirectoryReader:
    """Looks at directories of search paths, once each.

    With a store, all directories outside it are left to the loader: what they hold may change, and may be
    something else on another machine (the driver directory).
    """

    def __init__(self, store: str | None = None) -> None:
        self._store = store
        self._listed: dict[str, bool] = {}
        self._readable: dict[str, bool] = {}

    def is_listed(self, directory: str) -> bool:
        """Whether a directory can be searched now, and has no ``glibc-hwcaps``."""
        if self._store is not None and not inside(os.path.normpath(directory), self._store):
            return False
        if directory not in self._listed:
            self._listed[directory] = _is_listed(directory)
        return self._listed[directory]

    def is_readable(self, path: str) -> bool:
        """Whether there is a file that can be read at a path."""
        if path not in self._readable:
            self._readable[path] = os.access(path, os.R_OK)
        return self._readable[path]

    @property
    def paths(self) -> frozenset[str]:
        """All places that were looked at."""
        hwcaps = {f"{directory}/glibc-hwcaps" for directory in self._listed}
        return frozenset(self._listed.keys() | self._readable.keys() | hwcaps)

    def entries(self, needed: Iterable[str], search_path: str | None) -> ResolutionCache:
        """Return where a search path leads, as :func:`cache_entries` does."""
        return cache_entries(needed, search_path, is_listed=self.is_listed, is_readable=self.is_readable)

    def decide(
        self, path: str, needed: tuple[str, ...], linkage: Linkage, *, is_asked: bool = False
    ) -> CacheDecision:
        """Return the cache for a file at ``path`` that is to have a linkage.

        Args:
            path: of the file.
            needed: the libraries that it will need.
            linkage: as it will be.
            is_asked: also give a reason where the file has no use for a cache.

        """
        cache = useful_entries(self.entries(needed, linkage.search_path))
        if not cache:
            reason = "it has no search path with an absolute directory of a library that it needs"
            return CacheDecision((), reason if is_asked else None)
        if linkage.tag is not Tag.RUNPATH:
            return CacheDecision((), _OLD_TAG)
        obstacle = _obstacle(path)
        return CacheDecision(() if obstacle else cache, obstacle)


@dataclass(frozen=True, slots=True)
class PlannedCaches:
    """The plans of the files of a tree with their resolution caches."""

    files: tuple[FilePlan, ...]
    findings: tuple[Finding, ...] = ()
    """notes on files that cannot get one, by reason"""
    read_paths: frozenset[str] = frozenset()
    """what was looked at"""


def plan_caches(
    tree: Tree, target: Target, files: tuple[FilePlan, ...], records: TreeRecords, store: str | None
) -> PlannedCaches:
    """Add a resolution cache to the plan of each file that has a use for one.

    Args:
        tree: the tree.
        target: its target.
        files: the plans of its files.
        records: its RECORDs and provenance.
        store: the store, whose files never change; None if no caches are wanted. Then one that another tool
            wrote stays while it is true.

    """
    if store is None:
        return _without_untrue(files)
    if target.libc is not Libc.GLIBC:
        note = Finding("note", tree.root, f"no resolution cache: {target.libc.value} reads none")
        return PlannedCaches(files, (note,))
    planned: list[FilePlan] = []
    without: dict[str, list[str]] = {}
    reader = DirectoryReader(store)
    for file in files:
        if file.facts is None or file.after is None:
            planned.append(file)
            continue
        decision = reader.decide(file.file.path, _needed_after(file.facts, file.after), file.after)
        if decision.cache and _is_by_lief(tree, file, records):
            decision = CacheDecision((), "LIEF wrote it")
        planned.append(with_cache(file, decision.cache))
        if decision.reason is not None:
            without.setdefault(decision.reason, []).append(os.path.basename(file.file.path))
    findings = (
        Finding("note", tree.root, f"no resolution cache for {_some(names)}: {reason}")
        for reason, names in sorted(without.items())
    )
    return PlannedCaches(tuple(planned), tuple(findings), reader.paths)


def _without_untrue(files: tuple[FilePlan, ...]) -> PlannedCaches:
    reader = DirectoryReader()
    planned: list[FilePlan] = []
    for file in files:
        kept = file.after is not None and bool(file.after.resolution_cache)
        drops = kept and file.facts is not None and bool(untrue(file.facts, reader))
        planned.append(with_cache(file, ()) if drops else file)
    return PlannedCaches(tuple(planned), read_paths=reader.paths)


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _needed_after(facts: ElfFacts, after: Linkage) -> tuple[str, ...]:
    original, names = {now: was for was, now in facts.current.renamed}, dict(after.renamed)
    were = (original.get(need, need) for need in facts.needed)
    return tuple(names.get(need, need) for need in were)


def _is_by_lief(tree: Tree, file: FilePlan, records: TreeRecords) -> bool:
    """Whether an earlier run had LIEF write a file, which has no original and is not edited again."""
    for info in file.file.owners or ("",):
        dist = records.of(tree, info)
        known = dist.usable_provenance()
        entry = known.files.get(dist.key(file.file.path)) if known is not None else None
        if entry is not None and entry.writer != INPLACE:
            return True
    return False


def untrue_caches(files: Mapping[str, ElfFacts]) -> Iterator[Finding]:
    """Report files whose resolution cache leads a loader elsewhere than their search path does."""
    reader = DirectoryReader()
    for path, facts in files.items():
        names = untrue(facts, reader)
        if names:
            text = f"its resolution cache is not what its search path says now of {_some(names)}"
            yield Finding("error", path, f"{text}: run nixpatch again")


def untrue(facts: ElfFacts, reader: DirectoryReader) -> tuple[str, ...]:
    """Return the names in the cache of a file whose places are no longer those of its search path."""
    cache, path = facts.current.resolution_cache, facts.current.search_path
    return untrue_entries(cache, path, is_listed=reader.is_listed, is_readable=reader.is_readable)


def _is_listed(directory: str) -> bool:
    return (
        os.path.isdir(directory)
        and os.access(directory, os.X_OK)
        and not os.path.lexists(f"{directory}/glibc-hwcaps")
    )


def _obstacle(path: str) -> str | None:
    try:
        return elf.cache_obstacle(os.path.realpath(path))
    except (FileRefused, OSError) as error:
        return str(error)
