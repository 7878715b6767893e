"""A progress bar with files, bytes and remaining time, on a terminal only.

It is drawn after a file is done, at most ten times a second, and not at all for short work. No thread draws
it: workers are forked, and forking a process with threads is unsafe (fork(2)).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from nixpatch.model import FileOutcome, Plan, TreeFile

if TYPE_CHECKING:
    from rich.progress import Progress

_DELAY = 0.4
"""seconds before the bar is drawn"""
_INTERVAL = 0.1
"""seconds between two drawings"""
_MIN_WIDTH = 76
"""columns that speed and time need beside the bar"""


class Bar:
    """Shows the progress of one phase after the other; nothing if standard error is no terminal."""

    def __init__(self, *, wanted: bool) -> None:
        """``wanted`` False shows nothing, even on a terminal."""
        self._wanted = wanted and sys.stderr.isatty()

    def reading(self, files: Iterable[TreeFile]) -> Iterator[TreeFile]:
        """Yield the files; the caller reads the headers of each."""
        if not self._wanted:
            yield from files
            return
        files = list(files)
        with _Phase("reading", len(files), None) as phase:
            for file in files:
                yield file
                phase.step(0)

    @contextmanager
    def writing(self, plan: Plan) -> Iterator[Callable[[FileOutcome], None]]:
        """Yield the function to call after each file of a plan is written."""
        if not self._wanted:
            yield lambda _: None
            return
        verb = "patching" if plan.target is not None else "restoring"
        changes = [file for file in plan.files if file.edit is not None or file.unrecorded]
        with _Phase(verb, len(changes), sum(file.file.size for file in changes)) as phase:
            yield lambda done: phase.step(done.plan.file.size)


class _Phase:
    """One bar, drawn once the work takes longer than the delay."""

    def __init__(self, name: str, files: int, size: int | None) -> None:
        self._name = name
        self._files, self._size = files, size
        self._done = self._bytes = 0
        self._begun = self._drawn = time.monotonic()
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self, size: int) -> None:
        """Count one more file of ``size`` bytes."""
        self._done += 1
        self._bytes += size
        now = time.monotonic()
        if now - self._begun < _DELAY or now - self._drawn < _INTERVAL:
            return
        self._drawn = now
        if self._progress is None:
            self._progress = self._start()
        self._progress.update(
            self._progress.task_ids[0],
            completed=self._bytes if self._size is not None else self._done,
            files=f"{self._done} of {self._files} files",
        )
        self._progress.refresh()

    def _start(self) -> Progress:
        from rich import progress as rich  # noqa: PLC0415 - rarely used

        from nixpatch.report.text import console  # noqa: PLC0415

        screen = console(stderr=True, wrap=True)
        columns: list[rich.ProgressColumn | str] = [
            "{task.description}",
            rich.BarColumn(None),
            "{task.fields[files]}",
        ]
        if self._size is not None:
            columns.append(rich.DownloadColumn())
            if screen.width >= _MIN_WIDTH:
                columns.append(rich.TransferSpeedColumn())
        if screen.width >= _MIN_WIDTH:
            columns.append(rich.TimeRemainingColumn(compact=True))
        progress = rich.Progress(*columns, console=screen, transient=True, auto_refresh=False, expand=True)
        total = self._size if self._size is not None else self._files
        progress.add_task(self._name, total=total, files="")
        progress.start()
        return progress
