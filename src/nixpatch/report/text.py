"""The report people read: one table by dist, what is missing and why, findings, one closing sentence."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.text import Text

from nixpatch.escape import below, shown
from nixpatch.model import FilePlan, Finding, Linkage, Outcome, Plan, Verdict
from nixpatch.report.missing import advice, line_to_paste
from nixpatch.report.sentences import closing, target_text, verdict_closing
from nixpatch.report.summary import considered, missing_by_soname, totals
from nixpatch.report.table import ByDist, prose
from nixpatch.report.unvendor import graft_lines

_ENDLESS = 4096
_SHOWN_FILES = 3


def plan_report(plan: Plan, outcome: Outcome | None, *, verbosity: int, seconds: float) -> RenderableType:
    """Render a plan (``outcome`` None) or what became of it.

    ``verbosity``: below 0 only what remains to do, 0 a table by dist, 1 every changed file, 2 every need.
    """
    parts: list[RenderableType] = []
    if verbosity >= 0:
        if plan.target is not None:
            parts.append(prose(target_text(plan.target)))
        if plan.pending or verbosity > 0:
            parts.append(ByDist(plan, outcome, whole=verbosity > 0))
    if verbosity >= 1:
        parts += _files(plan, verbosity)
    parts += graft_lines(plan, applied=outcome is not None, verbosity=verbosity)
    parts += _missing(plan)
    parts += _failures(plan, outcome)
    parts += _findings((*plan.findings, *(outcome.findings if outcome else ())), plan.tree.root, verbosity)
    satisfied = totals(plan, outcome).satisfied
    parts.append(prose(closing(plan, outcome, seconds), style="bold green" if satisfied else "bold red"))
    return Group(*parts)


def verdict_report(verdict: Verdict, *, store_dir: str, verbosity: int) -> RenderableType:
    """Render what verify found."""
    parts = _findings(verdict.findings, verdict.tree.root, verbosity)
    style = "bold red" if verdict.errors else "bold green"
    parts.append(prose(verdict_closing(verdict, store_dir), style=style))
    return Group(*parts)


def console(*, stderr: bool = False, plain: bool = False, wrap: bool = False) -> Console:
    """Return a console that honours NO_COLOR and a non-terminal, and never guesses at markup in names.

    ``plain``: no colour, even if it is a terminal. ``wrap`` breaks long lines where the terminal ends, as a
    drawing needs it; else lines stay whole, to be copied. What is no terminal has no end of the line.
    """
    terminal = False if plain else None
    made = Console(stderr=stderr, highlight=False, soft_wrap=not wrap, emoji=False, force_terminal=terminal)
    if not made.is_terminal:
        made.width = _ENDLESS
    return made


def _files(plan: Plan, verbosity: int) -> Iterator[RenderableType]:
    for file in plan.files:
        name = below(file.file.path, plan.tree.root)
        if file.skip is not None:
            detail = f" ({shown(file.skip.detail)})" if file.skip.detail else ""
            yield Text(f"{name}: left alone, {file.skip.reason.value}{detail}", style="dim")
        elif file.edit is not None or verbosity > 1:
            yield Text(name, style="bold" if file.edit else "")
            yield from _change(file)
        if verbosity > 1:
            for answer in file.answers:
                where = f" {shown(answer.path)}" if answer.path else ""
                detail = f" ({shown(answer.detail)})" if answer.detail else ""
                yield Text(f"    {shown(answer.need)}: {answer.origin.value}{where}{detail}")


def _change(file: FilePlan) -> Iterator[Text]:
    if file.facts is None or file.after is None:
        return
    old, new = file.facts.current, file.after
    if _path(old) != _path(new):
        yield Text(f"    search path  {_path(old)}\n              -> {_path(new)}")
    if old.interp != new.interp:
        yield Text(f"    interpreter  {shown(old.interp or '')}\n              -> {shown(new.interp or '')}")
    for drop in file.dropped:
        yield Text(f"    dropped      {shown(drop.entry) or '(empty)'}: {drop.why}", style="dim")


def _path(linkage: Linkage) -> str:
    return (
        f"{linkage.tag.value if linkage.tag else ''} {shown(linkage.search_path or '')}".strip() or "(none)"
    )


def _missing(plan: Plan) -> Iterator[RenderableType]:
    for soname, files in missing_by_soname(plan).items():
        yield Text(f"{shown(soname)}: nothing provides it", style="bold red")
        names = [below(path, plan.tree.root) for path in files[:_SHOWN_FILES]]
        more = f" and {len(files) - _SHOWN_FILES} more" if len(files) > _SHOWN_FILES else ""
        yield Text(f"  needed by {', '.join(names)}{more}")
        yield Text("  looked in this order:")
        for number, line in enumerate(considered(plan, soname), 1):
            yield Text(f"    {number}. {shown(line)}")
        yield Text(f"  {advice(soname)}")
        yield Text(
            f"  or name a store path that has it with --closure, or pass --ignore-missing "
            f"{shlex.quote(shown(soname))}"
        )
    line = line_to_paste([plan])
    if line:
        yield Text(f"All of them: {line}", style="bold")


def _failures(plan: Plan, outcome: Outcome | None) -> Iterator[RenderableType]:
    for done in outcome.failed if outcome else ():
        name = below(done.plan.file.path, plan.tree.root)
        yield Text(f"{name}: not patched: {shown(done.error or '')}", style="red")


def _findings(findings: tuple[Finding, ...], root: str, verbosity: int) -> list[RenderableType]:
    told: list[RenderableType] = []
    for finding in findings:
        error = finding.severity == "error"
        if not error and verbosity < 0:
            continue
        where = below(finding.path, root) if finding.path != root else ""
        text = f"{where}: {shown(finding.text)}" if where else shown(finding.text)
        told.append(Text(text if error else f"note: {text}", style="red" if error else "dim"))
    return told
