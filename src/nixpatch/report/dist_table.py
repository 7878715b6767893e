"""The table of a run: one row for each dist. The column with store paths needs a wide terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nixpatch.escape import shown
from nixpatch.model import Outcome, Plan
from nixpatch.model.summary import DistTotals
from nixpatch.report.phrases import count_text, first_few
from nixpatch.report.summary import dist_totals, totals

_MAX_IDLE = 5
"""dists with nothing to do that are listed; more of them are only counted"""
_STORE_WIDTH = 22
"""columns that the names of store paths need to be readable"""


class DistTable:
    """A rich renderable that picks its columns by the width of the terminal."""

    def __init__(self, plan: Plan, outcome: Outcome | None, *, all_dists: bool) -> None:
        """Count the plan; ``all_dists`` lists dists with nothing to do, however many there are."""
        rows = dist_totals(plan, outcome)
        idle = tuple(row for row in rows if not (row.changed or row.failed or row.missing))
        self._idle = () if all_dists or len(idle) <= _MAX_IDLE else idle
        self._rows = tuple(row for row in rows if row not in self._idle)
        self._applied = outcome is not None
        verbs = ("patch", "patched") if plan.target is not None else ("restore", "restored")
        self._title = verbs[1] if self._applied else f"to {verbs[0]}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render with the store paths in a column, or below the table."""
        names = max((len(first_few(row.store_paths)) for row in self._rows), default=0)
        narrow = console.measure(self._table(store=False)).maximum
        wide = options.max_width - narrow - 2 >= min(names, _STORE_WIDTH)
        yield self._table(store=wide)
        if self._idle:
            unchanged = count_text(sum(row.untouched for row in self._idle), "file")
            skipped = sum(row.skipped for row in self._idle)
            counts = f"{unchanged} unchanged" + (f", {skipped} skipped" if skipped else "")
            yield prose(
                f"and {len(self._idle)} dists with nothing to do ({counts}); -v lists them", style="dim"
            )
        if not wide:
            store_paths = {name for row in self._rows for name in row.store_paths}
            if store_paths:
                yield Text(f"Store paths: {', '.join(map(shown, sorted(store_paths)))}", overflow="fold")

    def _table(self, *, store: bool) -> Table:
        failed = any(row.failed for row in self._rows)
        missing = any(row.missing for row in self._rows)
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("dist", no_wrap=store, overflow="fold")
        for title in (self._title, "ok", "skipped", *(["failed"] if failed else [])):
            table.add_column(title, justify="right", no_wrap=True)
        if missing:
            table.add_column("not found")
        if store:
            table.add_column("store paths")
        for row in self._rows:
            table.add_row(
                escape(shown(f"{row.name} {row.version}".rstrip())),
                *self._numbers(row, failed=failed),
                *([Text(first_few(row.missing), style="bold red")] if missing else ()),
                *([Text(first_few(row.store_paths))] if store else ()),
            )
        return table

    @staticmethod
    def _numbers(row: DistTotals, *, failed: bool) -> list[Text]:
        numbers = [
            Text(str(row.changed or ""), style="bold green"),
            Text(str(row.untouched or "")),
            Text(str(row.skipped or ""), style="dim"),
        ]
        return [*numbers, *([Text(str(row.failed or ""), style="bold red")] if failed else [])]


def skipped_line(plan: Plan, outcome: Outcome | None) -> Iterator[Text]:
    """Yield the line that counts what was left alone, by reason."""
    skipped = totals(plan, outcome).skipped
    if skipped:
        counts = ", ".join(
            f"{count} {reason.value.partition(':')[0]}"
            for reason, count in sorted(skipped.items(), key=lambda item: (-item[1], item[0].value))
        )
        yield prose(f"Skipped: {counts}", style="dim")


def prose(text: str, style: str = "") -> Text:
    """Return a sentence that may be broken between words, but not in a path, which is to be copied."""
    return Text(text, style=style, no_wrap=False, overflow="ignore")
