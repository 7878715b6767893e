"""What people install: sdist and wheel, built from the sources and tried in a clean venv."""

from __future__ import annotations

import glob
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser

import pytest
from uv import find_uv_bin

import nixpatch

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))

pytestmark = [pytest.mark.pypi, pytest.mark.xdist_group("package")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the sdist, and the wheel from what is in the sdist."""
    directory = str(tmp_path_factory.mktemp("dist"))
    subprocess.run(
        [find_uv_bin(), "build", "--quiet", "--python", sys.executable, "--out-dir", directory, ROOT],
        check=True,
    )
    return directory


def test_a_newcomer_installs_the_wheel_and_starts(
    built: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    venv = str(tmp_path_factory.mktemp("clean") / "venv")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    (wheel,) = glob.glob(f"{built}/*.whl")
    subprocess.run([f"{venv}/bin/pip", "install", "--quiet", wheel], check=True)

    def run(*command: str) -> str:
        done = subprocess.run(
            [f"{venv}/bin/{command[0]}", *command[1:]], capture_output=True, text=True, check=True
        )
        return done.stdout

    assert run("nixpatch", "--version") == f"nixpatch {nixpatch.__version__}\n"
    assert "PATH..." in run("nixpatch", "--help")
    # Pure Python, or it could not start on NixOS.
    code = "import sys, nixpatch; nixpatch.plan; print(sys.modules.keys() & {'lief', 'elftools', 'pydantic'})"
    assert run("python", "-c", code) == "set()\n"
    assert os.path.isfile(f"{venv}/share/man/man1/nixpatch.1")
    assert os.path.isfile(f"{venv}/share/bash-completion/completions/nixpatch")
    assert "No broken requirements" in run("pip", "check")


def test_the_wheel_has_its_data_and_its_metadata(built: str) -> None:
    (path,) = glob.glob(f"{built}/*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        told = HeaderParser().parsestr(wheel.read(metadata).decode())
    inside = {name for name in names if name.startswith("nixpatch/")}
    sources = {
        os.path.relpath(os.path.join(where, name), os.path.join(ROOT, "src"))
        for where, _, files in os.walk(os.path.join(ROOT, "src", "nixpatch"))
        for name in files
        if "__pycache__" not in where
    }
    assert inside == sources
    assert (told["Name"], told["Version"]) == ("nixpatch", nixpatch.__version__)
    assert told["License-Expression"] == "MIT"
    assert told["License-File"] == "LICENSE"
    assert told["Description-Content-Type"] == "text/markdown"
    assert told["Requires-Python"] == ">=3.11"
    assert any(classifier.endswith("Linux") for classifier in told.get_all("Classifier", []))


def test_the_sdist_has_what_builds_documents_and_tests_it(built: str) -> None:
    (path,) = glob.glob(f"{built}/*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {re.sub(r"^[^/]+/", "", name) for name in sdist.getnames()}
    for wanted in (
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "default.nix",
        "docs/nixpatch.1",
    ):
        assert wanted in names
    assert any(name.startswith("tests/") for name in names)
    assert any(name.startswith("fixtures/") for name in names)
    assert not any("__pycache__" in name or name.startswith((".git/", ".ci/")) for name in names)
