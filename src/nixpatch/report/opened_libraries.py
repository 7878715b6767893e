"""Text files of a run and libraries that code opens by name, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.text import Text

from nixpatch.escape import below, shown
from nixpatch.model import Answer, FilePlan, Plan, TextKind, TextPlan
from nixpatch.operations.missing import find_dispensable
from nixpatch.report.missing import by_dist
from nixpatch.report.phrases import count_text, first_few


def text_lines(plan: Plan, *, applied: bool, verbosity: int) -> Iterator[Text]:
    """Yield one line on start-up files and scripts; from ``verbosity`` 1 on one for each of them.

    With 2 the names that a start-up file answers, too.
    """
    if not plan.texts or verbosity < 0:
        return
    kept = [text for text in plan.texts if not text.is_restored]
    startup = sum(text.kind is TextKind.STARTUP for text in kept)
    scripts = len(kept) - startup
    restored = len(plan.texts) - len(kept)
    counts = [
        f"{count_text(startup, 'start-up file')} for what Python code opens by name" if startup else "",
        f"{count_text(scripts, 'script')} with a program of the store" if scripts else "",
        f"{restored} {'restored' if applied else 'to restore'}" if restored else "",
    ]
    more = "" if verbosity > 0 else " (-v lists them)"
    yield Text(f"Text files: {'; '.join(filter(None, counts))}{more}")
    for text in plan.texts if verbosity > 0 else ():
        yield Text(f"  {below(text.path, plan.tree.root)}: {_text_file(text)}")
        for name, path in text.answers if verbosity > 1 else ():
            yield Text(f"    {shown(name)}: {shown(path)}")


def need_text(answer: Answer, file: FilePlan, root: str) -> str:
    """Return who opens a library by name, and in whose search path ld.so looks for it."""
    assert answer.opener is not None
    return f"opened by name by {below(answer.opener, root)}, searched in {below(file.file.path, root)}"


def dispensable_lines(plan: Plan, *, verbosity: int) -> Iterator[Text]:
    """Yield one line that counts by dist what only optional parts lack; from ``verbosity`` 1 on a list."""
    every = find_dispensable(plan) if verbosity >= 0 else ()
    if not every:
        return
    numbers: Counter[str] = Counter(dist for missing in every for dist in missing.dists)
    counts = ", ".join(f"{shown(dist)} {number}" for dist, number in sorted(numbers.items()))
    more = "" if verbosity > 0 else "; -v lists them"
    yield Text(f"Libraries that only optional parts lack (no import fails): {counts}{more}", style="dim")
    for line in by_dist(plan, every, searched=verbosity > 1) if verbosity > 0 else ():
        yield Text(f"  {line}", style="dim")


def optional_lines(plan: Plan, *, verbosity: int) -> Iterator[Text]:
    """Yield the number of optional libraries that are not there; from ``verbosity`` 1 on their names.

    Then also the lines of code whose names nixpatch does not know.
    """
    if verbosity < 0:
        return
    root = plan.tree.root
    if plan.opened_unmet:
        count = count_text(len(plan.opened_unmet), "optional library", "optional libraries")
        verb, them = ("is", "it") if len(plan.opened_unmet) == 1 else ("are", "them")
        yield Text(f"{count}, opened by name, {verb} not there: nixpatch missing lists {them}", style="dim")
    if verbosity < 1:
        return
    for library in plan.opened_unmet:
        openers = first_few([below(opener, root) for opener, _ in library.openers])
        yield Text(f"  {shown(library.soname)}: opened by name by {openers}", style="dim")
    if plan.opened_computed:
        yield Text("Opened by a name that the code computes (see nixpatch env):", style="dim")
    sources: dict[str, list[str]] = {}
    for place in plan.opened_computed:
        source, _, line = place.rpartition(":")
        sources.setdefault(source, []).append(line)
    for source, lines in sources.items():
        yield Text(f"  {below(source, root)}: line {', '.join(lines)}", style="dim")


def _text_file(text: TextPlan) -> str:
    if text.content is None:
        return f"{text.kind.value}, removed"
    if text.kind is TextKind.STARTUP:
        answers = first_few([name for name, _ in text.answers])
        return (
            f"{text.kind.value}, answers for {answers}" if answers else f"{text.kind.value}, sets variables"
        )
    if text.is_restored:
        return f"{text.kind.value}, run by {shown(text.program)} again"
    return f"{text.kind.value}, run by {shown(text.uses[0])} instead of {shown(text.program)}"
