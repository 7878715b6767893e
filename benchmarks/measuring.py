"""Running commands and accounting for them, as a table and as a picture."""

from __future__ import annotations

import contextlib
import mmap
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from rich.table import Table


@dataclass(frozen=True)
class Sample:
    """One run of one command."""

    wall: float
    cpu: float
    peak: float
    """MB, of the largest process"""


_LAUNCHER = """
import os, sys, time
begun = time.monotonic()
_, status, usage = os.wait4(os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ), 0)
seconds = time.monotonic() - begun
with open(sys.argv[1], "w") as file:
    print(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000, file=file)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""a small process in between: a child begins with the peak memory of the one that it was forked from"""


def measure(command: Sequence[str], stdin: str = "", *, codes: Sequence[int] = (0,)) -> Sample:
    """Run a command and account for it and its children as the kernel does (getrusage(2))."""
    with tempfile.NamedTemporaryFile("r") as account:
        done = subprocess.run(
            [sys.executable, "-S", "-E", "-c", _LAUNCHER, account.name, *command],
            input=stdin,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode not in codes:
            sys.exit(f"{' '.join(command[:4])} failed with {done.returncode}:\n{done.stdout[-2000:]}")
        return Sample(*map(float, account.read().split()))


def have_at_hand(size: int) -> None:
    """Touch so many bytes of memory and give them back to the kernel, for the command that comes next.

    A virtual machine may have to ask its host for each page that it has not used for a while, which takes
    several times as long as to copy into it: who came first would pay for all.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, max(size, mmap.PAGESIZE), flags=flags).close()


def memory(command: Sequence[str]) -> float:
    """Return the peak memory of a command and all of its children together, shared pages counted once, in MB.

    Looked at every few hundredths of a second (PSS, proc(5)), so not for a run whose time counts.
    """
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        done = threading.Event()

        def look() -> None:
            nonlocal peak
            while not done.wait(0.03):
                peak = max(peak, sum(_pss(pid) for pid in _family(process.pid)))

        watcher = threading.Thread(target=look)
        watcher.start()
        process.wait()
        done.set()
        watcher.join()
    return peak


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        for child in file.read().split():
            yield from _family(int(child))


def _pss(pid: int) -> float:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1000
    return 0.0


def ratio(runs: Sequence[Sample], base: Sequence[Sample]) -> float:
    """Return the median of the ratios of wall times, round by round: machines drift."""
    return statistics.median(run.wall / other.wall for run, other in zip(runs, base, strict=False))


def table(title: str, samples: Mapping[str, Sequence[Sample]], bases: Sequence[str] = ()) -> Table:
    """Render the runs of each command, with the ratio to each of ``bases``."""
    shown = Table(title=title)
    for column in ("command", "wall s", "min", "max", "CPU s", "peak MB", *(f"x {base}" for base in bases)):
        shown.add_column(column, justify="left" if column == "command" else "right")
    for name, runs in samples.items():
        walls = [run.wall for run in runs]
        cells = (statistics.median(walls), min(walls), max(walls), statistics.median(r.cpu for r in runs))
        ratios = (f"{ratio(runs, samples[base]):.2f}" if len(bases) else "" for base in bases)
        peak = max(run.peak for run in runs)
        shown.add_row(name, *(f"{cell:.2f}" for cell in cells), f"{peak:.0f}", *ratios)
    return shown


def picture(title: str, bars: Mapping[str, float], *, marked: str) -> str:
    """Draw horizontal bars of seconds as SVG; the one called ``marked`` in another colour."""
    row, left, width = 26, 250, 430
    height = 44 + row * len(bars)
    longest = max(bars.values())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 90} {height}">',
        "<style>text { font: 13px sans-serif }</style>",
        f'<rect width="100%" height="{height}" fill="#fff"/>',
        f'<text x="10" y="22" style="font-weight: bold">{escape(title)}</text>',
    ]
    for index, (name, seconds) in enumerate(bars.items()):
        y = 38 + row * index
        colour = "#2563eb" if name == marked else "#9ca3af"
        length = max(width * seconds / longest, 1)
        lines += [
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="18" fill="{colour}"/>',
            f'<text x="{left + length + 6:.1f}" y="{y + 14}">{seconds:.1f} s</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
