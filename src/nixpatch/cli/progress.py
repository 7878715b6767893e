"""A progress bar for long work, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from nixpatch.stories.apply import FileOutcome

_FROM = 64 << 20  # bytes; less is done before anyone could read the bar


class Bar:
    """Counts files and bytes; shows nothing if standard error is no terminal or the work is short."""

    def __init__(self, total: int, *, wanted: bool) -> None:
        """``total`` is in bytes."""
        self._total = total
        self._wanted = wanted and total >= _FROM and sys.stderr.isatty()
        self._stack = ExitStack()
        self._advance: Callable[[int], None] | None = None

    def __enter__(self) -> Self:
        """Start nothing yet: the workers are forked first, and a fork does not go well with threads."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self._stack.close()

    def step(self, done: FileOutcome) -> None:
        """One more file is done."""
        if not self._wanted:
            return
        if self._advance is None:
            self._advance = self._start()
        self._advance(done.plan.file.size)

    def _start(self) -> Callable[[int], None]:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn  # noqa: PLC0415 - rarely used

        from nixpatch.report.text import console  # noqa: PLC0415

        columns = (TextColumn("patching"), BarColumn(), DownloadColumn())
        progress = self._stack.enter_context(Progress(*columns, console=console(stderr=True), transient=True))
        task = progress.add_task("", total=self._total)
        return lambda size: progress.advance(task, size)
