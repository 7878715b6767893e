"""Bundled libraries as text: removed, kept with the reasons, and loaded in several copies."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rich.text import Text

from nixpatch.escape import below, shown
from nixpatch.model import Plan, VendoredPlan
from nixpatch.report.phrases import size_text
from nixpatch.report.summary import duplicates

_LISTED = 3


def graft_texts(graft: VendoredPlan) -> tuple[str, ...]:
    """Return what replaces a library, or the reasons to keep it."""
    if not graft.goes:
        return graft.kept
    if graft.provider is None:
        return ("goes: no file needs it any more",)
    return (f"-> {graft.soname or ''} ({graft.version} -> {graft.new_version}) {graft.provider.directory}",)


def graft_lines(plan: Plan, *, applied: bool, verbosity: int) -> Iterator[Text]:
    """Yield a line for each library; from ``verbosity`` 1 on every reason, symbol by symbol."""
    removed = [graft for graft in plan.vendored if graft.goes]
    kept = [graft for graft in plan.vendored if not graft.goes]
    if not plan.vendored or verbosity < 0:
        return
    size = size_text(sum(graft.file.size for graft in removed))
    verb = "Un-vendored" if applied else "Would un-vendor"
    yield Text(f"{verb} {len(removed)} of {len(plan.vendored)} bundled libraries ({size}):")
    for graft in removed:
        (text,) = graft_texts(graft)
        yield Text(shown(f"  {os.path.basename(graft.file.path)} {text}"))
    for graft in kept:
        yield Text(f"  {shown(os.path.basename(graft.file.path))}: kept", style="dim")
        reasons = graft.kept if verbosity > 0 else graft.kept[:_LISTED]
        for reason in reasons:
            short = reason.replace(plan.tree.root.rstrip("/") + "/", "")
            yield Text(f"    {shown(short)}", style="dim")
        if len(graft.kept) > len(reasons):
            yield Text(f"    and {len(graft.kept) - len(reasons)} more: -v lists them", style="dim")
    for library, copies in duplicates(plan):
        paths = ", ".join(below(copy, plan.tree.root) for copy in copies)
        yield Text(f"  {library} has {len(copies)} copies: {paths}", style="dim")
