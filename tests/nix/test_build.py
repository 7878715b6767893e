"""As a step of a real nix-build: $out refers to what its files use, and a rebuild gives the same bytes."""

from __future__ import annotations

import glob
import os
import subprocess
import sys

import pytest

from support.testbed.store import NixStore, nix_environment
from support.testbed.venv import StoreVenvFactory

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.realpath(os.path.join(HERE, "..", ".."))


@pytest.fixture(scope="module")
def wheel(nix_store: NixStore) -> str:
    """A real wheel that needs libstdc++, and through its own libgfortran zlib."""
    directory = os.path.join(nix_store.work, "wheels")
    found = glob.glob(f"{directory}/numpy-*cp311-cp311-manylinux*x86_64.whl")
    if not found:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
        command += [
            "--python-version",
            "3.11",
            "--platform",
            "manylinux_2_28_x86_64",
            "-d",
            directory,
            "numpy",
        ]
        subprocess.run(command, check=True)
        found = glob.glob(f"{directory}/numpy-*cp311-cp311-manylinux*x86_64.whl")
    return found[0]


def _build(nix_store: NixStore, wheel: str, tool: str, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = {
        "python": nix_store["python3"],
        "wheel": wheel,
        "tool": tool,
        "inputs": f"{nix_store['gccLib']} {nix_store['zlib']}",
    }
    command = ["nix-build", "--no-out-link", os.path.join(HERE, "wheel.nix"), *options]
    for name, value in arguments.items():
        command += ["--argstr", name, value]
    return subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def tool(store_venv: StoreVenvFactory) -> str:
    """nixpatch and what it needs, as site-packages for the store's Python."""
    venv = store_venv()
    venv.install_project(REPOSITORY)
    return venv.site_packages


def test_a_wheel_built_by_nix_refers_to_what_it_uses(nix_store: NixStore, wheel: str, tool: str) -> None:
    done = _build(nix_store, wheel, tool)
    assert done.returncode == 0, done.stderr
    out = done.stdout.strip()

    query = ["nix-store", "-q", "--references", out]
    references = subprocess.run(
        query, env=nix_environment(), capture_output=True, text=True, check=True
    ).stdout
    assert sorted(references.split()) == sorted([nix_store["gccLib"], nix_store["zlib"]])
    code = "import numpy; print(numpy.linalg.inv(numpy.eye(2))[0][0])"
    site = f"{out}/lib/python3.11/site-packages"
    environment = {"PYTHONPATH": site, "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        [nix_store.python, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (ran.stdout, ran.stderr) == ("1.0\n", "")

    again = _build(nix_store, wheel, tool, "--check")
    assert again.returncode == 0, again.stderr


def test_in_a_build_the_store_at_large_is_not_searched(nix_store: NixStore, wheel: str, tool: str) -> None:
    command = ["nix-build", "--no-out-link", os.path.join(HERE, "wheel.nix")]
    for name, value in {"python": nix_store["python3"], "wheel": wheel, "tool": tool, "inputs": ""}.items():
        command += ["--argstr", name, value]

    done = subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert "libstdc++.so.6, needed by" in done.stderr
