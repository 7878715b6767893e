"""Hold a command that an installer starts in a new environment until the environment is patched.

``uv run``, ``uv tool run`` and others install and start a command in one process. A small program of ours
(``data/gate.py``) goes first in the environment: it reports the PATH of the command, waits, and becomes the
command.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources

from nixpatch.installed import python_layout

_PROGRAM = "sitecustomize.py"
_QUESTION, _ANSWER = "question", "answer"
_PATIENCE = 0.05
"""seconds between two looks at whether the installer has ended"""
_BLOCK = 1 << 16


class Gate:
    """The parent's side: two named pipes (fifo(7)) in a directory that only this user can enter."""

    def __init__(self, directory: str, on_arrival: Callable[[Sequence[str]], None]) -> None:
        """Make the pipes; ``on_arrival`` is called with the environments before the command starts."""
        self._directory = directory
        self._on_arrival = on_arrival
        self.has_opened = False
        """a command came, and its environment was patched"""
        self.is_command_missing = False
        """the environment has no such command: the installer knows better what to say"""
        with open(os.path.join(directory, _PROGRAM), "wb") as file:
            file.write(resources.files("nixpatch").joinpath("data", "gate.py").read_bytes())
        descriptors = []
        for name in (_QUESTION, _ANSWER):
            os.mkfifo(os.path.join(directory, name), 0o600)
            # For reading and writing, so that open(2) does not wait for the other side, nor read(2) end.
            descriptors.append(os.open(os.path.join(directory, name), os.O_RDWR | os.O_CLOEXEC))
        self._question, self._answer = descriptors

    def close(self) -> None:
        """Let go of the pipes: who still waits goes on."""
        for descriptor in (self._question, self._answer):
            os.close(descriptor)

    def command(self, words: Sequence[str]) -> tuple[str, ...]:
        """Return the command that waits here and becomes ``words``."""
        return (sys.executable, "-I", "-S", os.path.join(self._directory, _PROGRAM), *words)

    def environ(self, environ: Mapping[str, str], script: str | None = None) -> dict[str, str]:
        """Return an environment in which the Python that ``uv run`` starts waits here.

        With a ``script``, its real path, the Python that any installer starts it with.
        """
        before = environ.get("PYTHONPATH")
        with contextlib.suppress(ValueError):
            depth = int(environ.get("UV_RUN_RECURSION_DEPTH") or 0) + 1  # uv counts; builds are not counted
            with open(os.path.join(self._directory, "gate.json"), "w", encoding="utf-8") as file:
                json.dump({"depth": str(depth), "pythonpath": before, "script": script}, file)
            return {**environ, "PYTHONPATH": os.pathsep.join(filter(None, (self._directory, before)))}
        return dict(environ)

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the end of the installer, and patch where its command arrives here before."""
        with contextlib.ExitStack() as stack:
            ends = []
            with contextlib.suppress(OSError):  # a sandbox that does not know the call
                ends.append(os.pidfd_open(process.pid))
                stack.callback(os.close, ends[0])
            while process.poll() is None:
                readable, _, _ = select.select([self._question, *ends], [], [], None if ends else _PATIENCE)
                if self._question in readable:
                    self._open()
        return process.wait()

    def _open(self) -> None:
        text = b""
        while text.count(b"\0") < 2:
            text += os.read(self._question, _BLOCK)
        path_env, there, _ = text.split(b"\0")
        self.has_opened = True
        self.is_command_missing = not there
        try:
            self._on_arrival(list(_environments(os.fsdecode(path_env), os.environ.get("PATH", ""))))
        finally:
            os.write(self._answer, b"\n")


@contextlib.contextmanager
def gate(on_arrival: Callable[[Sequence[str]], None]) -> Iterator[Gate]:
    """Make a gate, and remove it."""
    directory = tempfile.mkdtemp(prefix="nixpatch-")
    try:
        made = Gate(directory, on_arrival)
        try:
            yield made
        finally:
            made.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _environments(path_env: str, outer: str) -> Iterator[str]:
    """Yield the venvs whose programs come first: uv puts ``bin`` of each environment in front of PATH."""
    for directory in dict.fromkeys(path_env.removesuffix(outer).split(os.pathsep)):
        venv = os.path.dirname(directory.rstrip("/"))
        if python_layout.read_config(venv) is not None:
            yield venv
