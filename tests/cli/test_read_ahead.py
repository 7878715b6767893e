"""Other processes read a large tree; the answer is that of one process, also when some of them die."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from nixpatch.operations import read_ahead
from nixpatch.operations.read_ahead import _read
from support.world import Run, World, shared

pytestmark = pytest.mark.gcc


@pytest.fixture
def large(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world that is worth several processes: modules that open libraries, and one broken file."""
    monkeypatch.setattr(read_ahead, "_WORTH_IT", 0)
    rows = []
    for number in range(20):
        path = os.path.join(world.site, "pkg", f"_more{number}.so")
        shared("extension.c", path, os.path.join(world.library, "libanswer.so.1"))
        source = os.path.join(world.site, "pkg", f"more{number}.py")
        Path(source).write_text(f"import ctypes\nctypes.CDLL('libanswer.so.{number}')\n")
        rows += [os.path.relpath(path, world.site) + ",,", os.path.relpath(source, world.site) + ",,"]
    Path(world.site, "pkg", "broken.so").write_bytes(b"\x7fELF" + b"\xff" * 60)
    world.write_record(*rows)
    return world


def plan(nixpatch: Run, world: World, jobs: str) -> tuple[int, str]:
    code, text, _ = nixpatch("--dry-run", "--json", "--no-cache", "--jobs", jobs, world.venv)
    return code, text.replace(f'"jobs": {jobs}', '"jobs": 0')


def test_the_number_of_processes_changes_nothing(large: World, nixpatch: Run) -> None:
    assert plan(nixpatch, large, "1") == plan(nixpatch, large, "2") == plan(nixpatch, large, "5")


@pytest.mark.parametrize("dies", [lambda number: number % 3 == 0, lambda _: True], ids=["some", "all"])
def test_what_a_dead_process_did_not_bring_is_read_here(
    large: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch, dies: Callable[[int], bool]
) -> None:
    expected = plan(nixpatch, large, "1")
    count = 0

    def killed(*args: object) -> object:
        nonlocal count
        count += 1
        if dies(count):
            os.kill(os.getpid(), signal.SIGKILL)
        return _read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(read_ahead, "_read", killed)
    assert plan(nixpatch, large, "4") == expected


def test_a_file_that_goes_meanwhile_is_said_to_have_gone(
    large: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = os.path.join(large.site, "pkg", "_more7.so")

    def removing(*args: object) -> object:
        if os.path.exists(gone):
            os.unlink(gone)
        return _read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(read_ahead, "_read", removing)
    _, text, _ = nixpatch("--dry-run", "-v", "--no-cache", "--jobs", "2", large.venv)
    assert "_more7.so: skipped" in text
    assert "changed during the run" in text
