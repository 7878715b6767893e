"""Run a function in a child process that may die, hang, print without end or take too much memory."""

from __future__ import annotations

import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from nixpatch.errors import FileRefused

_DIRECTORY: Final = os.path.dirname(os.path.abspath(__file__))
_PROGRAM: Final = os.path.join(_DIRECTORY, "child.py")
_OURS: Final = os.path.dirname(os.path.dirname(_DIRECTORY))
"""the directory that the package is imported from"""
_MIB: Final = 1 << 20
# Measured over 57 wheels: Python and LIEF map 90 MiB, and for a file at most 5.3 times its size (3,913 MiB
# for the 752 MiB of libtensorflow_cc.so).
_MEMORY_BASE: Final = 512 * _MIB
_MEMORY_FACTOR: Final = 6
SECONDS = 60
"""for work on a small file"""
_BYTES_PER_SECOND: Final = _MIB  # measured: 100 MiB a second and more
_OUTPUT_FACTOR: Final = 2  # LIEF can blow a file up by hundreds of megabytes
_MOST: Final = 256 << 10  # bytes; errors have a line, and so have most answers
_PIPE: Final = 64 << 10


def package_directory(package: str, name: str) -> str:
    """Find the directory that a package is installed in, without importing it.

    Raises:
        FileRefused: it is not installed; the message calls it ``name``.

    """
    spec = importlib.util.find_spec(package)
    directories = list(spec.submodule_search_locations or ()) if spec else []
    if not directories:
        raise FileRefused(f"{name} is not installed")
    return os.path.dirname(directories[0])


def seconds_for(size: int) -> int:
    """Return the seconds that work on a file of ``size`` bytes may take."""
    return SECONDS + size // _BYTES_PER_SECOND


def limits(size: int, seconds: int) -> dict[str, int]:
    """Return a child's limits for a file of ``size`` bytes, by their names in setrlimit(2)."""
    return {
        "RLIMIT_AS": _MEMORY_BASE + _MEMORY_FACTOR * size,
        "RLIMIT_CPU": seconds,
        "RLIMIT_FSIZE": _OUTPUT_FACTOR * size + 64 * _MIB,
        "RLIMIT_CORE": 0,
    }


class ChildProcess:
    """A process that runs ``child.py`` with one request. A context manager that ends it.

    Args:
        name: for messages.
        module: its ``answers(request)`` runs in the child.
        directory: added to ``sys.path``.
        request: JSON values for the module, and ``limits``.
        descriptors: files that stay open in the child.
        most: bytes of one answer.

    """

    def __init__(
        self,
        name: str,
        module: str,
        directory: str,
        request: Mapping[str, Any],
        descriptors: Sequence[int],
        most: int = _MOST,
    ) -> None:
        self.name = name
        whole_request = {**request, "name": name, "module": module, "path": [directory, _OURS]}
        # A session of its own: Ctrl-C in the terminal must not interrupt the work on a file. -I and -S: no
        # PYTHON* variable, .pth file or module of the current directory counts. The request is a file: with
        # a pipe, both processes could wait for each other.
        with tempfile.TemporaryFile() as stdin:
            stdin.write(json.dumps(whole_request).encode("ascii"))
            stdin.seek(0)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", _PROGRAM],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=descriptors,
                start_new_session=True,
                env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
            )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out, self._err = bytearray(), bytearray()
        self._pipes = selectors.DefaultSelector()
        self._pipes.register(self._process.stdout, selectors.EVENT_READ, (self._out, most))
        self._pipes.register(self._process.stderr, selectors.EVENT_READ, (self._err, _MOST))

    def __enter__(self) -> Self:
        """Return the process, which runs already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the process if it still runs."""
        self._pipes.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.__exit__(None, None, None)

    def answer(self, seconds: float) -> bytes:
        """Wait for one line of output; return b"" at the end of the output.

        Raises:
            FileRefused: it took longer than ``seconds``, or the line is too long.

        """
        self._listen(seconds, to_the_end=False)
        line, newline, rest = self._out.partition(b"\n")
        self._out[:] = rest
        return bytes(line + newline)

    def end(self, seconds: float) -> tuple[int, bytes]:
        """Wait for the end of the process; return its status, below 0 for a signal, and its standard error.

        Raises:
            FileRefused: it took longer than ``seconds``, or printed too much.

        """
        self._listen(seconds, to_the_end=True)
        try:
            return self._process.wait(seconds), bytes(self._err)
        except subprocess.TimeoutExpired:
            raise self._timeout(seconds) from None

    def _listen(self, seconds: float, *, to_the_end: bool) -> None:
        until = time.monotonic() + seconds
        answered = not to_the_end and b"\n" in self._out
        while self._pipes.get_map() and not answered:
            events = self._pipes.select(max(0.0, until - time.monotonic()))
            if not events:
                raise self._timeout(seconds)
            for key, _ in events:
                data = os.read(key.fd, _PIPE)
                buffer, most = key.data
                if not data:
                    self._pipes.unregister(key.fileobj)
                buffer += data
                if len(buffer) > most:
                    raise FileRefused(f"{self.name} prints more than {most >> 10} KiB and was stopped")
                if not to_the_end and buffer is self._out:
                    answered = answered or not data or b"\n" in data

    def _timeout(self, seconds: float) -> FileRefused:
        return FileRefused(f"{self.name} was not done after {seconds} seconds")


def died(name: str, status: int, logged: bytes) -> FileRefused:
    """Make the error for a child that ended without an answer."""
    if status >= 0:
        return FileRefused(f"{name} ended without an answer{last_line(logged)}")
    try:
        number = signal.Signals(-status).name
    except ValueError:
        number = f"signal {-status}"
    return FileRefused(f"{name} died of {number}{last_line(logged)}")


def last_line(logged: bytes) -> str:
    """Return the last line of a log, after a colon; "" for an empty one."""
    lines = logged.decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1]}" if lines else ""
