"""Patched wheels where nothing can be patched after the installation: isolated builds, by pip and by uv."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.testbed.sandbox import Sandbox
from support.testbed.venv import StoreVenvFactory

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
