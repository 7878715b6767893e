"""A progress bar for long work, on a terminal only: what is done, how many files and bytes, how long still.

No thread draws it: the workers are forked, and a fork does not go well with threads. It is drawn when
something is done, ten times a second at the most, and never where the work ends before anyone could read it.
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

_AFTER = 0.4
_EVERY = 0.1
_WIDE = 76
"""columns, from which speed and time have room beside the bar"""


class Bar:
    """Shows one phase after the other; nothing if standard error is no terminal."""

    def __init__(self, *, wanted: bool) -> None:
        """``wanted``: somebody is there to look."""
        self._wanted = wanted and sys.stderr.isatty()

    def reading(self, files: Iterable[TreeFile]) -> Iterator[TreeFile]:
        """Pass the files on as their headers are read."""
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
        """Give what is to be called after each file of a plan that is carried out."""
        if not self._wanted:
            yield lambda _: None
            return
        verb = "patching" if plan.target is not None else "restoring"
        changes = [file for file in plan.files if file.edit is not None or file.unrecorded]
        with _Phase(verb, len(changes), sum(file.file.size for file in changes)) as phase:
            yield lambda done: phase.step(done.plan.file.size)


class _Phase:
    """One bar, from the moment at which the work turns out to be long."""

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
        """One more file is done."""
        self._done += 1
        self._bytes += size
        now = time.monotonic()
        if now - self._begun < _AFTER or now - self._drawn < _EVERY:
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
            if screen.width >= _WIDE:
                columns.append(rich.TransferSpeedColumn())
        if screen.width >= _WIDE:
            columns.append(rich.TimeRemainingColumn(compact=True))
        progress = rich.Progress(*columns, console=screen, transient=True, auto_refresh=False, expand=True)
        total = self._size if self._size is not None else self._files
        progress.add_task(self._name, total=total, files="")
        progress.start()
        return progress
