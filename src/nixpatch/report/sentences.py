"""The sentences that a report begins and ends with, on a terminal and on a page."""

from __future__ import annotations

from nixpatch.escape import shown
from nixpatch.model import Outcome, Plan, Target, Verdict
from nixpatch.report.summary import totals
from nixpatch.resolve.provider_choice import version_text
from nixpatch.store.store_paths import store_paths_of


def target_text(target: Target) -> str:
    """Say which Python will load the tree."""
    version = f" {version_text(target.version)}" if target.version else ""
    return (
        f"Target: Python{version} {shown(target.python)} (found by {target.found_by}), "
        f"{target.machine.name}, {target.libc.value} {version_text(target.libc_version)}"
    )


def closing(plan: Plan, outcome: Outcome | None, seconds: float) -> str:
    """Return the sentence that ends the report of a plan or of what became of it."""
    verbs = ("Would patch", "Patched") if plan.target is not None else ("Would restore", "Restored")
    count = totals(plan, outcome)
    skipped = sum(count.skipped.values())
    rest = [
        f"{count.untouched} right as they are" if count.untouched else "",
        f"{skipped} left alone" if skipped else "",
        f"{count.failed} failed" if count.failed else "",
        f"{count.missing} {'need' if count.missing == 1 else 'needs'} not met" if count.missing else "",
    ]
    verb = verbs[outcome is not None]
    text = f"{verb} {count.changed} of {count.files} ELF files ({size_text(count.bytes)}) in {seconds:.1f} s"
    return "; ".join([text, *filter(None, rest)]) + "."


def verdict_closing(verdict: Verdict, store_dir: str) -> str:
    """Return the sentence that ends what verify says."""
    store_paths = store_paths_of(verdict.libraries, store_dir)
    loaded = f", {verdict.loaded} files opened by the loader" if verdict.loaded else ""
    return (
        f"{'Wrong' if verdict.errors else 'Right'}: "
        f"{verdict.patched} patched files, {verdict.needs} needs, "
        f"{len(store_paths)} store paths, {verdict.rows} RECORD rows{loaded}: "
        f"{verdict.errors} {'thing' if verdict.errors == 1 else 'things'} wrong."
    )


def size_text(count: int) -> str:
    """Write a number of bytes in the unit that people would use."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
