"""Running nixpatch as somebody who may not do everything. The tests run as root, who may."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import pytest

# Imported before the run gives up the right to read them.
import nixpatch.report.text  # noqa: F401
from nixpatch.cli import run

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def as_nobody(arguments: Sequence[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command line as ``nobody``; return its exit code and all that it printed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.chdir("/")
            os.environ.update(environment)
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            code = run(arguments)
        except BaseException:  # noqa: BLE001 - told
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as file:
        told = file.read().decode("utf-8", "surrogateescape")
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), told
