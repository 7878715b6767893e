"""What the files of an installed tree do: which libraries open, what programs print."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import resources

TOOLS = {
    "strip -S": ["strip", "-S"],
    "strip --strip-unneeded": ["strip", "--strip-unneeded"],
    "patchelf --shrink-rpath": ["patchelf", "--shrink-rpath"],
}


def loads(root: str, paths: Sequence[str]) -> dict[str, str | None]:
    """Open libraries, each in a child; return the error, or None, by path relative to ``root``."""
    probe = resources.files("nixpatch").joinpath("data/load_probe.py").read_text("utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", probe, "60", "0", "1"],  # seconds a file; stdin, stdout
        input=json.dumps(paths), capture_output=True, text=True, env=environment(), timeout=3600, check=True,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()][1:]
    return {os.path.relpath(row["path"], root): row["error"] for row in rows}


def starts(root: str, paths: Iterable[str]) -> dict[str, str]:
    """Run programs with --version; return what came of it by path relative to ``root``."""
    found = {}
    for path in paths:
        option = "-version" if "ffmpeg" in path else "--version"
        try:
            done = subprocess.run(
                [path, option], capture_output=True, env=environment(), timeout=15, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            said = f"exit {done.returncode}: {done.stdout.decode('utf-8', 'replace')}"
        except subprocess.TimeoutExpired:
            said = "runs for longer"
        except OSError as error:
            said = str(error.strerror)
        found[os.path.relpath(path, root)] = said.replace(root, "")
    return found


def environment() -> dict[str, str]:
    """Nothing that steers the loader, and no display to wait for."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("LD_", "PYTHON", "DISPLAY"))
    }
    return {**kept, "QT_QPA_PLATFORM": "offscreen"}


@dataclass(frozen=True)
class Behaviour:
    """What a tree does."""

    loads: dict[str, str | None]
    programs: dict[str, str]

    def broken(self, other: Behaviour) -> dict[str, str]:
        """Name what worked here and does not in the other."""
        lost = {
            path: str(other.loads.get(path, "not there"))
            for path, error in self.loads.items()
            if error is None and other.loads.get(path, "not there") is not None
        }
        return lost | {
            path: other.programs.get(path, "not there")
            for path, said in self.programs.items()
            if said.startswith("exit 0") and other.programs.get(path) != said
        }


def observe(root: str, libraries: Sequence[str], programs: Sequence[str]) -> Behaviour:
    """Load and run files given by path relative to a venv."""
    inside = [[os.path.join(root, path) for path in paths] for paths in (libraries, programs)]
    return Behaviour(loads(root, inside[0]), starts(root, inside[1]))


def after_tool(
    root: str, command: Sequence[str], libraries: Sequence[str], programs: Sequence[str]
) -> Behaviour:
    """Treat a copy of each file beside it, so that $ORIGIN stays true, and see what the copies do."""
    treated = {path: os.path.join(os.path.dirname(path), "treated-" + os.path.basename(path))
               for path in (*libraries, *programs)}  # fmt: skip
    with ProcessPoolExecutor() as pool:
        list(pool.map(treat, [(root, path, copy, command) for path, copy in treated.items()]))
    try:
        return observe(root, [treated[path] for path in libraries], [treated[path] for path in programs])
    finally:
        for copy in treated.values():
            os.unlink(os.path.join(root, copy))


def treat(job: tuple[str, str, str, Sequence[str]]) -> None:
    """Run one tool on a copy of one file."""
    root, path, copy, command = job
    shutil.copy2(os.path.join(root, path), os.path.join(root, copy))
    # A tool that refuses leaves the copy as it was, here and in the untouched tree.
    subprocess.run([*command, os.path.join(root, copy)], capture_output=True, check=False)


def samples(plain: Behaviour, treated: Behaviour) -> tuple[list[str], list[str]]:
    """Give the untreated names of what was treated."""

    def named(paths: Iterable[str], of: Iterable[str]) -> list[str]:
        known = set(of)
        return [
            path
            for path in paths
            if os.path.join(os.path.dirname(path), "treated-" + os.path.basename(path)) in known
        ]

    return named(plain.loads, treated.loads), named(plain.programs, treated.programs)
