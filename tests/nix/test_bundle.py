"""The library set of manylinux, built by a real nix-build, and a real venv linked against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from support.testbed.sandbox import Sandbox
from support.testbed.store import NixStore, nix_environment
from support.testbed.venv import StoreVenvFactory

HERE = os.path.dirname(os.path.abspath(__file__))

Build = Callable[[str], "subprocess.CompletedProcess[str]"]


def _nixpatch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nixpatch", *arguments]
    return subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=False)


@pytest.fixture
def build(nix_store: NixStore, tmp_path: os.PathLike[str]) -> Build:
    """Build what nixpatch prints, with a nixpkgs made of the test store; ``more`` is Nix."""
    expression = os.path.join(tmp_path, "bundle.nix")
    with open(expression, "w", encoding="utf-8") as file:
        file.write(_nixpatch("bundle", "--policy", "manylinux_2_34").stdout)
    places = {name: os.path.join(nix_store.work, name) for name in ("debs", "seed")}
    places |= {"plan": os.path.join(nix_store.work, "plan.json"), "mark": str(tmp_path)}
    arguments = "".join(f'{name} = "{path}"; ' for name, path in places.items())
    pkgs = f"import {HERE}/nixpkgs.nix {{ {arguments}}}"

    def make(more: str) -> subprocess.CompletedProcess[str]:
        text = f"let pkgs = {pkgs}; in import {expression} {{ inherit pkgs; more = {more}; }}"
        command = ["nix-build", "--no-out-link", "--expr", text]
        return subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=False)

    return make


def test_a_real_venv_is_linked_against_it(
    build: Build, nix_store: NixStore, sandbox: Sandbox, store_venv: StoreVenvFactory
) -> None:
    venv = store_venv("numpy", "pillow")

    built = build("{ }")

    assert built.returncode == 0, built.stderr
    bundle = built.stdout.strip()
    assert len(os.listdir(f"{bundle}/lib")) == 14
    assert os.path.realpath(f"{bundle}/lib/libX11.so.6").startswith(f"{nix_store['libX11']}/")
    # With the Python's own closure alone, the promise is not kept; with this it is.
    assert _nixpatch("manylinux", "status", "--pure", venv.path).returncode == 1
    told = _nixpatch("manylinux", "status", "--pure", "--lib", bundle, venv.path)
    assert told.returncode == 0, told.stdout

    done = _nixpatch("--pure", "--lib", bundle, venv.path)

    assert done.returncode == 0, done.stdout + done.stderr
    code = "import numpy.linalg, PIL._imaging; print(numpy.linalg.inv(numpy.eye(2))[0][0])"
    ran = sandbox.run([venv.python, "-c", code], read_only=[venv.path])
    assert (ran.stdout, ran.stderr) == ("1.0\n", "")
    # The libraries themselves are written into the files, not the bundle that led to them.
    with open(f"{venv.site_packages}/numpy-2.4.6.dist-info/nixpatch.json", encoding="utf-8") as file:
        libraries = json.load(file)["libraries"]
    assert libraries["libstdc++.so.6"].startswith(f"{nix_store['gccLib']}/")
    assert not [path for path in libraries.values() if path.startswith(bundle)]


def test_a_library_that_is_not_there_fails_the_build_by_name(build: Build, nix_store: NixStore) -> None:
    done = build('{ "libz.so.99" = pkgs.zlib; "liblz4.so.1" = pkgs.expat; }')

    assert done.returncode != 0
    assert f"libz.so.99: there is no {nix_store['zlib']}/lib/libz.so.99" in done.stderr
    assert f"liblz4.so.1: there is no {nix_store['expat']}/lib/liblz4.so.1" in done.stderr


def test_more_libraries(build: Build, nix_store: NixStore) -> None:
    done = build('{ "libzstd.so.1" = pkgs.zstd; }')

    assert done.returncode == 0, done.stderr
    assert os.path.isfile(f"{done.stdout.strip()}/lib/libzstd.so.1")
