"""Start runs of nixpatch under the preload, each in a process of its own, forked when all is imported.

A fresh interpreter takes 0.3 s for each of some thousand runs, a fork a hundredth of that. One JSON object
a line on standard input, one on standard output; see ``injector.py`` for both.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sqlite3  # noqa: F401
import sys
import time
import traceback

import rich.console  # noqa: F401 - imported here, not by every run

import nixpatch.elf.check_rewritten
import nixpatch.elf.lief.writer
import nixpatch.elf.writer
import nixpatch.operations.apply
import nixpatch.operations.restore
import nixpatch.report.text
import nixpatch.store.cache
import nixpatch.unvendor.inputs  # noqa: F401
from nixpatch.__main__ import main
from nixpatch.cli.app import command_line

LOG = 900
PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 200  # seconds: the machine may have other work


def run(request: dict[str, object]) -> None:
    """Become the run."""
    os.setpgid(0, 0)
    directory = str(request["directory"])
    for number, name in ((1, "out"), (2, "err"), (LOG, "log")):
        file = os.open(os.path.join(directory, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    os.environ.update(request["environment"])  # type: ignore[call-overload]
    os.chdir(directory)
    sys.argv = ["nixpatch", *request["arguments"]]  # type: ignore[misc]
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    ctypes.CDLL(None).faults_now()
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - told
        traceback.print_exc()
        code = 1
    try:
        sys.stdout.flush()
    finally:
        os._exit(code)


def wait(child: int) -> tuple[int, bool]:
    """Wait for a run and for all that it forked. True if somebody had to be killed."""
    code, alive, deadline = 0, True, time.monotonic() + PATIENCE
    while alive and time.monotonic() < deadline:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            alive = False
            break
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
        if pid == 0:
            time.sleep(0.002)
    if alive:
        os.killpg(child, signal.SIGKILL)
        while True:
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                break
            code = os.waitstatus_to_exitcode(status) if pid == child else code
    return code, alive


def serve() -> None:
    """Answer requests until there are no more."""
    command_line()  # imports every command
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            run(request)
        code, hung = wait(child)
        print(json.dumps({"code": code, "hung": hung}), flush=True)


if __name__ == "__main__":
    serve()
