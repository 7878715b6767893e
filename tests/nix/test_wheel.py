"""Patched wheels where nothing can be patched after the installation, and what other tools say of them."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from uv import find_uv_bin

from support.testbed.sandbox import Sandbox
from support.testbed.store import NixStore
from support.testbed.venv import CONSTRAINTS, StoreVenvFactory

pytestmark = [pytest.mark.nix, pytest.mark.sandbox, pytest.mark.pypi]

PROJECT = """\
[build-system]
requires = ["cmake", "ninja"]
build-backend = "backend"
backend-path = ["."]
"""
# A backend as small as can be that runs the programs of its isolated environment (PEP 517).
BACKEND = """\
import subprocess, zipfile

def version(tool):
    return subprocess.run([tool, "--version"], check=True, capture_output=True, text=True).stdout

def build_wheel(directory, config_settings=None, metadata_directory=None):
    info = "built-1.0.dist-info"
    files = {
        "built.py": f"versions = {[version('cmake'), version('ninja')]!r}\\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\\nName: built\\nVersion: 1.0\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(f"{directory}/built-1.0-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return "built-1.0-py3-none-any.whl"
"""


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the wheels of PyPI."""
    directory = str(tmp_path_factory.mktemp("downloads"))
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory]
    subprocess.run([*download, "cmake", "ninja"], check=True)
    return directory


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_an_isolated_build_runs_the_programs_of_patched_wheels(
    tool: str, downloads: str, sandbox: Sandbox, store_venv: StoreVenvFactory, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "backend.py").write_text(BACKEND)
    venv = store_venv(pip=True)
    venv.install("uv")
    nixpatch = [sys.executable, "-m", "nixpatch"]
    subprocess.run([*nixpatch, venv.path], check=True, capture_output=True)
    wheels = [os.path.join(downloads, name) for name in sorted(os.listdir(downloads))]
    options = ["-q", "--python", venv.python, "-w", str(tmp_path / "patched")]
    subprocess.run([*nixpatch, "wheel", *options, *wheels], check=True, capture_output=True)

    def build(links: str) -> subprocess.CompletedProcess[str]:
        program = {
            "pip": [venv.python, "-m", "pip", "install", "--no-cache-dir"],
            "uv": [os.path.join(venv.bin, "uv"), "pip", "install", "--no-cache"],
        }[tool]
        return sandbox.run(
            [*program, "--quiet", "--no-index", "--find-links", links, str(tmp_path)],
            read_write=[str(tmp_path), venv.path, downloads],
            cwd=str(tmp_path),
            env={
                "PATH": venv.bin,
                "VIRTUAL_ENV": venv.path,
                "HOME": str(tmp_path),
                "TMPDIR": str(tmp_path),
            },
        )

    assert build(downloads).returncode != 0  # as they come from PyPI
    done = build(str(tmp_path / "patched"))
    assert done.returncode == 0, done.stdout + done.stderr
    said = sandbox.run([venv.python, "-c", "import built; print(built.versions)"], read_write=[venv.path])
    assert "cmake version" in said.stdout


_OF_AUDITWHEEL = "W009,W010"
"""objections of check-wheel-contents to the directory in which auditwheel puts libraries"""


@pytest.fixture(scope="module")
def houses(nix_store: NixStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """Return the wheels of PyPI of an extension and a program, and the patched ones."""
    directory = tmp_path_factory.mktemp("houses")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    options = ["--python-version", "3.11", "--constraint", CONSTRAINTS, "--dest", str(directory / "pypi")]
    subprocess.run([*pip, *options, "pyzmq", "ninja"], check=True)
    originals = sorted(map(str, (directory / "pypi").iterdir()))
    nixpatch = [sys.executable, "-m", "nixpatch", "wheel", "-q", "--python", nix_store.python]
    subprocess.run([*nixpatch, "-w", str(directory / "patched"), *originals], check=True)
    return originals, sorted(map(str, (directory / "patched").iterdir()))


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_what_is_installed_from_patched_wheels_works_without_a_run(
    tool: str,
    houses: tuple[list[str], list[str]],
    sandbox: Sandbox,
    store_venv: StoreVenvFactory,
) -> None:
    venv = store_venv(pip=tool == "pip")
    program = [venv.python, "-m", "pip"] if tool == "pip" else [find_uv_bin(), "pip"]
    options = ["--no-cache-dir"] if tool == "pip" else ["--no-cache", "--python", venv.python]
    # The wheels of PyPI are offered, too.
    links = [word for wheels in houses for word in ("--find-links", os.path.dirname(wheels[0]))]
    subprocess.run(
        [*program, "install", "--quiet", "--no-index", "--no-deps", *options, *links, "pyzmq", "ninja"],
        check=True,
    )

    code = "import zmq; zmq.Context().socket(zmq.PAIR).bind('inproc://x'); print(zmq.zmq_version())"
    done = sandbox.run([venv.python, "-c", code], read_only=[venv.path])
    assert done.returncode == 0, done.stderr
    done = sandbox.run([os.path.join(venv.bin, "ninja"), "--version"], read_only=[venv.path])
    assert done.returncode == 0, done.stderr
    nixpatch = [sys.executable, "-m", "nixpatch"]
    verify = [*nixpatch, "verify", "--load", venv.path]
    verdict = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert verdict.returncode == 0, verdict.stdout


def test_the_tools_of_others_accept_patched_wheels(
    houses: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    venv = str(tmp_path / "tools")
    subprocess.run([find_uv_bin(), "venv", "--quiet", "--python", sys.executable, venv], check=True)
    install = [find_uv_bin(), "pip", "install", "--quiet", "--python", venv]
    subprocess.run([*install, "installer", "wheel", "twine", "check-wheel-contents"], check=True)
    python = os.path.join(venv, "bin", "python")
    for number, wheel in enumerate(houses[1]):
        with zipfile.ZipFile(wheel) as archive:
            assert archive.testzip() is None
        for command in (
            ["twine", "check", "--strict", wheel],
            ["check_wheel_contents", "--ignore", _OF_AUDITWHEEL, wheel],
            ["wheel", "unpack", "--dest", str(tmp_path / f"unpacked{number}"), wheel],
            ["installer", "--destdir", str(tmp_path / f"installed{number}"), wheel],
        ):
            done = subprocess.run([python, "-m", *command], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


def test_wheels_of_pypi_come_back_byte_for_byte(houses: tuple[list[str], list[str]], tmp_path: Path) -> None:
    nixpatch = [sys.executable, "-m", "nixpatch", "restore", "-q", "-w", str(tmp_path)]
    subprocess.run([*nixpatch, *houses[1]], check=True)
    for original in houses[0]:
        assert (tmp_path / os.path.basename(original)).read_bytes() == Path(original).read_bytes()
