"""What is kept of the headers of files never changes an answer, whatever happens to files or cache."""

import glob
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nixpatch import elf
from nixpatch.model import ElfFacts, Skip
from nixpatch.operations import kept_files, known_headers
from nixpatch.store import cache
from support.world import Run, World, shared

pytestmark = pytest.mark.gcc

_TICK = 0.02  # seconds; file systems count time in ticks of some milliseconds


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a test are younger than two seconds."""
    monkeypatch.setattr(known_headers, "settled", lambda *_: True)
    monkeypatch.setattr(cache, "_SETTLED", 0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose headers were read."""
    paths: list[str] = []
    reader = elf.read

    def noted(path: str, **options: bool) -> ElfFacts | Skip:
        paths.append(path)
        return reader(path, **options)

    monkeypatch.setattr("nixpatch.elf.read", noted)
    return paths


def planned(nixpatch: Run, world: World, *options: str) -> object:
    document = json.loads(nixpatch("plan", "--json", *options, world.venv)[1])
    return document["trees"]


def test_headers_of_unchanged_files_are_not_read_again(world: World, nixpatch: Run, read: list[str]) -> None:
    planned(nixpatch, world)
    assert world.extension in read
    read.clear()
    shared("extension.c", os.path.join(world.site, "pkg", "_new.so"), f"{world.library}/libanswer.so.1")
    planned(nixpatch, world)
    assert [path for path in read if path.startswith(world.venv)] == [f"{world.site}/pkg/_new.so"]


def _times(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_atime_ns, status.st_mtime_ns


def _write(path: str, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.write(data)
        file.truncate()


def _rename_a_need(path: str) -> None:
    _write(path, Path(path).read_bytes().replace(b"libanswer.so.1", b"libanswer.so.9"))


def _rename_a_need_and_set_the_time_back(path: str) -> None:
    times = _times(path)
    _rename_a_need(path)
    os.utime(path, ns=times)


def _replace_by_one_with_the_same_times(path: str) -> None:
    times = _times(path)
    shutil.copyfile(path, path + ".new")
    _rename_a_need(path + ".new")
    os.utime(path + ".new", ns=times)
    os.replace(path + ".new", path)


def _truncate(path: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


def _swap_with_another(path: str) -> None:
    other = path + ".other.so"
    shutil.copyfile(path, other)
    _rename_a_need(other)
    os.rename(path, path + ".away")
    os.rename(other, path)
    os.rename(path + ".away", other)


def _link_to_another_file_system(path: str) -> None:
    away = f"/dev/shm/nixpatch-{os.getpid()}-{os.path.basename(path)}"
    shutil.move(path, away)
    os.symlink(away, path)
    _rename_a_need(away)


def _set_the_clock_back(path: str) -> None:
    _rename_a_need(path)
    os.utime(path, (0, 0))


def _put_back(path: str) -> None:
    _write(path, Path(path).read_bytes().replace(b"libanswer.so.9", b"libanswer.so.1"))


CHANGES = [
    _rename_a_need,
    _rename_a_need_and_set_the_time_back,
    _replace_by_one_with_the_same_times,
    _truncate,
    _swap_with_another,
    _link_to_another_file_system,
    _set_the_clock_back,
    _put_back,
]


@pytest.mark.parametrize("seed", range(10))
def test_after_any_changes_the_plan_is_that_of_a_run_without_cache(
    world: World, nixpatch: Run, seed: int
) -> None:
    chance = random.Random(seed)
    try:
        for _ in range(6):
            files = [path for path in (world.extension, world.program) if not os.path.islink(path)]
            planned(nixpatch, world)
            time.sleep(_TICK)
            if files:
                chance.choice(CHANGES)(chance.choice(files))
            assert planned(nixpatch, world) == planned(nixpatch, world, "--no-cache")
    finally:
        for path in glob.glob(f"/dev/shm/nixpatch-{os.getpid()}-*"):
            os.unlink(path)


def _kept(world: World) -> str:
    (path,) = glob.glob(os.path.join(world.root, "cache", "nixpatch", "headers", "*"))
    return path


def _damage(change: Callable[[bytes], bytes]) -> Callable[[str], None]:
    return lambda path: _write(path, change(Path(path).read_bytes()))


def _of_another_shape(path: str) -> None:
    """Write rows with a right digest and wrong types, as another program could."""
    value = kept_files.read(path)
    for number, row in enumerate(value["files"].values()):
        row[1] = [None, [], {}, "text", {"reason": 7}, {**row[1], "needed": ["a", 1]}][number % 6]
    kept_files.write(path, value)


@pytest.mark.parametrize(
    "damage",
    [
        _damage(lambda data: data[:-1]),
        _damage(lambda _: b""),
        _damage(lambda data: data.replace(b"libanswer", b"libanswes")),
        _damage(lambda data: b"0" * 64 + data[64:]),
        _of_another_shape,
    ],
    ids=["cut", "empty", "changed", "digest", "shape"],
)
def test_a_damaged_file_is_as_if_there_were_none(
    world: World, nixpatch: Run, damage: Callable[[str], None]
) -> None:
    expected = planned(nixpatch, world, "--no-cache")
    planned(nixpatch, world)
    damage(_kept(world))
    assert planned(nixpatch, world) == expected
    assert planned(nixpatch, world) == expected


def test_nothing_is_kept_of_what_changed_just_now(
    world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_SETTLED", 2_000_000_000)
    monkeypatch.setattr(known_headers, "settled", cache.settled)
    nixpatch("plan", world.venv)
    assert not glob.glob(os.path.join(world.root, "cache", "nixpatch", "headers", "*"))
