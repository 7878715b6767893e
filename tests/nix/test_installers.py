"""nixpatch pip and uv with real wheels, into a venv of the store's Python, as a user of NixOS runs them."""

from __future__ import annotations

import glob
import hashlib
import os
import subprocess
import sys

import pytest
from uv import find_uv_bin

from support.testbed.sandbox import Sandbox
from support.testbed.store import NixStore
from support.testbed.venv import CONSTRAINTS, StoreVenvFactory, create

pytestmark = [pytest.mark.pypi, pytest.mark.nix]


def _nixpatch(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run nixpatch where nothing of the tests' own environment names a venv."""
    kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    kept["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    kept["PATH"] = f"{os.path.dirname(find_uv_bin())}:{kept['PATH']}"
    command = [sys.executable, "-m", "nixpatch", *arguments]
    return subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, check=False)


def _digests(directory: str) -> dict[str, str]:
    found = {}
    for where, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(where, name)
            with open(path, "rb") as file:
                found[path] = hashlib.sha256(file.read()).hexdigest()
    return found


def test_pip_install_numpy_and_uninstall(store_venv: StoreVenvFactory, sandbox: Sandbox) -> None:
    """One command, and numpy imports; one more, and nothing is left, roots of the collector included."""
    venv = store_venv(pip=True)
    look = [venv.python, "-c", "import numpy.linalg; print(numpy.arange(3).sum())"]
    install = ["install", "--quiet", "--only-binary", ":all:", "--constraint", CONSTRAINTS, "numpy"]

    done = _nixpatch("pip", *install, VIRTUAL_ENV=venv.path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Patched" in done.stderr
    ran = sandbox.run(look, read_only=[venv.path])
    assert (ran.stdout, ran.returncode) == ("3\n", 0), ran.stderr
    assert _nixpatch("verify", venv.path).returncode == 0
    roots = os.path.join(venv.path, ".nixpatch-roots")
    assert any("gcc" in os.readlink(os.path.join(roots, name)) for name in os.listdir(roots))

    # Another dist comes and goes: what numpy uses stays.
    for words in (["install", "--quiet", "--no-deps", "six"], ["uninstall", "--quiet", "--yes", "six"]):
        assert _nixpatch("pip", "--python", venv.python, *words).returncode == 0
    assert any("gcc" in os.readlink(os.path.join(roots, name)) for name in os.listdir(roots))

    done = _nixpatch("pip", "--python", venv.python, "uninstall", "--quiet", "--yes", "numpy")

    assert done.returncode == 0, done.stderr
    assert not os.path.lexists(roots)
    left = [name for name in os.listdir(venv.site_packages) if "numpy" in name]
    assert left == []
    assert not glob.glob(f"{venv.path}/**/*nixpatch*", recursive=True, include_hidden=True)


def test_uv_with_hard_links(nix_store: NixStore, sandbox: Sandbox, tmp_path: os.PathLike[str]) -> None:
    """The files of the venv are those of the cache, until nixpatch gives the venv its own."""
    base = os.path.realpath(tmp_path)
    cache = os.path.join(base, "cache")
    first, second = (create(nix_store, os.path.join(base, name)) for name in ("first", "second"))
    install = ["pip", "install", "--quiet", "--link-mode", "hardlink", "--constraint", CONSTRAINTS]
    environment = {**os.environ, "UV_CACHE_DIR": cache}
    subprocess.run([find_uv_bin(), *install, "--python", first.python, "numpy"], check=True, env=environment)
    subprocess.run(
        [find_uv_bin(), "pip", "list", "--quiet", "--python", second.python], check=True, env=environment
    )
    extension = glob.glob(f"{first.site_packages}/numpy/_core/_multiarray_umath*.so")[0]
    assert os.stat(extension).st_nlink > 1
    before = _digests(cache)

    # From the cache: an answer of the index would be written into it.
    words = [*install, "--offline", "--python", second.python, "numpy"]
    done = _nixpatch("uv", *words, UV_CACHE_DIR=cache)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Patched" in done.stderr
    assert before == _digests(cache)
    assert os.stat(extension.replace(first.path, second.path)).st_nlink == 1
    look = ["-c", "import numpy.linalg"]
    assert sandbox.run([second.python, *look], read_only=[second.path]).returncode == 0
    told = sandbox.run([first.python, *look], read_only=[first.path]).stderr
    assert "libstdc++.so.6: cannot open shared object file" in told
