"""Where the time of a run goes, stage by stage, in one process.

usage: python benchmarks/stages.py [ARGUMENTS OF nixpatch]

Runs the command line in this process with a clock round the function that begins each stage, and prints the
seconds of each, without those of the stages inside it, and what is left. Python's start is not in it.
"""

from __future__ import annotations

import functools
import gc
import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

STAGES = {
    "walk": ("nixpatch.installed.scan", "walk"),
    "RECORD, METADATA": ("nixpatch.installed.scan", "_dists"),
    "headers": ("nixpatch.elf", "read"),
    "decisions": ("nixpatch.operations.plan", "_plan_one"),
    "looking for what is unfinished": ("nixpatch.operations.plan", "mark_unrecorded"),
    "the rest of the plan": ("nixpatch.operations.patch", "make_plan"),
    "waiting for the workers": ("nixpatch.operations.edit_jobs", "_in_job_order"),
    "writing down": ("nixpatch.operations.apply", "_record"),
    "report": ("nixpatch.cli.session", "Output.plan"),
}


class Clock:
    """Counts the seconds of the innermost stage that is at work."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._inside: list[str] = []
        self._since = 0.0

    def begin(self, stage: str) -> None:
        """Go into a stage."""
        self._stop()
        self._inside.append(stage)

    def end(self) -> None:
        """Come out of it."""
        self._stop()
        self._inside.pop()

    def _stop(self) -> None:
        now = time.perf_counter()
        if self._inside:
            self.seconds[self._inside[-1]] += now - self._since
        self._since = now

    def round(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with the clock round it; of a generator, round each step."""

        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            self.begin(stage)
            try:
                found = function(*arguments, **named)
            finally:
                self.end()
            return self._steps(stage, found) if hasattr(found, "__next__") else found

        return timed

    def _steps(self, stage: str, steps: Any) -> Any:
        while True:
            self.begin(stage)
            try:
                step = next(steps)
            except StopIteration:
                return
            finally:
                self.end()
            yield step


def main() -> None:
    """Run and print."""
    gc.disable()  # as the command does
    begun = time.perf_counter()
    clock = Clock()
    for stage, (module, name) in STAGES.items():
        place: Any = importlib.import_module(module)
        *owner, last = name.split(".")
        for part in owner:
            place = getattr(place, part)
        setattr(place, last, clock.round(stage, getattr(place, last)))
    imported = time.perf_counter()
    importlib.import_module("nixpatch.cli").run(sys.argv[1:])
    ended = time.perf_counter()
    table = Table("stage", "s")
    table.add_row("imports", f"{imported - begun:.2f}")
    for stage, seconds in clock.seconds.items():
        table.add_row(stage, f"{seconds:.2f}")
    table.add_row("anything else", f"{ended - imported - sum(clock.seconds.values()):.2f}")
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
