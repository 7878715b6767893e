"""The table of a run, a row for each dist: in full on a wide terminal, without the store on a narrow one."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nixpatch.escape import shown
from nixpatch.model import Outcome, Plan
from nixpatch.report.summary import Row, rows, totals

_NAMED = 3
_IDLE = 5
"""so many dists with nothing to do are listed; of more only the number is told"""
_STORE_WIDTH = 24
"""columns that the names of store paths need to be of use"""


class ByDist:
    """Renders the table for the width that there is."""

    def __init__(self, plan: Plan, outcome: Outcome | None, *, whole: bool) -> None:
        """``whole`` lists the dists with nothing to do, however many there are."""
        every = rows(plan, outcome)
        idle = [row for row in every if not (row.changed or row.failed or row.missing)]
        self._idle = () if whole or len(idle) <= _IDLE else tuple(idle)
        self._rows = tuple(row for row in every if row not in self._idle)
        self._done = outcome is not None
        self._verb = "patch" if plan.target is not None else "restore"
        self._skipped = totals(plan, outcome).skipped

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Choose the columns."""
        full = self._table(store=True)
        names = max((len(", ".join(row.store_paths[:_NAMED])) for row in self._rows), default=0)
        narrow = console.measure(self._table(store=False)).maximum
        wide = options.max_width - narrow - 2 >= min(names, _STORE_WIDTH)
        yield full if wide else self._table(store=False)
        if self._idle:
            right = sum(row.untouched for row in self._idle)
            skipped = sum(row.skipped for row in self._idle)
            alone = f", {skipped} left alone" if skipped else ""
            text = (
                f"and {len(self._idle)} dists with nothing to do: {right} files right{alone}; -v lists them"
            )
            yield prose(text, style="dim")
        if not wide:
            store = dict.fromkeys(name for row in self._rows for name in row.store_paths)
            if store:
                yield prose(f"From the store: {', '.join(map(shown, sorted(store)))}")
        if self._skipped:
            counts = sorted(self._skipped.items(), key=lambda item: (-item[1], item[0].value))
            told = ", ".join(f"{count} {reason.value.partition(':')[0]}" for reason, count in counts)
            yield prose(f"Left alone: {told}", style="dim")

    def _table(self, *, store: bool) -> Table:
        lacking = any(row.missing for row in self._rows)
        failed = any(row.failed for row in self._rows)
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("dist", no_wrap=store, overflow="fold")
        titles = [f"{self._verb}ed" if self._done else f"to {self._verb}", "right", "left alone"]
        for title in (*titles, *(["failed"] if failed else [])):
            table.add_column(title, justify="right", no_wrap=True)
        if lacking:
            table.add_column("not met")
        if store:
            table.add_column("from the store")
        for row in self._rows:
            table.add_row(
                escape(shown(f"{row.name} {row.version}".rstrip())),
                *self._numbers(row, failed=failed),
                *([Text(_some(row.missing), style="bold red")] if lacking else ()),
                *([Text(_some(row.store_paths))] if store else ()),
            )
        return table

    @staticmethod
    def _numbers(row: Row, *, failed: bool) -> list[Text]:
        numbers = [
            Text(str(row.changed or ""), style="bold green"),
            Text(str(row.untouched or "")),
            Text(str(row.skipped or ""), style="dim"),
        ]
        return [*numbers, *([Text(str(row.failed or ""), style="bold red")] if failed else [])]


def prose(text: str, style: str = "") -> Text:
    """Return a sentence, which may be broken between words; what is to be copied may not."""
    return Text(text, style=style, no_wrap=False, overflow="fold")


def _some(names: Sequence[str]) -> str:
    """Name the first few: the rest is what -vv is for."""
    more = len(names) - _NAMED
    return ", ".join(map(shown, names[:_NAMED])) + (f" and {more} more" if more > 0 else "")
