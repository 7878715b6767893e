"""Copies of libraries in numbers and for programs: what leaves, what stays, what is there several times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nixpatch.model import GraftPlan, Origin, Plan


def saved(grafts: Sequence[GraftPlan]) -> int:
    """Return how many bytes the removed copies have."""
    return sum(graft.file.size for graft in grafts if graft.goes)


def duplicates(plan: Plan) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield libraries of which the tree still loads several copies: kept grafts, and the store's."""
    copies: dict[str, set[str]] = {}
    for graft in plan.grafts:
        if not graft.goes:
            copies.setdefault(graft.unmangled.partition(".so")[0], set()).add(graft.file.path)
    for file in plan.files:
        for answer in file.answers:
            if answer.origin is Origin.STORE and answer.path is not None:
                stem = answer.need.partition(".so")[0]
                if stem in copies:
                    copies[stem].add(answer.path)
    for stem, paths in sorted(copies.items()):
        if len(paths) > 1:
            yield stem, tuple(sorted(paths))


def graft_entries(plan: Plan) -> list[dict[str, Any]]:
    """Return the entries for programs, one for each graft that was asked about."""
    return [
        {
            "path": graft.file.path,
            "library": graft.unmangled,
            "unvendored": graft.goes,
            "bytes": graft.file.size,
            "users": list(graft.users),
            "soname": graft.soname,
            "provider": f"{graft.provider.directory}/{graft.provider.name}" if graft.provider else None,
            "version": graft.version,
            "new_version": graft.new_version,
            "kept": list(graft.kept),
        }
        for graft in plan.grafts
    ]
