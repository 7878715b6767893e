"""Fixtures of the command line's tests."""

from __future__ import annotations

import os

import pytest

from cli import world as worlds
from cli.world import Run, World
from elf.programs import Workshop
from nixpatch.cli import run


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
