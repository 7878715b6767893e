"""The switch of the story, with real installers, real wheels and a real store."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys

import pytest
from uv import find_uv_bin

from support.testbed.sandbox import Sandbox
from support.testbed.venv import CONSTRAINTS, StoreVenv, StoreVenvFactory

pytestmark = [pytest.mark.pypi, pytest.mark.nix]

# Small, of C, and not to be had without a wheel here: building it from source is not what this is about.
WHEEL = "markupsafe"


def _run(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command where nothing of the tests' own environment names a venv."""
    kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    kept |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}
    return subprocess.run(command, env={**kept, **more}, capture_output=True, text=True, check=False)


def _nixpatch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return _run(sys.executable, "-m", "nixpatch", *arguments)


def _pip(venv: StoreVenv, *words: str) -> subprocess.CompletedProcess[str]:
    return _run(venv.python, "-m", "pip", "install", "--no-deps", "--only-binary", ":all:", *words)


def test_pip_takes_the_source_or_nothing(store_venv: StoreVenvFactory, tmp_path: os.PathLike[str]) -> None:
    venv = store_venv(pip=True)
    assert _nixpatch("manylinux", "deny", venv.path).returncode == 0

    refused = _pip(venv, WHEEL)

    assert refused.returncode == 1
    assert f"No matching distribution found for {WHEEL}" in refused.stderr
    taken = _run(venv.python, "-m", "pip", "download", "--no-deps", "--dest", str(tmp_path), WHEEL)
    assert [os.path.basename(path)[-7:] for path in glob.glob(f"{tmp_path}/*")] == [".tar.gz"], taken.stderr

    assert _nixpatch("manylinux", "allow", venv.path).returncode == 0

    done = _pip(venv, WHEEL)
    assert done.returncode == 0, done.stderr
    assert glob.glob(f"{venv.site_packages}/{WHEEL}/_speedups*.so")


def test_uv_sees_it_too(store_venv: StoreVenvFactory, tmp_path: os.PathLike[str]) -> None:
    """uv asks the venv's Python with -I, and keeps the answer until it is told to ask again."""
    venv = store_venv()
    command = [
        find_uv_bin(),
        "pip",
        "install",
        "--python",
        venv.python,
        "--no-deps",
        "--only-binary",
        ":all:",
    ]

    def install(*more: str) -> subprocess.CompletedProcess[str]:
        return _run(*command, *more, WHEEL, UV_CACHE_DIR=os.path.join(tmp_path, "cache"))

    _nixpatch("manylinux", "deny", venv.path)
    refused = install()
    assert refused.returncode == 1
    assert "no usable wheels" in refused.stderr

    told = _nixpatch("manylinux", "honest", venv.path)

    assert "run uv once with --refresh" in told.stderr
    assert install("--refresh").returncode == 0
    assert glob.glob(f"{venv.site_packages}/{WHEEL}/_speedups*.so")


def test_status_of_a_real_store(store_venv: StoreVenvFactory) -> None:
    """The store of the tests has all that the policies name, in versions of Debian 12."""
    venv = store_venv()

    done = _nixpatch("manylinux", "status", "--json", venv.path)

    assert done.returncode == 0, done.stdout
    policies = {row["name"]: row for row in json.loads(done.stdout)["trees"][0]["policies"]}
    assert all(policies[name]["kept"] for name in ("manylinux_2_5", "manylinux_2_28", "manylinux_2_36"))
    assert policies["manylinux_2_37"]["broken"] == ["needs glibc 2.37, the target's is 2.36"]

    # With the Python's own closure alone, there is no C++ and no X11.
    done = _nixpatch("manylinux", "status", "--pure", "-v", venv.path)
    assert done.returncode == 1
    assert "libstdc++.so.6: no source has a library of this name" in done.stdout
    assert "libz.so.1" not in done.stdout


def test_the_issue_replayed(sandbox: Sandbox, store_venv: StoreVenvFactory) -> None:
    """Denied, the wheel is refused; allowed, it is installed and does not load; patched, it loads."""
    venv = store_venv(pip=True)
    look = [venv.python, "-c", "import numpy; print(numpy.linalg.inv(numpy.eye(2))[0][0])"]

    _nixpatch("manylinux", "deny", venv.path)
    denied = _pip(venv, "numpy")
    assert denied.returncode == 1
    assert "No matching distribution found for numpy" in denied.stderr

    _nixpatch("manylinux", "allow", venv.path)
    allowed = _pip(venv, "--constraint", CONSTRAINTS, "numpy")
    assert allowed.returncode == 0, allowed.stderr
    before = sandbox.run(look, read_only=[venv.path])
    assert before.returncode == 1
    assert "libstdc++.so.6: cannot open shared object file" in before.stderr

    patched = _nixpatch(venv.path)
    assert patched.returncode == 0, patched.stdout
    after = sandbox.run(look, read_only=[venv.path])
    assert (after.stdout, after.returncode) == ("1.0\n", 0), after.stderr
