"""Fixtures of the command line's tests."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

from nixpatch.cli import run
from support import wheels
from support import world as worlds
from support.patchelf import newest
from support.programs import Workshop
from support.shop import Call, Shop
from support.world import Run, World


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Where small ELF files are made."""
    return Workshop(str(tmp_path_factory.mktemp("elf")))


@pytest.fixture
def elf_command(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run ``nixpatch elf``; return exit code, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(["elf", *arguments])
        told = capfd.readouterr()
        return code, told.out, told.err

    return call


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A store with one library and a venv with one dist that needs it."""
    return worlds.make(str(tmp_path_factory.mktemp("world")))


@pytest.fixture
def wheel(world: World) -> str:
    """A wheel file with an extension and a program that need the store's library."""
    return wheels.write(Path(world.root, wheels.NAME), wheels.contents(world))


@pytest.fixture
def wheelhouse(world: World) -> str:
    """A directory for patched wheels, which does not exist yet."""
    return os.path.join(world.root, "wheelhouse")


@pytest.fixture
def lock(world: World) -> str:
    """Where the lock is written."""
    return os.path.join(world.root, "nixpatch.lock")


@pytest.fixture
def nixpatch(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line against the world's store; return exit code, standard output, standard error."""
    monkeypatch.setenv("NIX_STORE_DIR", world.store)
    monkeypatch.setenv("XDG_CACHE_HOME", os.path.join(world.root, "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NIX_BUILD_TOP", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(arguments)
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


@pytest.fixture(scope="session")
def pip_venv(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A venv with pip, to be copied: it takes seconds to make one."""
    path = str(tmp_path_factory.mktemp("pip") / "venv")
    subprocess.run([sys.executable, "-m", "venv", path], check=True, capture_output=True)
    return path


@pytest.fixture
def shop(world: World, pip_venv: str, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The world with a venv that has pip, and nothing installed but what the world's own dist is."""
    (pip,) = glob.glob(f"{pip_venv}/lib/python3*/site-packages/pip")
    shutil.copytree(pip, os.path.join(world.site, "pip"))
    monkeypatch.setenv("NIX_STORE_DIR", world.store)
    monkeypatch.setenv("XDG_CACHE_HOME", os.path.join(world.root, "cache"))
    monkeypatch.setenv("UV_CACHE_DIR", os.path.join(world.root, "uv"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("VIRTUAL_ENV", world.venv)
    monkeypatch.setenv("PATH", f"{os.path.dirname(find_uv_bin())}:{os.environ['PATH']}")
    monkeypatch.delenv("NIX_BUILD_TOP", raising=False)
    monkeypatch.chdir(world.root)
    return Shop(world, os.path.join(world.root, "wheels"))


@pytest.fixture
def call(shop: Shop, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run a command line in this process; the installer writes to our own descriptors."""

    def run_it(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(arguments)
        told = capfd.readouterr()
        return code, told.out, told.err

    return run_it


@pytest.fixture(scope="session")
def newest_patchelf(tmp_path_factory: pytest.TempPathFactory) -> str:
    return newest(str(tmp_path_factory.mktemp("patchelf")))
