"""The same lock and wheels give the same bytes: on the machine, and where only the locked paths are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from support.testbed.sandbox import Sandbox
from support.testbed.store import NixStore, nix_environment
from support.testbed.venv import StoreVenv, StoreVenvFactory

REPOSITORY = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
WHEELS = ("numpy", "ruff", "pillow")


def _nixpatch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nixpatch", *arguments]
    return subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=False)


def _site(venv: StoreVenv) -> dict[str, bytes]:
    """Return what nixpatch may write: all of bin and site-packages but what holds the venv's own path."""
    found: dict[str, bytes] = {}
    for directory, _, names in os.walk(venv.path):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.islink(path) or name.endswith(".pyc"):
                continue
            with open(path, "rb") as file:
                data = file.read()
            if data[:4] == b"\x7fELF" or name == "nixpatch.json":
                found[os.path.relpath(path, venv.path)] = data
    return found


@pytest.fixture(scope="module")
def locked(nix_store: NixStore, store_venv: StoreVenvFactory) -> tuple[StoreVenv, str, dict[str, Any]]:
    """A venv that was locked and then patched by its lock, on the machine itself."""
    venv = store_venv(*WHEELS)
    lock = os.path.join(os.path.dirname(venv.path), "nixpatch.lock")
    done = _nixpatch("lock", venv.path, "-o", lock)
    assert done.returncode == 0, done.stdout + done.stderr
    done = _nixpatch("--locked", lock, venv.path)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(lock, encoding="utf-8") as file:
        document: dict[str, Any] = json.load(file)
    return venv, lock, document


def test_where_there_is_no_nix_and_only_what_is_locked(
    locked: tuple[StoreVenv, str, dict[str, Any]], sandbox: Sandbox, store_venv: StoreVenvFactory
) -> None:
    here, lock, document = locked
    there, tool = store_venv(*WHEELS), store_venv()
    tool.install_project(REPOSITORY)
    paths = sorted({library["store_path"] for library in document["libraries"].values()})
    assert {os.path.basename(path).partition("-")[2].partition("-")[0] for path in paths} >= {"gcc", "zlib"}
    command = [os.path.join(tool.bin, "nixpatch"), "--locked", lock, there.path]

    done = sandbox.run(
        command,
        read_only=[tool.path, lock],
        read_write=[there.path],
        closure=["python3", *paths],
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert _site(there) == _site(here)
    ran = sandbox.run(
        [there.python, "-c", "import numpy.linalg, PIL._imaging"],
        read_only=[there.path],
        closure=["python3", *paths],
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    # Without one of them nothing happens.
    fewer = [path for path in paths if "-gcc-" not in path]
    done = sandbox.run(
        command, read_only=[tool.path, lock], read_write=[there.path], closure=["python3", *fewer]
    )
    (gone,) = set(paths) - set(fewer)
    assert done.returncode == 3
    assert f"not in the store (any more): {gone}; " in done.stderr
    assert _site(there) == _site(here)


def test_without_the_lock_the_same_tree_is_patched_alike(
    locked: tuple[StoreVenv, str, dict[str, Any]], store_venv: StoreVenvFactory
) -> None:
    here, lock, _ = locked
    other = store_venv(*WHEELS)

    assert _nixpatch(other.path).returncode == 0

    assert _site(other) == _site(here)
    done = _nixpatch("verify", "--locked", lock, other.path)
    assert done.returncode == 0, done.stdout + done.stderr
