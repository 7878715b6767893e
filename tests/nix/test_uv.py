"""nixpatchUv, the uv for shells: what it installs loads in a NixOS-like root, and the rest is uv's."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from uv import find_uv_bin

from nix.standin import HERE, bring_strip
from support.testbed.sandbox import Sandbox
from support.testbed.store import NixStore, nix_environment
from support.testbed.venv import CONSTRAINTS, StoreVenvFactory

REPOSITORY = os.path.realpath(os.path.join(__file__, "..", "..", ".."))


@pytest.fixture(scope="module")
def uv(nix_store: NixStore, store_venv: StoreVenvFactory, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of the programs of nixpatchUv."""
    if not shutil.which("strip"):
        pytest.skip("not installed: strip")
    venv = store_venv("installer")
    venv.install_project(REPOSITORY)
    arguments = {
        "store": os.path.join(nix_store.work, "store.json"),
        "tool": venv.site_packages,
        "installer": venv.site_packages,
        "strip": bring_strip(str(tmp_path_factory.mktemp("strip"))),
        "program": find_uv_bin(),
    }
    command = ["nix-build", "--no-out-link", os.path.join(HERE, "uv.nix")]
    for name, value in arguments.items():
        command += ["--argstr", name, value]
    done = subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return os.path.join(done.stdout.strip(), "bin")


def _run(directory: str, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "NIXPATCH_UV"}}
    kept["PATH"] = f"{directory}:{kept['PATH']}"
    return subprocess.run(command, env={**kept, **environ}, capture_output=True, text=True, check=False)


def test_what_it_installs_loads(uv: str, store_venv: StoreVenvFactory, sandbox: Sandbox) -> None:
    venv = store_venv()
    words = ["pip", "install", "--quiet", "--constraint", CONSTRAINTS, "--python", venv.python, "numpy"]

    done = _run(uv, "uv", "--no-progress", *words)

    assert done.returncode == 0, done.stderr
    look = [venv.python, "-c", "import numpy.linalg; print(numpy.arange(3).sum())"]
    assert sandbox.run(look, read_only=[venv.path]).stdout == "3\n"


def test_a_project_and_uv_inside_of_uv_run(uv: str, tmp_path: os.PathLike[str], nix_store: NixStore) -> None:
    project = os.path.join(os.fspath(tmp_path), "project")
    os.mkdir(project)
    with open(os.path.join(project, "pyproject.toml"), "w", encoding="utf-8") as file:
        file.write(
            '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["six"]\n'
        )

    outer = ["uv", "--project", project, "run", "--python", nix_store.python]
    done = _run(uv, *outer, "bash", "-c", "command -v uv; echo ${NIXPATCH_UV-unset}; python -c 'import six'")

    assert done.returncode == 0, done.stderr
    # What is started finds the same uv, which links again.
    assert done.stdout.split() == [f"{uv}/uv", "unset"]


def test_the_rest_is_uv_itself(uv: str) -> None:
    assert (
        _run(uv, "uv", "--version").stdout == _run(os.path.dirname(find_uv_bin()), "uv", "--version").stdout
    )
    assert _run(uv, "uvx", "--help").returncode == 0
    failed = _run(
        uv, "uv", "pip", "install", "--offline", "no-such-package-of-nixpatch", "--python", "/nowhere"
    )
    assert failed.returncode == 2
    assert "nixpatch" not in failed.stderr.replace("no-such-package-of-nixpatch", "")
