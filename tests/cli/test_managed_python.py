"""Pythons that uv and others download: they need a loader that NixOS does not have."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import tarfile

import pytest

from nixpatch import elf
from nixpatch.model import ElfFacts
from support.relocated import VERSION, put_glibc, relocate
from support.shop import Call, Shop, make_wheel
from support.world import NO_LOADER, Run, World

pytestmark = pytest.mark.gcc


@pytest.fixture
def loader(world: World) -> str:
    """The loader of the store."""
    return put_glibc(world)


@pytest.fixture
def python(world: World) -> str:
    """A Python that cannot start."""
    return relocate(os.path.join(world.root, "pythons", "cpython"))


def starts(python: str, code: str = "print('started')") -> str:
    """Start a Python; return what it prints, or why it does not start."""
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError as error:
        return error.strerror or ""
    return done.stdout.strip() or done.stderr.strip()


def interp_of(path: str) -> str | None:
    facts = elf.read(path)
    assert isinstance(facts, ElfFacts)
    return facts.current.interp


def venv_of(python: str, path: str) -> str:
    """Make a venv as uv does, which starts no Python."""
    os.makedirs(os.path.join(path, "lib", f"python{VERSION}", "site-packages"))
    os.makedirs(os.path.join(path, "bin"))
    os.symlink(python, os.path.join(path, "bin", "python"))
    with open(os.path.join(path, "pyvenv.cfg"), "w", encoding="utf-8") as file:
        file.write(f"home = {os.path.dirname(python)}\nversion_info = {platform.python_version()}\n")
    return path


class TestPrefix:
    """nixpatch PREFIX of such a Python."""

    def test_it_starts_with_the_loader_of_the_store(self, nixpatch: Run, loader: str, python: str) -> None:
        prefix = os.path.dirname(os.path.dirname(python))
        with open(python, "rb") as file:
            before = file.read()
        assert starts(python) == "No such file or directory"

        code, _, err = nixpatch(prefix)

        assert code == 0, err
        assert interp_of(python) == loader
        assert starts(python) == "started"
        assert nixpatch("verify", prefix)[0] == 0
        assert nixpatch(prefix, "--check")[0] == 0
        assert nixpatch("restore", prefix)[0] == 0
        with open(python, "rb") as file:
            assert file.read() == before

    def test_programs_in_it_get_the_same_loader(
        self, nixpatch: Run, world: World, loader: str, python: str
    ) -> None:
        prefix = os.path.dirname(os.path.dirname(python))
        tool = os.path.join(prefix, "bin", "tool")
        os.rename(world.program, tool)

        assert nixpatch(prefix)[0] == 0

        assert interp_of(tool) == loader
        assert subprocess.run([tool], check=False).returncode == 42

    def test_without_any_libc_the_reason_is_given(
        self, nixpatch: Run, python: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "/nowhere")

        code, _, err = nixpatch(os.path.dirname(os.path.dirname(python)))

        assert code == 2
        assert "needs the dynamic loader" in err
        assert len(err.splitlines()) == 1

    def test_verify_says_how_to_mend_it(self, nixpatch: Run, loader: str, python: str) -> None:
        assert loader
        prefix = os.path.dirname(os.path.dirname(python))

        code, out, _ = nixpatch("verify", prefix)

        assert code == 1
        assert f"nixpatch {prefix}" in out


class TestVenv:
    """A venv of such a Python."""

    def test_the_finding_has_the_command_that_mends_it(
        self, nixpatch: Run, world: World, loader: str, python: str
    ) -> None:
        venv = venv_of(python, os.path.join(world.root, "made"))
        prefix = os.path.dirname(os.path.dirname(python))

        for command in ([venv], ["plan", venv], ["verify", venv]):
            code, out, err = nixpatch(*command)
            assert (code, err) == (1, ""), command
            assert "cannot start here: it needs the dynamic loader" in out
            assert f"nixpatch {prefix}" in out

        assert nixpatch(prefix)[0] == 0
        for command in ([venv], ["verify", venv]):
            assert nixpatch(*command)[0] == 0, command
        assert starts(os.path.join(venv, "bin", "python")) == "started"
        assert interp_of(python) == loader

    def test_its_programs_get_the_loader_that_its_python_will_have(
        self, nixpatch: Run, world: World, loader: str, python: str
    ) -> None:
        venv = venv_of(python, os.path.join(world.root, "made"))
        tool = os.path.join(venv, "bin", "tool")
        os.rename(world.program, tool)
        assert interp_of(tool) == NO_LOADER

        assert nixpatch(venv)[0] == 1

        assert interp_of(tool) == loader


@pytest.fixture
def downloads(shop: Shop, loader: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """uv downloads the stand-in; returns the directory of its Pythons."""
    assert loader
    root = shop.world.root
    archive = os.path.join(root, "cpython.tar.gz")
    relocate(os.path.join(root, "build", "python"))
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(os.path.join(root, "build", "python"), "python")
    with open(archive, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    version = platform.python_version_tuple()
    entry = {
        "name": "cpython",
        "arch": {"family": platform.machine(), "variant": None},
        "os": "linux",
        "libc": "gnu",
        **dict(zip(("major", "minor", "patch"), map(int, version), strict=True)),
        "prerelease": "",
        "url": f"file://{archive}",
        "sha256": digest,
        "variant": None,
        "build": "20260101",
    }
    index = os.path.join(root, "downloads.json")
    with open(index, "w", encoding="utf-8") as file:
        json.dump({f"cpython-{'.'.join(version)}-linux-{platform.machine()}-gnu": entry}, file)
    pythons = os.path.join(root, "uv-pythons")
    for name in ("one", "two"):
        shop.wheel(name)
    values = {
        "UV_PYTHON_DOWNLOADS_JSON_URL": f"file://{index}",
        "UV_PYTHON_INSTALL_DIR": pythons,
        "UV_PYTHON_PREFERENCE": "only-managed",
        "UV_PYTHON_DOWNLOADS": "automatic",
        "UV_PYTHON_INSTALL_BIN": "0",
        "UV_FIND_LINKS": shop.wheels,
        "UV_TOOL_DIR": os.path.join(root, "tools"),
        "UV_TOOL_BIN_DIR": os.path.join(root, "bin"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.delenv("VIRTUAL_ENV")
    directory = os.path.join(root, "outside")
    os.makedirs(directory)
    monkeypatch.chdir(directory)
    return pythons


ASK = "import ctypes, {0}; print('answer', ctypes.CDLL({0}.__path__[0] + '/native/_ext.so').ask())"


@pytest.mark.usefixtures("downloads")
class TestUv:
    """nixpatch uv, with a Python that it has just downloaded."""

    def test_plain_uv_fails(self) -> None:
        done = subprocess.run(["uv", "venv", "v"], capture_output=True, text=True, check=False)

        assert done.returncode != 0, done.stderr

    def test_python_install(self, call: Call, downloads: str) -> None:
        code, _, err = call("uv", "python", "install", VERSION)

        assert code == 0, err
        (name,) = [
            name for name in os.listdir(downloads) if name.startswith("cpython-3") and name.count(".") > 1
        ]
        assert starts(os.path.join(downloads, name, "bin", "python3")) == "started"

    def test_venv(self, call: Call) -> None:
        code, _, err = call("uv", "venv", "v")

        assert code == 0, err
        assert starts("v/bin/python") == "started"

    def test_sync(self, call: Call) -> None:
        with open("pyproject.toml", "w", encoding="utf-8") as file:
            file.write(
                '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["one"]\n'
            )

        code, _, err = call("uv", "sync")

        assert code == 0, err
        assert starts(".venv/bin/python", ASK.format("one")) == "answer 42"
        assert call("verify", ".venv")[0] == 0

    def test_run(self, call: Call) -> None:
        code, out, err = call("uv", "run", "--with", "one", "python", "-c", ASK.format("one"))

        assert (code, out) == (0, "answer 42\n"), err

    def test_run_a_script(self, call: Call) -> None:
        with open("s.py", "w", encoding="utf-8") as file:
            file.write(f'# /// script\n# dependencies = ["one"]\n# ///\n{ASK.format("one")}\n')

        code, out, err = call("uv", "run", "s.py")

        assert (code, out) == (0, "answer 42\n"), err

    def test_a_tool(self, call: Call, shop: Shop) -> None:
        script = b"#!python\nprint('answer')\n"
        make_wheel(shop.wheels, "tool", "1.0", more_files={"tool-1.0.data/scripts/tool": script})

        code, out, err = call("uvx", "tool")
        assert (code, out) == (0, "answer\n"), err
        assert call("uv", "tool", "install", "tool")[0] == 0
        done = subprocess.run(
            [os.path.join(shop.world.root, "bin", "tool")], capture_output=True, check=False
        )
        assert done.stdout == b"answer\n"
