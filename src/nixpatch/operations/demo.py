"""Demonstrate nixpatch on real wheels: ``nixpatch demo``.

Make a scratch venv, install wheels, patch them, and read from running processes which libraries they mapped.
The store is the machine's; if it lacks a library, an embedded store assembled from the host's libraries.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nixpatch.errors import MachineError
from nixpatch.model import Plan
from nixpatch.operations.plan import Reader, make_plan
from nixpatch.operations.request import PatchRequest
from nixpatch.operations.verify_load import clean_environ
from nixpatch.store.host_store import assemble
from nixpatch.store.nix_store import Store

WHEELS = ("numpy", "pillow", "ruff")
"""one needs libstdc++, one needs zlib, one is a program"""

_IMPORTS = "import numpy.linalg, PIL._imaging"
_MAPS = """
import json
lines = [line for line in open("/proc/self/maps") if "/" in line]
print(json.dumps(sorted({line.split(None, 5)[5].strip() for line in lines})))
"""
_SECONDS = 300


@dataclass(frozen=True, slots=True)
class DemoProcess:
    """The result of one process."""

    name: str
    error: str | None
    mapped: tuple[str, ...]
    """its mapped shared libraries, sorted"""


def install(directory: str, environ: Mapping[str, str]) -> str:
    """Make a venv of the running Python, install the wheels from PyPI, and return the venv.

    Raises:
        MachineError: venv or pip failed.

    """
    venv = os.path.join(directory, "venv")
    uv = shutil.which("uv", path=environ.get("PATH"))
    if uv:
        # Copies, so that the demo does not depend on how links into uv's cache are handled.
        _run([uv, "venv", "--quiet", "--python", sys.executable, venv])
        python = _bin(venv, "python")
        _run([uv, "pip", "install", "--quiet", "--link-mode", "copy", "--python", python, *WHEELS])
    else:
        _run([sys.executable, "-m", "venv", venv])
        _run([_bin(venv, "python"), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *WHEELS])
    return venv


def plan_for(venv: str, store: Store, directory: str, *, embedded: bool) -> tuple[Plan, bool]:
    """Plan against the machine's store, or against an embedded one if that is missing or lacks a library.

    Returns:
        the plan, and whether its store is an embedded one.

    Raises:
        MachineError: the host lacks a library, too.

    """
    scratch = os.path.join(directory, "nix", "store")
    os.makedirs(scratch, exist_ok=True)
    request = PatchRequest(path=venv, store=Store(scratch, os.path.realpath(scratch)))
    if store.exists and not embedded:
        plan = make_plan(replace(request, store=store))
        if not any(file.missing for file in plan.files):
            return plan, False
    empty = make_plan(request)
    wanted = sorted({answer.need for file in empty.files for answer in file.missing})
    assemble(directory, wanted, Reader(), machine=empty.target.machine if empty.target else None)
    return make_plan(request), True


def run_processes(venv: str) -> tuple[DemoProcess, ...]:
    """Start the installed programs and read what each process has mapped (proc(5), /proc/pid/maps)."""
    return (_run_python(venv), _run_ruff(venv))


def _run_python(venv: str) -> DemoProcess:
    name = "python, with numpy and pillow imported"
    done = subprocess.run(
        [_bin(venv, "python"), "-c", f"{_IMPORTS}\n{_MAPS}"],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
        env=clean_environ(),
    )
    if done.returncode:
        return DemoProcess(name, _last_line(done.stderr), ())
    return DemoProcess(name, None, _libraries(json.loads(done.stdout)))


def _run_ruff(venv: str) -> DemoProcess:
    """Read the maps while it waits for its standard input."""
    try:
        process = subprocess.Popen(
            [_bin(venv, "ruff"), "check", "--exit-zero", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=clean_environ(),
        )
    except OSError as error:
        return DemoProcess("ruff", f"{error.strerror} (its interpreter)", ())
    mapped: tuple[str, ...] = ()
    for _ in range(100):
        time.sleep(0.02)
        try:
            with open(f"/proc/{process.pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
                now = _libraries(line.split(None, 5)[5].strip() for line in maps if "/" in line)
        except OSError:
            break
        if now and now == mapped:
            break
        mapped = now or mapped
    stderr = os.fsdecode(process.communicate(b"")[1])
    return DemoProcess("ruff", _last_line(stderr) if process.returncode else None, mapped)


def _libraries(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({path for path in paths if ".so" in os.path.basename(path)}))


def _bin(venv: str, name: str) -> str:
    return os.path.join(venv, "bin", name)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise MachineError(f"{' '.join(command[:4])} ... failed: {_last_line(done.stderr or done.stdout)}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no error message"])[-1].strip()
