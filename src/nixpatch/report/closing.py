"""The last line of each report."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nixpatch.escape import shown
from nixpatch.model import Outcome, Plan, Verdict
from nixpatch.model.summary import Totals
from nixpatch.report.phrases import count_text, size_text
from nixpatch.report.summary import totals
from nixpatch.store_paths import store_paths_of

if TYPE_CHECKING:  # most runs need none of these
    from nixpatch.model.diff import Difference
    from nixpatch.model.trace import Trace
    from nixpatch.store.lockfile import Lockfile


class RunSum:
    """The counts of the trees of a run: those of one for its last line, those of several for their sum."""

    def __init__(self) -> None:
        """Begin with no tree."""
        self.trees = 0
        """number of trees that were counted"""
        self._verb = ""
        self._seconds = 0.0
        self._texts = 0
        self._counts: list[Totals] = []
        self._errors = 0
        self._patched = 0

    def add_plan(self, plan: Plan, outcome: Outcome | None, seconds: float) -> None:
        """Count a plan or its outcome."""
        verbs = ("patch", "patched") if plan.target is not None else ("restore", "restored")
        self._verb = verbs[1] if outcome is not None else f"to {verbs[0]}"
        self.trees += 1
        self._seconds += seconds
        self._texts += sum(text.pending for text in plan.texts)
        self._counts.append(totals(plan, outcome))

    def add_verdict(self, verdict: Verdict) -> None:
        """Count a verdict."""
        self.trees += 1
        self._errors += verdict.errors
        self._patched += verdict.patched

    def counts(self) -> tuple[tuple[str, int, str], ...]:
        """Return the counts of the plans, the changed files first: kind, number, and words to the number."""
        missing, texts = sum(count.missing for count in self._counts), self._texts
        return (
            ("patched", sum(count.changed for count in self._counts), self._verb),
            ("unchanged", sum(count.untouched for count in self._counts), "unchanged"),
            ("skipped", sum(sum(count.skipped.values()) for count in self._counts), "skipped"),
            ("failed", sum(count.failed for count in self._counts), "failed"),
            ("text", texts, "text file" if texts == 1 else "text files"),
            ("missing", missing, f"{'dependency' if missing == 1 else 'dependencies'} not found"),
        )

    def counts_text(self) -> str:
        """Return the counts of the plans as a sentence."""
        (_, changed, verb), *rest = self.counts()
        verb = verb.replace("to ", "would ").capitalize()
        files, size = (sum(getattr(count, name) for count in self._counts) for name in ("files", "bytes"))
        text = f"{verb} {changed} of {files} ELF files ({size_text(size)}) in {self._seconds:.1f} s"
        return "; ".join([text, *(f"{number} {words}" for _, number, words in rest if number)]) + "."

    def text(self, refused: int) -> str:
        """Return the sum of several trees, some of which could not be used."""
        trees = count_text(self.trees + refused, "tree")
        not_used = f" {count_text(refused, 'tree')} left as found." if refused else ""
        if self._counts:
            return f"{trees}: {self.counts_text()}{not_used}"
        errors = count_text(self._errors, "error") if self._errors else "no errors"
        failed = self._errors or refused
        patched = count_text(self._patched, "patched file")
        return f"{trees}: {'Failed' if failed else 'OK'}: checked {patched}: {errors}.{not_used}"


def run_closing(plan: Plan, outcome: Outcome | None, seconds: float, label: str = "") -> str:
    """Return the last line for a plan (``outcome`` None) or for its outcome."""
    return _labelled(label, _sum_of(plan, outcome, seconds).counts_text())


def with_duration(closing: str, seconds: float) -> str:
    """Return the last line of an earlier run with the duration of this one."""
    return re.sub(r" in \d+\.\d s\b", f" in {seconds:.1f} s", closing, count=1)


def run_counts(plan: Plan, outcome: Outcome | None) -> tuple[tuple[str, int, str], ...]:
    """Return the counts of the last line, the changed files first: kind, number, and words to the number."""
    return _sum_of(plan, outcome, 0).counts()


def _sum_of(plan: Plan, outcome: Outcome | None, seconds: float) -> RunSum:
    run_sum = RunSum()
    run_sum.add_plan(plan, outcome, seconds)
    return run_sum


def _labelled(label: str, text: str) -> str:
    return f"{shown(label)}: {text}" if label else text


def verdict_closing(verdict: Verdict, store_dir: str, label: str = "") -> str:
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
    text = f"{'Failed' if verdict.errors else 'OK'}: checked {', '.join(counts)}: {errors}."
    return _labelled(label, text)


def trace_closing(trace: Trace) -> str:
    """Return the last line of ``tree``."""
    counts = ", ".join(
        (
            count_text(len(trace.asked) if trace.tree is not None else 1, "file"),
            count_text(len(trace.links), "dependency", "dependencies"),
            count_text(len({link.path for link in trace.links} - {None}), "library", "libraries"),
        )
    )
    counts += f": {len(trace.unmet)} not found" if trace.unmet else ": all found"
    opened = {link.need for link in trace.opened}
    absent = opened - {link.need for link in trace.opened if link.path is not None}
    if opened:
        counts += f"; {len(opened)} opened by name" + (f", {len(absent)} of them not found" if absent else "")
    return f"{counts}."


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
