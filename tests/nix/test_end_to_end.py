"""The main job on real input: wheels from PyPI, a real Nix store, a root like that of NixOS.

Before: what users of NixOS see. After one ``nixpatch VENV``, no options: everything imports or runs.
"""

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
from support.testbed.venv import StoreVenv, StoreVenvFactory, create

REPOSITORY = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))

WHEELS = (
    "numpy", "pandas", "scipy", "lxml", "pyzmq", "grpcio", "opencv-python-headless", "PySide6-Essentials",
    "psycopg2-binary", "cryptography", "pillow", "pyarrow", "ruff", "uv", "cmake", "ninja",
)  # fmt: skip
MODULES = (
    "numpy", "numpy.linalg", "pandas", "scipy.linalg", "lxml.etree", "zmq", "grpc", "cv2",
    "PySide6.QtWidgets", "psycopg2", "cryptography.hazmat.bindings._rust", "PIL._imaging", "pyarrow",
)  # fmt: skip
PROGRAMS = ("ruff", "uv", "cmake", "ninja")
# What the loader says on NixOS, by what it was asked to load.
FAILURES = {
    "numpy": "libstdc++.so.6",
    "zmq": "libstdc++.so.6",
    "PIL._imaging": "libz.so.1",
    "psycopg2": "libz.so.1",
    "cryptography.hazmat.bindings._rust": "libgcc_s.so.1",
}


def _elf_and_record(venv: StoreVenv) -> dict[str, str]:
    """Return the sha256 of every ELF file and every RECORD of a venv, by relative path."""
    found: dict[str, str] = {}
    for directory, _, names in os.walk(venv.path):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.islink(path):
                continue
            with open(path, "rb") as file:
                data = file.read()
            if data[:4] == b"\x7fELF" or name in {"RECORD", "nixpatch.json"}:
                found[os.path.relpath(path, venv.path)] = hashlib.sha256(data).hexdigest()
    return found


def _records(venv: StoreVenv) -> dict[str, list[bytes]]:
    found = {}
    for path in glob.glob(f"{venv.site_packages}/*.dist-info/RECORD"):
        with open(path, "rb") as file:
            found[os.path.relpath(path, venv.site_packages)] = file.read().splitlines(keepends=True)
    return found


class Story:
    """A venv with the wheels and one with nixpatch in the sandbox: before, one run without options, after."""

    def __init__(self, sandbox: Sandbox, wheels: StoreVenv, tool: StoreVenv) -> None:
        self.sandbox = sandbox
        self.wheels = wheels
        self.tool = tool
        self.modules_before = {module: self.load(module) for module in FAILURES}
        self.programs_before = {program: self.start(program) for program in ("ruff", "uv", "ninja")}
        self.lief_before = self.import_lief()
        self.records_before = _records(wheels)
        self.run = self.nixpatch(wheels.path)

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        paths = [self.wheels.path, self.tool.path]
        return self.sandbox.run(command, read_write=paths, env={"QT_QPA_PLATFORM": "offscreen"})

    def load(self, module: str) -> str:
        """Import a module; return "" or what went wrong."""
        done = self._run(self.wheels.python, "-c", f"import {module}")
        return "" if done.returncode == 0 else done.stderr

    def start(self, program: str) -> str:
        """Start a program; return "" or what went wrong."""
        done = self._run(os.path.join(self.wheels.bin, program), "--version")
        return "" if done.returncode == 0 else done.stderr

    def import_lief(self) -> str:
        """Import LIEF where nixpatch is installed; return "" or what went wrong."""
        done = self._run(self.tool.python, "-c", "import lief")
        return "" if done.returncode == 0 else done.stderr

    def nixpatch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run nixpatch, installed with an installer for the store's Python."""
        return self._run(os.path.join(self.tool.bin, "nixpatch"), *arguments)


@pytest.fixture(scope="module")
def story(sandbox: Sandbox, store_venv: StoreVenvFactory) -> Story:
    """The story, told up to its end."""
    tool = store_venv()
    tool.install_project(REPOSITORY)
    return Story(sandbox, store_venv(*WHEELS), tool)


