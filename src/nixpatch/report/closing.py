"""The last line of each report."""

from __future__ import annotations

from nixpatch.escape import shown
from nixpatch.model import Outcome, Plan, Verdict
from nixpatch.model.diff import Difference
from nixpatch.model.trace import Trace
from nixpatch.report.phrases import count_text, size_text
from nixpatch.report.summary import totals
from nixpatch.store.lockfile import Lockfile
from nixpatch.store.store_paths import store_paths_of


def run_closing(plan: Plan, outcome: Outcome | None, seconds: float) -> str:
    """Return the last line for a plan (``outcome`` None) or for its outcome."""
    verbs = ("Would patch", "Patched") if plan.target is not None else ("Would restore", "Restored")
    count = totals(plan, outcome)
    text = (
        f"{verbs[outcome is not None]} {count.changed} of {count.files} ELF files "
        f"({size_text(count.bytes)}) in {seconds:.1f} s"
    )
    rest = [f"{number} {words}" for _, number, words in run_counts(plan, outcome)[1:] if number]
    return "; ".join([text, *rest]) + "."


def run_counts(plan: Plan, outcome: Outcome | None) -> tuple[tuple[str, int, str], ...]:
    """Return the counts of the last line, the changed files first: kind, number, and words to the number."""
    count = totals(plan, outcome)
    texts = sum(text.pending for text in plan.texts)
    verb = "patch" if plan.target is not None else "restore"
    return (
        ("patched", count.changed, f"to {verb}" if outcome is None else f"{verb}ed"),
        ("unchanged", count.untouched, "unchanged"),
        ("skipped", sum(count.skipped.values()), "skipped"),
        ("failed", count.failed, "failed"),
        ("text", texts, "text file" if texts == 1 else "text files"),
        ("missing", count.missing, f"{'dependency' if count.missing == 1 else 'dependencies'} not found"),
    )


def verdict_closing(verdict: Verdict, store_dir: str) -> str:
    """Return the last line of ``verify``."""
    store_paths = store_paths_of(verdict.libraries, store_dir)
    counts = [
        count_text(verdict.patched, "patched file"),
        count_text(verdict.needs, "dependency", "dependencies"),
        count_text(len(store_paths), "store path"),
        *([count_text(verdict.texts, "text file")] if verdict.texts else []),
        count_text(verdict.rows, "RECORD row"),
    ]
    if verdict.loaded:
        counts.append(f"{count_text(verdict.loaded, 'file')} opened by the loader")
    if verdict.reread:
        *readers, last_reader = verdict.reread.readers
        names = f"{', '.join(readers)} and {last_reader}" if readers else last_reader
        counts.append(f"{count_text(verdict.reread.files, 'file')} read again by {names}")
        counts.append(f"{count_text(verdict.reread.originals, 'original')} compared")
    errors = count_text(verdict.errors, "error") if verdict.errors else "no errors"
    return f"{'Failed' if verdict.errors else 'OK'}: checked {', '.join(counts)}: {errors}."


def trace_closing(trace: Trace) -> str:
    """Return the last line of ``tree``."""
    counts = ", ".join(
        (
            count_text(len(trace.asked) if trace.tree is not None else 1, "file"),
            count_text(len(trace.links), "dependency", "dependencies"),
            count_text(len({link.path for link in trace.links} - {None}), "library", "libraries"),
            *([f"{len({link.need for link in trace.opened})} opened by name"] if trace.opened else []),
        )
    )
    return f"{counts}: {f'{len(trace.unmet)} not found' if trace.unmet else 'all found'}."


def diff_closing(difference: Difference) -> str:
    """Return the last line of ``diff``."""
    if difference.same:
        return "No differences."
    findings = len(difference.gained) + len(difference.lost)
    counts = [
        count_text(len(difference.libraries), "library", "libraries") if difference.libraries else "",
        count_text(len(difference.files), "file") if difference.files else "",
        count_text(findings, "finding") if findings else "",
    ]
    return f"Differences: {', '.join(filter(None, counts)) or 'the target'}."


def lock_closing(lock: Lockfile, path: str, *, changed: bool) -> str:
    """Return the last line of ``lock``."""
    libraries = count_text(len(lock.libraries), "library", "libraries")
    store_paths = count_text(len({library.store_path for library in lock.libraries.values()}), "store path")
    return f"{'Locked' if changed else 'Unchanged:'} {libraries} from {store_paths} in {shown(path)}."
