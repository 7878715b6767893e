"""Patched wheel files of real projects, from PyPI to a root like that of NixOS and back.

usage: python benchmarks/wheels.py [--wheels DIR] [--keep DIR] [NAME...]

Takes the wheels of PyPI (or those in DIR), patches each with ``nixpatch wheel`` for the store of the tests,
once on the disk and once in /dev/shm, and checks

- that both have the same bytes, and that ``nixpatch restore`` gives the original, or says that it cannot;
- that ``zipfile``, twine, check-wheel-contents, ``wheel unpack`` and ``installer`` accept it;
- that pip and uv install it into a new venv, each with what it requires from the same directory and no index;
  that it works there in a root that has the store only, and that ``nixpatch verify`` has nothing against it.

twine and check-wheel-contents object to some wheels of PyPI: to the patched one they may do the same.
Exits 1 if something fails. Needs Nix and bubblewrap, as the tests do, and 5 GB for temporary files.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from uv import find_uv_bin

sys.path.insert(0, os.path.realpath(os.path.join(__file__, "../../tests")))

from support.testbed import store as testbed
from support.testbed.sandbox import Sandbox
from support.testbed.venv import create

NIXPATCH = (sys.executable, "-m", "nixpatch")
TOOLS = ("installer", "wheel", "twine", "check-wheel-contents")
MEMORY = "/dev/shm"


@dataclass(frozen=True)
class Project:
    """One dist, or several that belong together, and what has to work after the installation."""

    name: str
    check: Sequence[str]
    """arguments of the venv's Python, or the name of a program in ``bin`` and its arguments"""
    dists: Sequence[str] = ()
    """what to download; empty is the name"""
    options: Sequence[str] = ()
    """of ``nixpatch wheel``"""
    needs: Sequence[str] = ()
    """dists of others that the check imports, too"""

    @property
    def wanted(self) -> Sequence[str]:
        """Return the names of the dists."""
        return self.dists or (self.name,)


_QT = (
    "import os; os.environ['QT_QPA_PLATFORM'] = 'offscreen'\n"
    "from PySide6.QtWidgets import QApplication, QLabel\n"
    "app = QApplication([]); label = QLabel('x'); label.show(); app.processEvents(); print(label.isVisible())"
)
_CHARTS = "import PySide6.QtCharts as charts; print(charts.QChart)"
_ZMQ = (
    "import zmq; c = zmq.Context(); a, b = c.socket(zmq.PAIR), c.socket(zmq.PAIR)\n"
    "a.bind('inproc://x'); b.connect('inproc://x'); b.send(b'x'); assert a.recv() == b'x'"
)
PROJECTS = (
    Project("numpy", ("-c", "import numpy as n; print(n.linalg.svd(n.eye(3))[1], n.fft.fft(n.ones(4)))")),
    Project("pyzmq", ("-c", _ZMQ)),
    Project("ruff", ("ruff", "--version")),
    Project("cmake", ("cmake", "--version")),
    Project("ninja", ("ninja", "--version")),
    Project("PySide6-Essentials", ("-c", _QT), dists=("PySide6-Essentials", "shiboken6")),
    Project(
        "PySide6-Addons",
        ("-c", _CHARTS),
        dists=("PySide6-Addons", "PySide6-Essentials", "shiboken6"),
        options=("--ignore-missing", "libpulse.so.0", "--ignore-missing", "libpcsclite.so.1"),
    ),
    Project(
        "opencv-python-headless",
        ("-c", "import cv2, numpy as n; print(cv2.GaussianBlur(n.eye(9), (3, 3), 0).sum())"),
        needs=("numpy",),
    ),
    Project("lxml", ("-c", "from lxml import etree; print(etree.fromstring('<a><b/></a>').xpath('//b'))")),
    Project("pyarrow", ("-c", "import pyarrow as p, pyarrow.parquet; print(p.array([1, 2]).sum())")),
    Project("uv", ("uv", "--version")),
)


@dataclass
class Row:
    """The results for one project."""

    name: str
    sizes: str = ""
    faults: list[str] = field(default_factory=list)
    restored: str = ""
    installed: list[str] = field(default_factory=list)