# One worker, so that the story is told once.
@pytest.mark.xdist_group("end-to-end")
class TestTheStory:
    """Before, one run, after."""

    def test_before_the_wheels_fail_as_on_nixos(self, story: Story) -> None:
        for module, library in FAILURES.items():
            assert f"{library}: cannot open shared object file" in story.modules_before[module], module
        for program, said in story.programs_before.items():
            assert "No such file or directory" in said, program

    def test_nixpatch_starts_where_lief_cannot_be_imported(self, story: Story) -> None:
        assert "libstdc++.so.6: cannot open shared object file" in story.lief_before
        assert story.run.returncode == 0, story.run.stdout + story.run.stderr

    def test_one_run_without_options(self, story: Story) -> None:
        assert story.run.returncode == 0, story.run.stdout + story.run.stderr
        assert "Patched" in story.run.stdout
        for name, rows in _records(story.wheels).items():
            old = story.records_before[name]
            # Only rows of ELF files differ, and one is new; order and all other bytes stay.
            for row, was in zip(rows, old, strict=False):
                if row != was:
                    path = os.path.join(story.wheels.site_packages, row.split(b",")[0].decode())
                    with open(path, "rb") as file:
                        assert file.read(4) == b"\x7fELF", row
            added = [row.split(b",")[0].rpartition(b"/")[2] for row in rows[len(old) :]]
            # A dist that opens libraries from Python has a start-up file, too.
            assert [name for name in added if not name.endswith(b".pth")] in ([], [b"nixpatch.json"])

    @pytest.mark.parametrize("module", MODULES)
    def test_after_it_every_module_imports(self, story: Story, module: str) -> None:
        assert story.load(module) == ""

    @pytest.mark.parametrize("program", PROGRAMS)
    def test_after_it_every_program_runs(self, story: Story, program: str) -> None:
        assert story.start(program) == ""

    def test_every_record_row_is_right_and_the_loader_agrees_with_the_plan(self, story: Story) -> None:
        done = story.nixpatch("verify", "--load", story.wheels.path)

        assert done.returncode == 0, done.stdout + done.stderr
        assert ": no errors" in done.stdout

    def test_a_second_run_changes_nothing(self, story: Story) -> None:
        before = _elf_and_record(story.wheels)

        done = story.nixpatch(story.wheels.path)

        assert done.returncode == 0
        assert "Patched 0 of" in done.stdout
        assert before == _elf_and_record(story.wheels)

    def test_a_second_installation_elsewhere_gets_the_same_bytes(
        self, story: Story, store_venv: StoreVenvFactory
    ) -> None:
        other = store_venv(*WHEELS)

        # Outside the sandbox, with the same store: where it runs makes no difference either.
        command = [sys.executable, "-m", "nixpatch", "-q", other.path]
        assert subprocess.run(command, check=False).returncode == 0

        ours, theirs = _elf_and_record(story.wheels), _elf_and_record(other)
        # An installer writes the venv's path into scripts: RECORD of a dist that has one differs from birth.
        differing = {name for name in ours if ours[name] != theirs.get(name)}
        assert differing <= {name for name in ours if name.endswith("RECORD") and _has_script(other, name)}

    def test_nixpatch_patches_its_own_environment(self, story: Story) -> None:
        assert story.nixpatch(story.tool.path).returncode == 0

        assert story.import_lief() == ""


def _has_script(venv: StoreVenv, record: str) -> bool:
    """Whether a dist has a script with the venv's path in its first line."""
    with open(os.path.join(venv.path, record), encoding="utf-8") as file:
        rows = [row.split(",")[0] for row in file if row.startswith("../../../bin/")]
    for row in rows:
        with open(os.path.join(venv.site_packages, row), "rb") as script:
            if script.read(2) == b"#!":
                return True
    return False


def test_the_cache_of_uv_stays_untouched(nix_store: NixStore, tmp_path: os.PathLike[str]) -> None:
    """uv links wheels into its cache by default: the cache keeps its bytes, the next venv is as installed."""
    base = os.path.realpath(tmp_path)
    cache = os.path.join(base, "cache")
    environment = {**os.environ, "UV_CACHE_DIR": cache}
    venv = create(nix_store, os.path.join(base, "venv"))
    command = [find_uv_bin(), "pip", "install", "--quiet", "--python"]
    subprocess.run([*command, venv.python, "numpy", "ruff"], check=True, env=environment)
    extension = glob.glob(f"{venv.site_packages}/numpy/_core/_multiarray_umath*.so")[0]
    before = _digests(cache)
    shared = os.stat(extension).st_nlink > 1

    subprocess.run([sys.executable, "-m", "nixpatch", "-q", venv.path], check=True)

    assert before == _digests(cache)
    if shared:  # a file system that can clone makes clones instead of links
        assert os.stat(extension).st_nlink == 1
    again = create(nix_store, os.path.join(base, "again"))
    subprocess.run([*command, again.python, "--offline", "numpy"], check=True, env=environment)
    with open(extension.replace(venv.path, again.path), "rb") as fresh, open(extension, "rb") as patched:
        assert fresh.read() != patched.read()


def _digests(directory: str) -> dict[str, str]:
    found = {}
    for where, _, names in os.walk(directory):
        for name in names:
            with open(os.path.join(where, name), "rb") as file:
                found[os.path.join(where, name)] = hashlib.sha256(file.read()).hexdigest()
    return found
