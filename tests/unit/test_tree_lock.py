"""A run holds its tree: against runs on the same tree and on trees in it, not against those beside it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from nixpatch.errors import MachineError
from nixpatch.tree_lock import hold_tree


def is_free(directory: Path | str) -> bool:
    """Whether a directory could be locked by another process, exclusively."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    (tmp_path / "venv" / "lib").mkdir(parents=True)
    (tmp_path / "venv" / "lib" / "x.so").write_bytes(b"x")
    return tmp_path / "venv"


@pytest.mark.parametrize("named", ["", "lib/..", "lib/x.so"])
def test_a_tree_and_all_above_are_held_and_nothing_is_left(venv: Path, named: str) -> None:
    waited: list[str] = []
    held = venv / "lib" if named.endswith(".so") else venv
    before = sorted(os.listdir(held))
    with hold_tree(str(venv / named), waited.append):
        assert not is_free(held)
        assert not is_free(held.parent)
        assert sorted(os.listdir(held)) == before
    assert is_free(held)
    assert is_free(held.parent)
    assert waited == []


def test_a_path_that_does_not_exist_locks_nothing(venv: Path) -> None:
    with hold_tree(str(venv / "typo"), pytest.fail):
        assert is_free(venv)
        assert is_free(venv.parent)


def test_a_tree_beside_it_is_free(venv: Path) -> None:
    (venv.parent / "other").mkdir()
    with hold_tree(str(venv), pytest.fail), hold_tree(str(venv.parent / "other"), pytest.fail):
        assert not is_free(venv.parent / "other")


@pytest.mark.parametrize("held", ["", ".."])
def test_a_second_run_says_once_that_it_waits(venv: Path, held: str) -> None:
    descriptor = os.open(venv / held, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    waited: list[str] = []

    def on_wait(text: str) -> None:
        waited.append(text)
        os.close(descriptor)

    with hold_tree(str(venv), on_wait):
        assert not is_free(venv)

    assert waited == [f"{venv}: another nixpatch is at work here, waiting for it"]


def test_a_tree_that_was_made_anew_meanwhile_is_the_one_that_is_held(venv: Path) -> None:
    descriptor = os.open(venv, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    def on_wait(_: str) -> None:
        venv.rename(f"{venv}-old")
        venv.mkdir()
        os.close(descriptor)

    with hold_tree(str(venv), on_wait):
        assert not is_free(venv)


@pytest.mark.parametrize("path", ["missing/venv", "nul\0"])
def test_what_is_no_tree_is_for_the_scan_to_refuse(venv: Path, path: str) -> None:
    with hold_tree(str(venv / path), pytest.fail):
        pass


def test_a_file_system_that_cannot_lock_ends_the_run(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX:
            raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(MachineError, match="cannot be locked: No locks available; nothing was changed"),
        hold_tree(str(venv), pytest.fail),
    ):
        pass


def test_the_root_can_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the file system: it is not above itself."""
    operations: list[int] = []
    monkeypatch.setattr(fcntl, "flock", lambda _, operation: operations.append(operation))
    with hold_tree("/", pytest.fail):
        pass
    assert operations == [fcntl.LOCK_EX | fcntl.LOCK_NB]
