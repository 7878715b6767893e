"""A dist that opens libraries by name, from Python and from a script, for the small world."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from support.installed_trees import dist
from support.world import World, record_row

BASH = "1" * 32 + "-bash-5.2p37"
SOURCE = b"""\
import ctypes
import ctypes.util

def by_soname():
    return ctypes.CDLL("libanswer.so.1").answer()

def without_version():
    return ctypes.CDLL("libanswer.so").answer()

def by_find_library():
    return ctypes.CDLL(ctypes.util.find_library("answer")).answer()
"""
SCRIPT = b"#!/bin/bash -e\n[[ $BASH ]] && echo ran by ${BASH##*/}\n"
STARTUP = "nixpatch-opener.pth"


@dataclass(frozen=True)
class Opener:
    """The dist ``opener`` in a world, and a bash in its store."""

    world: World
    name: str = "opener"

    @property
    def info(self) -> str:
        return os.path.join(self.world.site, f"{self.name}-1.0.dist-info")

    @property
    def record(self) -> str:
        return os.path.join(self.info, "RECORD")

    @property
    def provenance(self) -> str:
        return os.path.join(self.info, "nixpatch.json")

    @property
    def startup(self) -> str:
        return os.path.join(self.world.site, STARTUP)

    @property
    def script(self) -> str:
        return os.path.join(self.world.venv, "bin", f"{self.name}-run")

    @property
    def bash(self) -> str:
        return bash(self.world)

    def python(self, code: str) -> str:
        """Run code by the venv's Python, isolated; return its output, or the last line of what is wrong."""
        command = [os.path.join(self.world.venv, "bin", "python"), "-I", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]

    def call(self, function: str = "by_soname") -> str:
        """Call a function of the module."""
        return self.python(f"import {self.name}; print({self.name}.{function}())")

    def run_script(self) -> str:
        """Run the script and return its output."""
        return subprocess.run([self.script], capture_output=True, text=True, check=False).stdout.strip()

    def rows(self) -> list[str]:
        """Return the rows of RECORD."""
        with open(self.record, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read().splitlines()

    def recorded_rightly(self) -> bool:
        """Whether every row of RECORD with a digest describes its file."""
        rows = [row for row in self.rows() if not row.endswith(",,")]
        paths = [os.path.normpath(os.path.join(self.world.site, row.split(",")[0])) for row in rows]
        return all(
            row.split(",")[1:] == record_row(path, self.world.site).rsplit(",", 2)[1:]
            for row, path in zip(rows, paths, strict=True)
        )


def bash(world: World) -> str:
    """Return the bash of the store, making it: the machine's own by another name."""
    path = os.path.join(world.store, BASH, "bin", "bash")
    if not os.path.lexists(path):
        os.makedirs(os.path.dirname(path))
        os.symlink("/bin/bash", path)
    return path


def install(world: World, name: str = "opener", files: Mapping[str, bytes] | None = None) -> Opener:
    """Install the dist as pip would."""
    bash(world)
    dist(world.site, name, files or {f"{name}.py": SOURCE, f"../../../bin/{name}-run": SCRIPT})
    return Opener(world, name)
