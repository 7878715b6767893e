"""What loading costs after a patch: names that ld.so tries in vain, and directories that serve nothing.

usage: python benchmarks/loading.py [--keep DIR] [--loader LD_SO] [MODULE[=WHEEL]...]

Installs the wheels into a scratch venv, and for each module imports it in the untouched venv and in the
patched one under strace, on the machine as it is. Counts the openat(2) calls for names of shared libraries
that fail, and the libraries that were opened. In directories that it has not met yet ld.so tries some
subdirectories first (glibc-hwcaps, and tls and x86_64 before glibc 2.37), once in a process: these are
counted apart. Of the patched tree it then asks, for each entry of each search path that nixpatch wrote,
whether a need of the file is served from it; entries that the wheel had before stay on purpose, and so does
the driver directory. Exits 1 if an entry serves nothing. Needs strace.

With an LD_SO that reads resolution caches (https://github.com/NixOS/nixpkgs/pull/535735), it also imports
each module under that: patched with --tag RUNPATH, and with --resolution-cache besides. No distribution has
such a loader yet.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from measuring import Sample, measure
from rich.console import Console
from rich.table import Table
from speed import NIXPATCH, Bench

from nixpatch.model import ElfFacts, FilePlan
from nixpatch.policy import default_policy
from nixpatch.resolve.search_path import expand, plain

MODULES = ("numpy", "scipy.linalg=scipy", "pandas", "PySide6.QtWidgets=PySide6-Essentials", "torch")
_CALL = re.compile(r'openat\([^,]+, "([^"]*)".* = (-1 E\w+|\d+)')
_PROBED = re.compile(r"/(glibc-hwcaps/[^/]+|tls|x86_64|tls/x86_64|haswell)/[^/]+\Z")
_LIBRARY = re.compile(r"\.so(\.[\d.]+)?\Z|\.so\.[^/]*\Z")


@dataclass(frozen=True)
class Look:
    """One import."""

    opened: int
    in_vain: int
    probed: int
    """of these, subdirectories for other processors"""
    error: str
    sample: Sample


def look(venv: str, module: str, loader: str | None = None) -> Look:
    """Import a module under strace, and once more without it for the time; with another loader, if given."""
    python = [*filter(None, [loader]), os.path.join(venv, "bin", "python"), "-c", f"import {module}"]
    with tempfile.NamedTemporaryFile("r", errors="surrogateescape") as log:
        traced = ["strace", "-f", "-e", "trace=openat", "-o", log.name, *python]
        done = subprocess.run(traced, capture_output=True, text=True, check=False)
        calls = [found.groups() for line in log if (found := _CALL.search(line))]
    libraries = [(path, result) for path, result in calls if _LIBRARY.search(path)]
    error = done.stderr.strip().splitlines()[-1] if done.returncode else ""
    failed = [path for path, result in libraries if result.startswith("-")]
    probed = sum(_PROBED.search(path) is not None for path in failed)
    opened = sum(not result.startswith("-") for _, result in libraries)
    return Look(opened, len(failed), probed, error, measure(python, codes=(0, 1)))


def idle(files: tuple[FilePlan, ...]) -> list[str]:
    """Return the entries that nixpatch wrote and that serve no need."""
    found = []
    for file in files:
        facts = file.facts
        if not isinstance(facts, ElfFacts) or facts.original_sha256 is None:
            continue
        directory = os.path.dirname(file.file.path)
        before = {expand(entry, directory) for entry in (facts.original.search_path or "").split(":")}
        serving = {os.path.dirname(answer.path) for answer in file.answers if answer.path is not None}
        for entry in (facts.current.search_path or "").split(":"):
            where = expand(entry, directory) if entry else None
            if where is None or where in before or where == default_policy().driver_directory:
                continue
            if where not in {plain(place, directory) for place in serving}:
                found.append(f"{file.file.path}: {entry}")
    return found


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", default=list(MODULES))
    parser.add_argument("--keep", metavar="DIR", help="work here and leave it")
    parser.add_argument("--loader", metavar="LD_SO", help="a loader that reads resolution caches")
    options = parser.parse_args()
    directory = os.path.abspath(options.keep or tempfile.mkdtemp(prefix="nixpatch-loading-"))
    wheels = {
        module: wheel or module for module, _, wheel in (name.partition("=") for name in options.modules)
    }
    try:
        bench = Bench(directory, Console(stderr=True))
        pristine = bench.prepare("loading", list(wheels.values()), dependencies=True)
        before = {module: look(pristine, module) for module in wheels}
        patched = bench.fresh(pristine)
        measure([*NIXPATCH, patched, "--store", bench.store, "--no-gc-roots"], codes=(0, 1))
        after = {module: look(patched, module) for module in wheels}
        useless = idle(bench.plan(patched).files)
        cached: list[dict[str, Look]] = []
        for more in ((), ("--resolution-cache",)) if options.loader else ():
            tree = bench.fresh(pristine)
            flags = ["--store", bench.store, "--no-gc-roots", "--tag", "RUNPATH", *more]
            measure([*NIXPATCH, tree, *flags], codes=(0, 1))
            cached.append({module: look(tree, module, options.loader) for module in wheels})
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)
    shown = Table(
        "module",
        "opened",
        "after",
        "tried in vain",
        "after",
        "of these probed",
        "after",
        "import s",
        "after",
        "error",
    )
    for module, old in before.items():
        new = after[module]
        numbers = (old.opened, new.opened, old.in_vain, new.in_vain, old.probed, new.probed)
        walls = (old.sample.wall, new.sample.wall)
        shown.add_row(module, *map(str, numbers), *(f"{wall:.2f}" for wall in walls), new.error or old.error)
    Console(width=120).print(shown)
    if cached:
        shown = Table("module", "tried in vain", "with caches", "of these probed", "with caches", "error")
        for module, old in cached[0].items():
            new = cached[1][module]
            tried = (old.in_vain, new.in_vain, old.probed, new.probed)
            shown.add_row(module, *map(str, tried), new.error or old.error)
        Console(width=120).print(shown)
    print(f"{len(useless)} entries written that serve nothing", *useless, sep="\n  ")
    return int(bool(useless))


if __name__ == "__main__":
    sys.exit(main())
