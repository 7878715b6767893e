"""Runs of nixpatch in which one call of the file system goes wrong, and what a tree is afterwards."""

from __future__ import annotations

import enum
import errno
import hashlib
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from nixpatch.fs import is_temporary

HERE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "faults")
_PLAN = struct.Struct("256i4i")
TreeState = Mapping[str, tuple[int, str]]
"""relative path -> mode, and sha256 of the contents or where a link leads"""


class Kind(enum.Enum):
    """Which calls are counted; the value is the letter that preload.c uses."""

    CHANGE = "c"
    OPEN = "o"
    READ = "r"


class Fault(enum.IntEnum):
    """What goes wrong at a site, as preload.c numbers it."""

    NONE = 0
    KILL = -1
    """SIGKILL for the process that makes the call"""
    KILL_ALL = -2
    """SIGKILL for the run with its workers"""
    TORN = -3
    """half of a write, then SIGKILL for all"""
    SHORT = -4
    """half of a write, as write(2) may do"""
    INTERRUPT = -5
    TERMINATE = -6
    ENOSPC = errno.ENOSPC
    EIO = errno.EIO
    EACCES = errno.EACCES
    EMFILE = errno.EMFILE

    @property
    def is_error(self) -> bool:
        """Whether the call returns an error."""
        return self > 0


@dataclass(frozen=True)
class Site:
    """One call that a run made."""

    kind: Kind
    number: int
    call: str
    path: str

    @property
    def writes(self) -> bool:
        """Whether the call could be done by half."""
        return self.call in {"write", "pwrite", "pwrite64", "copy_file_range", "sendfile"}


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    """negative: the signal that ended it"""
    hung: bool
    """somebody of the run was still there long after"""
    out: str
    err: str
    sites: tuple[Site, ...]

    @property
    def said(self) -> str:
        """All that was printed."""
        return self.out + self.err


class Injector:
    """Starts runs; to be closed."""

    def __init__(self, directory: str, environment: Mapping[str, str]) -> None:
        """``directory``: for the preload and the output of a run."""
        self._directory = directory
        self.environment = dict(environment)
        """what a run sees beside the process's own"""
        self.preload = os.path.join(directory, "preload.so")
        self.plan = os.path.join(directory, "plan")
        """what is to go wrong, where every process of the run sees it"""
        self.log = os.path.join(directory, "log")
        """the calls of the run"""
        command = [
            "gcc",
            "-shared",
            "-fPIC",
            "-O1",
            "-o",
            self.preload,
            os.path.join(HERE, "preload.c"),
            "-ldl",
        ]
        subprocess.run(command, check=True, capture_output=True)
        self._set(Fault.NONE, Kind.CHANGE, 0)
        self._driver = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "driver.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                "LD_PRELOAD": self.preload,
                "FAULTS_PLAN": self.plan,
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.close()
        self._driver.wait()
        self._driver.stdout.close()

    def run(
        self,
        arguments: Sequence[str],
        fault: Fault = Fault.NONE,
        kind: Kind = Kind.CHANGE,
        at: int = 0,
    ) -> Ended:
        """Run a command line; ``at`` counts from 1."""
        self._set(fault, kind, at)
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        request = {
            "arguments": list(arguments),
            "directory": self._directory,
            "environment": self.environment,
        }
        self._driver.stdin.write(json.dumps(request) + "\n")
        self._driver.stdin.flush()
        answer = json.loads(self._driver.stdout.readline())
        return Ended(
            answer["code"], answer["hung"], self._read("out"), self._read("err"), tuple(self._sites())
        )

    def fresh_process(self, arguments: Sequence[str], *prefix: str) -> Ended:
        """Run ``python -m nixpatch`` as its users do, counted by the preload but without a fault."""
        self._set(Fault.NONE, Kind.CHANGE, 0)
        environment = {
            **os.environ,
            **self.environment,
            "LD_PRELOAD": self.preload,
            "FAULTS_PLAN": self.plan,
            "FAULTS_NOW": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with open(self.log, "wb") as file:
            keep = os.dup2(file.fileno(), 900)
            try:
                done = subprocess.run(
                    [*prefix, sys.executable, "-m", "nixpatch", *arguments],
                    env=environment,
                    pass_fds=(keep,),
                    capture_output=True,
                    text=True,
                    check=False,
                )
            finally:
                os.close(keep)
        return Ended(done.returncode, False, done.stdout, done.stderr, tuple(self._sites()))

    def _set(self, fault: Fault, kind: Kind, at: int) -> None:
        # Written in place: the processes of the run have mapped it.
        with open(self.plan, "r+b" if os.path.exists(self.plan) else "wb") as file:
            file.write(_PLAN.pack(*[0] * 256, ord(kind.value), at, fault, 0))

    def _read(self, name: str) -> str:
        with open(os.path.join(self._directory, name), encoding="utf-8", errors="surrogateescape") as file:
            return file.read()

    def _sites(self) -> list[Site]:
        found = []
        for line in self._read("log").splitlines():
            kind, number, call, path = line.split(" ", 3)
            found.append(Site(Kind(kind), int(number), call, path))
        return found


def state_of(root: str) -> dict[str, tuple[int, str]]:
    """Return every file, link and directory of a tree."""
    found: dict[str, tuple[int, str]] = {}
    for directory, directories, names in os.walk(root):
        for name in (*directories, *names):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                contents = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    contents = hashlib.sha256(file.read()).hexdigest()
            else:
                contents = ""
            found[os.path.relpath(path, root)] = (status.st_mode, contents)
    return found


def torn(now: TreeState, old: TreeState, new: TreeState) -> list[str]:
    """Return what is neither as it was before nor as an uninterrupted run leaves it."""
    wrong = [
        f"{path} is neither the old one nor the new one"
        for path, state in now.items()
        if state not in (old.get(path), new.get(path)) and not is_temporary(os.path.basename(path))
    ]
    return wrong + [f"{path} is gone" for path in old if path in new and path not in now]


def copy_tree(source: str, to: str) -> None:
    """Put a copy of a tree, with times and hard links apart, in the place of another."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(source, to, symlinks=True)
