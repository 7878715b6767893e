"""The main job on real input, for someone who has just installed nixpatch: ``nixpatch demo``.

Makes a scratch venv, installs real wheels, patches them against the machine's Nix store or, where there is
none that serves, against an embedded one assembled from the host's libraries, and looks at running
processes to see what was mapped from where.
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
from nixpatch.operations.plan import PatchRequest, Reader, make_plan
from nixpatch.store import Store, assemble

WHEELS = ("numpy", "pillow", "ruff")
"""one that needs libstdc++, one that needs zlib, one that is a program"""

_IMPORTS = "import numpy.linalg, PIL._imaging"
_MAPS = """
import json
lines = [line for line in open("/proc/self/maps") if "/" in line]
print(json.dumps(sorted({line.split(None, 5)[5].strip() for line in lines})))
"""
_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one process did."""

    name: str
    error: str | None
    mapped: tuple[str, ...]
    """the shared libraries it had mapped, sorted"""


def install(directory: str, environment: Mapping[str, str]) -> str:
    """Make a venv of the running Python, install the wheels from PyPI, return the venv.

    Raises:
        MachineError: venv or pip failed.

    """
    venv = os.path.join(directory, "venv")
    uv = shutil.which("uv", path=environment.get("PATH"))
    if uv:
        # Copies: a demonstration has no business near the links into uv's cache, safe as it would be.
        _run([uv, "venv", "--quiet", "--python", sys.executable, venv])
        _run(
            [
                uv,
                "pip",
                "install",
                "--quiet",
                "--link-mode",
                "copy",
                "--python",
                _bin(venv, "python"),
                *WHEELS,
            ]
        )
    else:
        _run([sys.executable, "-m", "venv", venv])
        _run([_bin(venv, "python"), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *WHEELS])
    return venv


def plan_for(venv: str, store: Store, directory: str, *, embedded: bool) -> tuple[Plan, bool]:
    """Plan against the machine's store; against an embedded one if there is none or it lacks something.

    Returns the plan and whether the store is an embedded one.

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


def look(venv: str) -> tuple[Sighting, ...]:
    """Start the installed things and read what each process has mapped (proc(5), /proc/pid/maps)."""
    return (_look_at_python(venv), _look_at_ruff(venv))


def _look_at_python(venv: str) -> Sighting:
    name = "python, with numpy and pillow imported"
    done = subprocess.run(
        [_bin(venv, "python"), "-c", f"{_IMPORTS}\n{_MAPS}"],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
        env=_environment(),
    )
    if done.returncode:
        return Sighting(name, _last_line(done.stderr), ())
    return Sighting(name, None, _libraries(json.loads(done.stdout)))


def _look_at_ruff(venv: str) -> Sighting:
    """Look while it waits for a program on its standard input."""
    try:
        process = subprocess.Popen(
            [_bin(venv, "ruff"), "check", "--exit-zero", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(),
        )
    except OSError as error:
        return Sighting("ruff", f"{error.strerror} (its interpreter)", ())
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
    said = os.fsdecode(process.communicate(b"")[1])
    return Sighting("ruff", _last_line(said) if process.returncode else None, mapped)


def _libraries(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({path for path in paths if ".so" in os.path.basename(path)}))


def _environment() -> dict[str, str]:
    """Nothing that steers the loader: what is seen is what the files say."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("LD_", "PYTHON"))}


def _bin(venv: str, name: str) -> str:
    return os.path.join(venv, "bin", name)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise MachineError(f"{' '.join(command[:4])} ... failed: {_last_line(done.stderr or done.stdout)}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1].strip()
