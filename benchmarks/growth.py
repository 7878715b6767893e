"""How the cost grows: with the number of files and with the bytes of one file.

usage: python benchmarks/growth.py [--files N ...] [--megabytes N ...] [--keep DIR]

Makes one small library that needs another one, a store that has it, and trees of copies; then of one library
with data behind it. Patches each as a process and prints wall and CPU time, memory
(getrusage(2)) and the straight line through the CPU times, whose worst miss tells whether it is one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from measuring import Sample, have_at_hand, measure
from rich.console import Console
from rich.table import Table

_PACKAGE = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x-1.0"
_ROOM = 200  # files to a directory


class Bench:
    """A scratch directory with a store and the library that is copied."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.store = os.path.join(directory, "nix", "store")
        self.template = os.path.join(directory, "libuser.so")
        lib = os.path.join(self.store, _PACKAGE, "lib")
        os.makedirs(lib)
        self._compile(os.path.join(lib, "libx.so.1"), "int x = 1;", "-Wl,-soname,libx.so.1")
        self._compile(
            self.template, "extern int x; int user(void) { return x; }", os.path.join(lib, "libx.so.1")
        )

    def _compile(self, to: str, code: str, *options: str) -> None:
        command = ["gcc", "-shared", "-fPIC", "-o", to, "-x", "c", "-", "-x", "none", *options]
        subprocess.run(command, input=code, text=True, check=True)

    def patch(self, count: int, size: int = 0) -> Sample:
        """Make a tree of so many files, each of ``size`` bytes if it has fewer, and patch it."""
        tree = os.path.join(self.directory, "tree")
        for number in range(count):
            place = os.path.join(tree, f"d{number // _ROOM}")
            os.makedirs(place, exist_ok=True)
            path = shutil.copy(self.template, os.path.join(place, f"lib{number}.so"))
            _fill(path, size)
        options = ["--store", self.store, "--python", sys.executable, "--no-gc-roots", "--quiet"]
        have_at_hand(2 * count * size)
        found = measure([sys.executable, "-m", "nixpatch", tree, *options])
        shutil.rmtree(tree)
        return found


def _fill(path: str, size: int) -> None:
    """Append noise until the file has ``size`` bytes: neither a hole nor anything that could be packed."""
    noise = os.urandom(1 << 20)
    with open(path, "ab") as file:
        while (left := size - file.tell()) > 0:
            file.write(noise[:left])


def show(console: Console, title: str, amounts: Sequence[int], samples: Sequence[Sample]) -> None:
    """Print a table and the line through it."""
    table = Table(title=title)
    for column in (title, "wall s", "CPU s", "peak MB"):
        table.add_column(column, justify="right")
    for amount, run in zip(amounts, samples, strict=True):
        table.add_row(str(amount), f"{run.wall:.2f}", f"{run.cpu:.2f}", f"{run.peak:.0f}")
    console.print(table)
    if len(amounts) > 1:
        slope, base = statistics.linear_regression(amounts, [run.cpu for run in samples])
        worst = max(abs(run.cpu - base - slope * n) for n, run in zip(amounts, samples, strict=True))
        console.print(
            f"CPU: {base:.2f} s and {slope * 1000:.2f} ms for each; off by {worst:.2f} s at the most"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, nargs="*", default=[10, 100, 1000, 10_000])
    parser.add_argument("--megabytes", type=int, nargs="*", default=[1, 16, 256, 1024, 4096])
    parser.add_argument("--keep", metavar="DIR", help="work here and leave it")
    options = parser.parse_args()
    directory = os.path.abspath(options.keep or tempfile.mkdtemp(prefix="nixpatch-growth-"))
    os.environ["XDG_CACHE_HOME"] = os.path.join(directory, "cache")
    console = Console(width=100)
    try:
        bench = Bench(directory)
        bench.patch(1)  # byte code and page cache
        show(console, "files", options.files, [bench.patch(count) for count in options.files])
        show(
            console, "MB of one file", options.megabytes, [bench.patch(1, n << 20) for n in options.megabytes]
        )
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
