"""What became of grafted libraries: un-vendored, kept and why, and which copies of one library remain.

Copies of libraries in numbers and for programs: what leaves, what stays, what is there several times.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from nixpatch.escape import below, shown
from nixpatch.model import Origin, Plan, VendoredPlan

_SHOWN = 3


def graft_lines(plan: Plan, *, applied: bool, verbosity: int) -> Iterator[Text]:
    """Yield the lines for people. ``verbosity`` 1 and more: each reason, symbol by symbol."""
    gone = [graft for graft in plan.vendored if graft.goes]
    kept = [graft for graft in plan.vendored if not graft.goes]
    if not plan.vendored or verbosity < 0:
        return
    size = saved(plan.vendored) / 1e6
    verb = "Un-vendored" if applied else "Would un-vendor"
    yield Text(f"{verb} {len(gone)} of {len(plan.vendored)} grafted libraries ({size:.1f} MB of copies):")
    for graft in gone:
        name = shown(os.path.basename(graft.file.path))
        if graft.provider is None:
            yield Text(f"  {name}: nothing needs it any more")
        else:
            versions = f"{shown(graft.version)} -> {shown(graft.new_version)}"
            yield Text(f"  {name} -> {shown(graft.soname or '')} ({versions}) {graft.provider.directory}")
    for graft in kept:
        yield Text(f"  {shown(os.path.basename(graft.file.path))}: kept", style="dim")
        reasons = graft.kept if verbosity > 0 else graft.kept[:_SHOWN]
        for reason in reasons:
            yield Text(f"    {_short(reason, plan)}", style="dim")
        if len(graft.kept) > len(reasons):
            yield Text(f"    and {len(graft.kept) - len(reasons)} more (-v shows them)", style="dim")
    for library, copies in duplicates(plan):
        places = ", ".join(below(copy, plan.tree.root) for copy in copies)
        yield Text(f"  {library} is there {len(copies)} times: {places}", style="dim")


def _short(text: str, plan: Plan) -> str:
    return shown(text.replace(plan.tree.root.rstrip("/") + "/", ""))


def saved(grafts: Sequence[VendoredPlan]) -> int:
    """Return how many bytes the removed copies have."""
    return sum(graft.file.size for graft in grafts if graft.goes)


def duplicates(plan: Plan) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield libraries of which the tree still loads several copies: kept grafts, and the store's."""
    copies: dict[str, set[str]] = {}
    for graft in plan.vendored:
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
        for graft in plan.vendored
    ]