def run(command: Sequence[str], **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command and capture what it prints; ``env`` is added to the environment."""
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env})


class Bench:
    """The directories and tools of one run."""

    def __init__(self, directory: str, downloads: str | None) -> None:
        self.directory = directory
        self.downloads = downloads or os.path.join(directory, "downloads")
        self.patched = os.path.join(directory, "patched")
        self.store = testbed.build()
        self.sandbox = Sandbox(self.store)
        self.bin = os.path.join(directory, "tools", "bin")
        self.memory = tempfile.mkdtemp(prefix="nixpatch-wheels-", dir=MEMORY)

    def prepare(self, names: Sequence[str]) -> None:
        """Download wheels and tools that are not there."""
        if not os.path.isdir(self.bin):
            subprocess.run([find_uv_bin(), "venv", "-q", os.path.dirname(self.bin)], check=True)
            pip = [find_uv_bin(), "pip", "install", "-q", "-p", os.path.dirname(self.bin)]
            subprocess.run([*pip, *TOOLS], check=True)
        os.makedirs(self.downloads, exist_ok=True)
        lacking = [name for name in names if not self._wheels(self.downloads, name)]
        if lacking:
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
            subprocess.run([*pip, "--python-version", "3.11", "-d", self.downloads, *lacking], check=True)

    def _wheels(self, directory: str, name: str) -> list[str]:
        stem = re.sub(r"[-_.]+", "_", name).lower()
        return [
            os.path.join(directory, file)
            for file in sorted(os.listdir(directory))
            if file.endswith(".whl") and file.lower().startswith(f"{stem}-")
        ]

    def of(self, project: Project, directory: str) -> list[str]:
        """Return the wheels of a project in a directory."""
        return [wheel for name in project.wanted for wheel in self._wheels(directory, name)]

    def patch(self, project: Project, output: str, row: Row, **env: str) -> list[str]:
        """Patch the wheels of a project; return the new ones."""
        wheels = self.of(project, self.downloads)
        command = [*NIXPATCH, "wheel", "-q", "--python", self.store.python, "-w", output]
        done = run([*command, *project.options, *wheels], **env)
        if done.returncode:
            row.faults.append(f"wheel: {done.stdout} {done.stderr}")
        return self.of(project, output) if os.path.isdir(output) else []

    def check(self, project: Project) -> Row:
        """Do everything for one project."""
        row = Row(project.name)
        place = os.path.join(self.patched, project.name)
        patched = self.patch(project, place, row)
        again = os.path.join(self.memory, project.name)
        twice = self.patch(project, again, row, TMPDIR=self.memory)
        if [*map(os.path.basename, patched)] != [*map(os.path.basename, twice)] or not all(
            map(same, patched, twice)
        ):
            row.faults.append("other bytes on another file system")
        shutil.rmtree(again, ignore_errors=True)
        originals = self.of(project, self.downloads)
        row.sizes = f"{size(originals)} -> {size(patched)}"
        for original, wheel in zip(originals, patched, strict=True):
            row.faults += self.refused_by(wheel, original)
            row.restored = self.restored(wheel, original, row)
        for installer in (self.by_pip, self.by_uv):
            self.installed(project, installer, row)
        return row

    def refused_by(self, wheel: str, original: str) -> list[str]:
        """Return what the tools have against a wheel and not against the original."""
        faults = self.faults_of(wheel)
        if faults:  # twine wants a type of the description that lxml does not name
            of_original = self.faults_of(original)
            faults = {name: text for name, text in faults.items() if name not in of_original}
        objections, known = (
            set(re.findall(r"\bW\d{3}\b.*", run([f"{self.bin}/check-wheel-contents", path]).stdout))
            for path in (wheel, original)
        )
        texts = [f"{name}: {text}" for name, text in faults.items()]
        return texts + [f"check-wheel-contents: {text}" for text in sorted(objections - known)]

    def faults_of(self, wheel: str) -> dict[str, str]:
        """Return the tools that refuse a wheel, with what they print."""
        with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(wheel) as archive:
            commands = {
                "twine": [f"{self.bin}/twine", "check", "--strict", wheel],
                "wheel unpack": [f"{self.bin}/wheel", "unpack", "-d", scratch, wheel],
                "installer": [f"{self.bin}/python", "-m", "installer", "-d", f"{scratch}/d", wheel],
            }
            faults = {} if archive.testzip() is None else {"testzip": "a member is damaged"}
            for name, command in commands.items():
                done = run(command)
                if done.returncode:
                    faults[name] = f"{done.stdout[-300:]} {done.stderr[-300:]}"
        return faults

    def restored(self, wheel: str, original: str, row: Row) -> str:
        """Restore a wheel, and compare."""
        with tempfile.TemporaryDirectory() as scratch:
            done = run([*NIXPATCH, "restore", "-q", "-w", scratch, wheel])
            output = os.path.join(scratch, os.path.basename(original))
            if done.returncode == 0 and filecmp.cmp(output, original, shallow=False):
                return "same bytes"
            if done.returncode == 1 and "was packed by another program than zlib" in done.stderr:
                return "refused: not packed by zlib"
            row.faults.append(f"restore: {done.stdout} {done.stderr}")
            return "failed"

    def by_pip(self, venv: str, links: Sequence[str], names: Sequence[str]) -> list[str]:
        """Return the command line of pip."""
        return [f"{venv}/bin/python", "-m", "pip", "install", "-q", "--no-index", *links, *names]

    def by_uv(self, venv: str, links: Sequence[str], names: Sequence[str]) -> list[str]:
        """Return the command line of uv."""
        uv = [find_uv_bin(), "pip", "install", "-q", "--no-cache", "--no-index", "-p", venv]
        return [*uv, *links, *names]

    def installed(
        self, project: Project, installer: Callable[[str, Sequence[str], Sequence[str]], list[str]], row: Row
    ) -> None:
        """Install the patched wheels into a venv, run the check in the sandbox, and verify."""
        name = installer.__name__.removeprefix("by_")
        places = [os.path.join(self.patched, other) for other in (project.name, *project.needs)]
        # The originals are offered, too: the build tag has to win.
        links = [word for place in (*places, self.downloads) for word in ("--find-links", place)]
        venv = create(self.store, os.path.join(self.directory, f"venv-{name}"), pip=name == "pip")
        try:
            done = run(installer(venv.path, links, project.wanted))
            if done.returncode:
                row.faults.append(f"{name} install: {done.stderr}")
                return
            first, *rest = project.check
            command = [venv.python, first, *rest] if first == "-c" else [f"{venv.bin}/{first}", *rest]
            done = self.sandbox.run(command, read_only=[venv.path])
            if done.returncode:
                row.faults.append(f"in the sandbox, installed by {name}: {done.stdout} {done.stderr}")
            verdict = run([*NIXPATCH, "verify", venv.path, *project.options])
            if verdict.returncode:
                row.faults.append(f"verify, installed by {name}: {verdict.stdout} {verdict.stderr}")
            if not done.returncode and not verdict.returncode:
                row.installed.append(name)
        finally:
            shutil.rmtree(venv.path, ignore_errors=True)


def same(first: str, second: str) -> bool:
    """Whether two files have the same bytes."""
    return filecmp.cmp(first, second, shallow=False)


def size(paths: Sequence[str]) -> str:
    """Return the size of some files."""
    return f"{sum(map(os.path.getsize, paths)) / 1e6:.1f}"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Patch wheel files of real projects, install, restore.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="some of the projects")
    parser.add_argument("--wheels", metavar="DIR", help="where the wheels are, or are downloaded to")
    parser.add_argument("--keep", metavar="DIR", help="work here, and leave the patched wheels")
    options = parser.parse_args()
    projects = [project for project in PROJECTS if not options.names or project.name in options.names]
    directory = os.path.abspath(options.keep or tempfile.mkdtemp(prefix="nixpatch-wheels-"))
    os.makedirs(directory, exist_ok=True)
    bench = Bench(directory, options.wheels and os.path.abspath(options.wheels))
    rows: list[Row] = []
    try:
        wanted = {name for project in projects for name in project.wanted}
        bench.prepare(sorted(wanted | {need for project in projects for need in project.needs}))
        for project in projects:
            rows.append(bench.check(project))
            print(f"{project.name}: {'; '.join(rows[-1].faults) or 'no fault'}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(bench.memory, ignore_errors=True)
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)
    table = Table("wheel", "MB", "restored", "works, installed by", "faults")
    for row in rows:
        table.add_row(row.name, row.sizes, row.restored, ", ".join(row.installed), str(len(row.faults)))
    Console(width=110).print(table)
    return 1 if any(row.faults for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
