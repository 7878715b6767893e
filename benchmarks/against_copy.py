"""nixpatch against the least that any such tool must do: copy the files that change, and hash them.

usage: python benchmarks/against_copy.py [--rounds N] [--keep DIR] [WHEEL...]

Installs the wheels into a scratch venv once, makes a fresh copy of it for each round, and prints, for each
command, the median, the fastest and the slowest wall time, CPU time and peak memory as the kernel accounts
for them (getrusage(2)), and the ratio to the copy. The rounds are interleaved: machines drift.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

WHEELS = (
    "numpy", "pandas", "scipy", "lxml", "pyzmq", "grpcio", "opencv-python-headless", "PySide6-Essentials",
    "psycopg2-binary", "cryptography", "pillow", "pyarrow", "ruff", "uv", "cmake", "ninja",
)  # fmt: skip

COPY = """
import hashlib, json, os, sys
from concurrent.futures import ProcessPoolExecutor
def work(path):
    with open(path, "rb") as old, open(path + ".copy", "wb") as new:
        left = os.fstat(old.fileno()).st_size
        while left:
            left -= os.copy_file_range(old.fileno(), new.fileno(), left)
        if "--fsync" in sys.argv:
            os.fsync(new.fileno())
    with open(path + ".copy", "rb") as new:
        hashlib.file_digest(new, "sha256")
    os.replace(path + ".copy", path)
paths = json.load(sys.stdin)
with ProcessPoolExecutor(int(sys.argv[1])) as pool:
    list(pool.map(work, paths))
"""


@dataclass(frozen=True)
class Sample:
    """One run of one command."""

    wall: float
    cpu: float
    peak: float
    """MB, of the largest process"""


def measure(command: list[str], stdin: str = "") -> Sample:
    """Run a command and account for it and its children."""
    with tempfile.TemporaryFile("w+") as given, open(os.devnull, "wb") as null:
        given.write(stdin)
        given.seek(0)
        begun = time.monotonic()
        process = subprocess.Popen(command, stdin=given, stdout=null)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[:4]} failed with {process.returncode}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


def install(directory: str, wheels: list[str]) -> str:
    """Make the venv that every round copies."""
    venv = os.path.join(directory, "pristine")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = os.path.join(venv, "bin", "python")
    command = [python, "-m", "pip", "install", "-q", "--only-binary", ":all:", "--disable-pip-version-check"]
    subprocess.run([*command, *wheels], check=True)
    return venv


def fresh(pristine: str, directory: str) -> str:
    """Return a copy in the page cache, so that no command pays for the disk of another."""
    venv = os.path.join(directory, "venv")
    shutil.rmtree(venv, ignore_errors=True)
    shutil.copytree(pristine, venv, symlinks=True)
    os.sync()
    return venv


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheels", nargs="*", default=list(WHEELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", help="work here and leave it")
    options = parser.parse_args()
    directory = options.keep or tempfile.mkdtemp(prefix="nixpatch-benchmark-")
    os.makedirs(directory, exist_ok=True)
    try:
        bench(directory, options.wheels, options.rounds)
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)


def bench(directory: str, wheels: list[str], rounds: int) -> None:
    """Measure everything in one session."""
    pristine = os.path.join(directory, "pristine")
    if not os.path.isdir(pristine):
        install(directory, wheels)
    nixpatch = [sys.executable, "-m", "nixpatch"]
    venv = fresh(pristine, directory)
    told = subprocess.run(
        [*nixpatch, "plan", "--json", venv], capture_output=True, text=True, check=False
    ).stdout
    files = json.loads(told)["trees"][0]["files"]
    changed = [file["path"] for file in files if file["status"] == "changed"]
    size = sum(os.path.getsize(path) for path in changed)
    cores = str(len(os.sched_getaffinity(0)))
    samples: dict[str, list[Sample]] = {}
    for _ in range(rounds):
        for name, command, stdin in (
            ("copy + sha256", [sys.executable, "-c", COPY, cores], json.dumps(changed)),
            ("copy + fsync + sha256", [sys.executable, "-c", COPY, cores, "--fsync"], json.dumps(changed)),
            ("nixpatch VENV", [*nixpatch, venv], ""),
        ):
            venv = fresh(pristine, directory)
            samples.setdefault(name, []).append(measure(command, stdin))
        samples.setdefault("nixpatch VENV, nothing to do", []).append(measure([*nixpatch, venv]))
        samples.setdefault("nixpatch verify VENV", []).append(measure([*nixpatch, "verify", venv]))
    table = Table(
        title=f"{len(changed)} of {len(files)} ELF files change, {size / 1e6:.0f} MB, {cores} cores"
    )
    for column in ("command", "wall s", "min", "max", "CPU s", "peak MB", "x copy"):
        table.add_column(column, justify="left" if column == "command" else "right")
    base = samples["copy + sha256"]
    for name, runs in samples.items():
        walls = [run.wall for run in runs]
        ratio = statistics.median(run.wall / other.wall for run, other in zip(runs, base, strict=True))
        cells = (statistics.median(walls), min(walls), max(walls), statistics.median(run.cpu for run in runs))
        peak = max(run.peak for run in runs)
        table.add_row(name, *(f"{cell:.2f}" for cell in cells), f"{peak:.0f}", f"{ratio:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
