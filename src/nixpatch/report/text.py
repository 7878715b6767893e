"""Plans, outcomes and verdicts as text for a terminal."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.text import Text

from nixpatch.escape import below, shown
from nixpatch.model import FilePlan, Finding, Linkage, Outcome, Plan, Verdict
from nixpatch.operations.missing import find_missing
from nixpatch.report.closing import run_closing, verdict_closing
from nixpatch.report.dist_table import DistTable, prose, skipped_line
from nixpatch.report.missing import by_dist, command_to_add, line_to_paste, packages
from nixpatch.report.opened_libraries import dispensable_lines, need_text, optional_lines, text_lines
from nixpatch.report.phrases import first_few, target_text
from nixpatch.report.summary import totals
from nixpatch.report.unvendor import graft_lines

_UNLIMITED_WIDTH = 4096
_ALIKE = 3
"""files that are listed one by one though the same is said of them"""


def plan_report(
    plan: Plan, outcome: Outcome | None, *, verbosity: int, seconds: float, label: str = ""
) -> Group:
    """Render a plan (``outcome`` None) or its outcome.

    Args:
        plan: the decisions.
        outcome: the result of ``apply``.
        verbosity: below 0 problems only, 0 a table by dist, 1 every changed file, 2 every need.
        seconds: duration of the run.
        label: name of the tree: print problems and one line, which begin with it.

    """
    satisfied = totals(plan, outcome).satisfied
    style = "bold green" if satisfied else "bold red"
    closing = prose(run_closing(plan, outcome, seconds, label), style=style)
    if verbosity < 0 and satisfied:
        return Group()
    verbosity = -1 if label else verbosity
    parts: list[RenderableType] = []
    if verbosity >= 0:
        if plan.target is not None:
            parts.append(prose(target_text(plan.target)))
        if plan.pending or verbosity > 0:
            parts.append(DistTable(plan, outcome, all_dists=verbosity > 0))
        parts += skipped_line(plan, outcome)
    if verbosity >= 1:
        parts += _files(plan, verbosity)
    parts += graft_lines(plan, applied=outcome is not None, verbosity=verbosity)
    parts += text_lines(plan, applied=outcome is not None, verbosity=verbosity)
    parts += optional_lines(plan, verbosity=verbosity)
    parts += dispensable_lines(plan, verbosity=verbosity)
    parts += _missing(plan, verbosity, label)
    parts += _failures(plan, outcome, label)
    findings = (*plan.findings, *(outcome.findings if outcome else ()))
    parts += _findings(findings, plan.tree.root, verbosity, label)
    return Group(*parts, closing)


def brief_lines(outcome: Outcome, verbosity: int) -> tuple[tuple[str, str], ...] | None:
    """Return the lines of a report and their styles, None for one with more than lines."""
    parts = plan_report(outcome.plan, outcome, verbosity=verbosity, seconds=0.0).renderables
    lines = [(part.plain, str(part.style)) for part in parts if isinstance(part, Text) and not part.spans]
    return tuple(lines) if len(lines) == len(parts) else None


def verdict_report(verdict: Verdict, *, store_dir: str, verbosity: int, label: str = "") -> Group:
    """Render the verdict of ``verify``; with a ``label`` as errors and a line, which begin with it."""
    if verbosity < 0 and not verdict.errors:
        return Group()
    parts = _findings(verdict.findings, verdict.tree.root, -1 if label else verbosity, label)
    style = "bold red" if verdict.errors else "bold green"
    return Group(*parts, prose(verdict_closing(verdict, store_dir, label), style=style))


def console(*, stderr: bool = False, plain: bool = False, wrap: bool = False) -> Console:
    """Return a console that respects NO_COLOR and treats no name as markup.

    Args:
        stderr: print to standard error.
        plain: use no colour, even on a terminal.
        wrap: break long lines at the width of the terminal, as drawings need it; else lines stay whole, to be
            copied. Output that is no terminal has no width.

    """
    terminal = False if plain else None
    made = Console(stderr=stderr, highlight=False, soft_wrap=not wrap, emoji=False, force_terminal=terminal)
    if not made.is_terminal:
        made.width = _UNLIMITED_WIDTH
    return made


def _files(plan: Plan, verbosity: int) -> Iterator[RenderableType]:
    for file in plan.files:
        name = below(file.file.path, plan.tree.root)
        if file.skip is not None:
            detail = f" ({shown(file.skip.detail)})" if file.skip.detail else ""
            yield Text(f"{name}: skipped, {file.skip.reason.value}{detail}", style="dim")
        elif file.edit is not None or verbosity > 1:
            yield Text(name, style="bold" if file.edit else "")
            yield from _linkage_changes(file)
        for answer in file.answers:
            if verbosity > 1 or (file.edit is not None and answer.opener and answer.path):
                path = f" {shown(answer.path)}" if answer.path else ""
                origin = "not there" if answer.is_optional else answer.origin.value
                detail = need_text(answer, file, plan.tree.root) if answer.opener else shown(answer.detail)
                yield Text(f"    {shown(answer.need)}: {origin}{path}" + (f" ({detail})" if detail else ""))


def _linkage_changes(file: FilePlan) -> Iterator[Text]:
    if file.facts is None or file.after is None:
        return
    old, new = file.facts.current, file.after
    if _search_path(old) != _search_path(new):
        yield Text(f"    search path  {_search_path(old)}\n              -> {_search_path(new)}")
    if old.interp != new.interp:
        yield Text(f"    interpreter  {shown(old.interp or '')}\n              -> {shown(new.interp or '')}")
    if old.resolution_cache != new.resolution_cache:
        count = len(new.resolution_cache)
        yield Text(f"    resolution cache of {count} libraries" if count else "    resolution cache dropped")
    for drop in file.dropped:
        yield Text(f"    dropped      {shown(drop.entry) or '(empty)'}: {drop.why}", style="dim")


def _search_path(linkage: Linkage) -> str:
    tag = linkage.tag.value if linkage.tag else ""
    return f"{tag} {shown(linkage.search_path or '')}".strip() or "(none)"


def _missing(plan: Plan, verbosity: int, label: str) -> Iterator[RenderableType]:
    every = find_missing(plan)
    if not every:
        return
    title = f"{shown(label)}: not found" if label else "Not found"
    yield Text(f"{title}, and without these an import or a program fails:", style="bold red")
    yield from map(Text, by_dist(plan, every, searched=verbosity > 0))
    known = {missing.soname for missing in every if packages([missing])}
    # In a tree outside the store, nixpkgs has been asked if there is no command: it does not have them.
    line = command_to_add([plan]) or ("" if plan.keeps_originals else line_to_paste([plan]))
    if known and line:
        yield Text(f"To add {_these(len(known), len(every))}: {line}", style="bold")
    if rest := sorted({missing.soname for missing in every} - (set() if plan.asked_nixpkgs else known)):
        yield prose(
            f"For {first_few(rest)}: name a store path or a directory that has it with --lib, or accept that "
            f"it is missing with --ignore-missing {shlex.quote(shown(rest[0]))}"
        )


def _these(known: int, every: int) -> str:
    if known == every:
        return "it" if every == 1 else "them"
    return f"{known} of these {every}"


def _failures(plan: Plan, outcome: Outcome | None, label: str) -> Iterator[RenderableType]:
    for done in outcome.failed if outcome else ():
        name = _name(done.plan.file.path, plan.tree.root, label)
        yield Text(f"{name}: not patched: {shown(done.error or '')}", style="red")


def _name(path: str, root: str, label: str) -> str:
    """Return a path for display: relative to the root of the tree, or below its name; "" for the root."""
    if path == root:
        return shown(label)
    name = below(path, root)
    return name if not label or name.startswith("/") else os.path.join(shown(label), name)


def _findings(findings: tuple[Finding, ...], root: str, verbosity: int, label: str) -> list[RenderableType]:
    """Return a line for each finding; one for many files of which the same is said, up to ``verbosity`` 0."""
    paths: dict[tuple[str, str], list[str]] = {}
    topics: Counter[str] = Counter()
    for finding in findings:
        if finding.topic and finding.severity == "note" and verbosity <= 0:
            topics[finding.topic] += 1
            continue
        key = (finding.severity, finding.text)
        paths.setdefault(key, []).append(_name(finding.path, root, label))
    lines: list[RenderableType] = []
    for (severity, text), names in paths.items():
        is_error = severity == "error"
        if not is_error and verbosity < 0:
            continue
        few = names if verbosity > 0 or len(names) <= _ALIKE else names[:1]
        for name in few:
            more = f" and {len(names) - 1} more" if len(few) < len(names) else ""
            line = f"{name}{more}: {shown(text)}" if name else shown(text)
            lines.append(Text(line if is_error else f"note: {line}", style="red" if is_error else "dim"))
    counted = topics.items() if verbosity == 0 else ()
    lines += [Text(f"note: {topic}: {count}; -v lists them", style="dim") for topic, count in counted]
    return lines
