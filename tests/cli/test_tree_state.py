"""A tree in which nothing changed is not read again; any change is seen."""

from __future__ import annotations

import glob
import os
import random
import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest

from nixpatch.model import Plan
from nixpatch.operations import kept_files
from nixpatch.operations.plan import make_plan
from nixpatch.store import cache
from support.world import HASH, Run, World, shared

pytestmark = pytest.mark.gcc


class Looks:
    """Counts the runs that read the tree."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0

        def counted(*args: Any, **kwargs: Any) -> Plan:
            self.count += 1
            return make_plan(*args, **kwargs)

        monkeypatch.setattr("nixpatch.operations.patch.make_plan", counted)

    def during(self, run: Callable[[], object]) -> int:
        before = self.count
        run()
        return self.count - before


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    # The files of a test are younger than two seconds.
    monkeypatch.setattr(cache, "_SETTLED", 0)
    return Looks(monkeypatch)


@pytest.fixture
def known(world: World, nixpatch: Run, looks: Looks) -> World:
    """Return a world whose tree is patched and known."""
    assert nixpatch(world.venv)[0] == 0
    assert nixpatch(world.venv)[0] == 0
    assert looks.during(lambda: nixpatch(world.venv)) == 0
    return world


def records(world: World) -> list[str]:
    return glob.glob(os.path.join(world.root, "cache", "nixpatch", "trees", "*"))


def test_the_third_run_says_what_the_second_said(known: World, nixpatch: Run) -> None:
    full = nixpatch("--no-cache", known.venv)
    brief = nixpatch(known.venv)
    assert brief[0] == full[0] == 0
    assert [line.rpartition(" in ")[0] for line in brief[1].splitlines()] == [
        line.rpartition(" in ")[0] for line in full[1].splitlines()
    ]
    assert nixpatch("-q", known.venv)[:2] == (0, "")


def test_another_directory_or_a_link_to_the_tree_is_the_same_tree(
    known: World, nixpatch: Run, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(known.root)
    assert looks.during(lambda: nixpatch("venv")) == 0
    os.symlink(known.venv, os.path.join(known.root, "link"))
    assert looks.during(lambda: nixpatch("link")) == 0


@pytest.mark.parametrize(
    "options", [("--json",), ("-v",), ("--no-cache",), ("--strict",), ("--tag", "RPATH")]
)
def test_other_options_look_again(
    known: World, nixpatch: Run, looks: Looks, options: tuple[str, ...]
) -> None:
    assert looks.during(lambda: nixpatch(*options, known.venv)) == 1


def test_another_file_system_or_store_looks_again(known: World, nixpatch: Run, looks: Looks) -> None:
    os.mkdir(os.path.join(known.store, f"{HASH[::-1]}-new-1"))
    assert looks.during(lambda: nixpatch(known.venv)) == 1


def test_what_changed_just_now_is_not_kept(
    world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(monkeypatch)
    for _ in range(3):
        assert looks.during(lambda: nixpatch(world.venv)) == 1
    assert not records(world)


def test_what_changes_while_a_run_looks_is_not_kept(
    world: World, nixpatch: Run, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run may have read the file before: its answer is of another file than the one that is there now."""
    assert nixpatch(world.venv)[0] == 0

    def disturbed(*args: Any, **kwargs: Any) -> Plan:
        plan = make_plan(*args, **kwargs)
        os.utime(world.program)
        return plan

    with monkeypatch.context() as patched:
        patched.setattr("nixpatch.operations.patch.make_plan", disturbed)
        assert nixpatch(world.venv)[0] == 0
    assert not records(world)
    assert looks.during(lambda: nixpatch(world.venv)) == 1


def test_a_file_outside_to_which_a_link_leads_counts(known: World, nixpatch: Run, looks: Looks) -> None:
    outside = os.path.join(known.root, "outside.py")
    with open(outside, "w") as file:
        file.write("A = 1\n")
    os.symlink(outside, os.path.join(known.site, "pkg", "linked.py"))
    nixpatch(known.venv)
    assert looks.during(lambda: nixpatch(known.venv)) == 0
    with open(outside, "a") as file:
        file.write("B = 2\n")
    assert looks.during(lambda: nixpatch(known.venv)) == 1


@pytest.fixture
def incomplete(world: World, nixpatch: Run, looks: Looks) -> World:
    """Return a world whose tree is known, and lacks a library."""
    shutil.rmtree(os.path.dirname(world.library))
    os.mkdir(os.path.join(world.store, f"{HASH[::-1]}-empty-1"))
    nixpatch(world.venv)
    assert nixpatch(world.venv)[0] == 1
    assert looks.during(lambda: nixpatch(world.venv)) == 0
    return world


@pytest.mark.parametrize("options", [(), ("--quiet",)])
def test_a_tree_that_lacks_a_library_says_so_each_time(
    incomplete: World, nixpatch: Run, options: tuple[str, ...]
) -> None:
    code, text, _ = nixpatch(*options, incomplete.venv)
    full_code, full_text, _ = nixpatch("--no-cache", *options, incomplete.venv)
    assert code == full_code == 1
    assert "libanswer.so.1" in text
    assert [line.rpartition(" in ")[0] for line in text.splitlines()] == [
        line.rpartition(" in ")[0] for line in full_text.splitlines()
    ]


def test_a_library_that_comes_into_the_store_is_seen(incomplete: World, nixpatch: Run, looks: Looks) -> None:
    library = os.path.join(incomplete.store, f"{HASH}-answer-2", "lib")
    os.makedirs(library)
    shared("library.c", os.path.join(library, "libanswer.so.1"), "-Wl,-soname,libanswer.so.1")
    assert nixpatch(incomplete.venv)[0] == 0


def test_advice_is_given_for_the_current_directory(
    incomplete: World, nixpatch: Run, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(incomplete.root)
    assert looks.during(lambda: nixpatch(incomplete.venv)) == 1
    assert looks.during(lambda: nixpatch(incomplete.venv)) == 0


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 100, b"[" * 100_000, None])
def test_a_broken_record_is_as_if_there_were_none(
    known: World, nixpatch: Run, looks: Looks, damage: bytes | None
) -> None:
    (path,) = records(known)
    with open(path, "r+b") as file:
        if damage is None:  # one flipped bit
            data = bytearray(file.read())
            data[len(data) // 2] ^= 1
            damage = bytes(data)
            file.seek(0)
        file.truncate()
        file.write(damage)
    assert looks.during(lambda: nixpatch(known.venv)) == 1
    assert looks.during(lambda: nixpatch(known.venv)) == 0


def test_a_record_that_cannot_be_written_is_no_error(world: World, nixpatch: Run, looks: Looks) -> None:
    os.makedirs(os.path.join(world.root, "cache", "nixpatch"))
    with open(os.path.join(world.root, "cache", "nixpatch", "trees"), "w"):
        pass
    for _ in range(3):
        assert nixpatch(world.venv)[0] == 0


def test_nothing_is_kept_in_a_nix_build(
    world: World, nixpatch: Run, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIX_BUILD_TOP", world.root)
    for _ in range(3):
        nixpatch("--lib", world.library, world.venv)
    assert not records(world)


def _flip(path: str) -> None:
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))


def _flip_and_set_the_time_back(path: str) -> None:
    status = os.stat(path)
    _flip(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _replace_by_the_same_size(path: str) -> None:
    status = os.stat(path)
    with open(path, "rb") as file:
        data = bytearray(file.read())
    data[-1] ^= 1
    with open(path + ".new", "wb") as file:
        file.write(data)
    os.utime(path + ".new", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(path + ".new", path)


def _move_away(path: str) -> None:
    os.rename(path, path + ".away")


def _link(path: str) -> None:
    os.rename(path, path + ".real")
    os.symlink(path + ".real", path)


def _make_executable(path: str) -> None:
    os.chmod(path, os.stat(path).st_mode ^ 0o111)


def _append(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"\0")


CHANGES = [
    _flip,
    _flip_and_set_the_time_back,
    _replace_by_the_same_size,
    _move_away,
    _link,
    _make_executable,
    _append,
]


@pytest.mark.parametrize("seed", range(12))
def test_any_change_of_a_file_of_the_tree_or_of_a_library_is_seen(
    known: World, nixpatch: Run, looks: Looks, seed: int
) -> None:
    chance = random.Random(seed)
    for _ in range(4):
        files = [
            os.path.join(directory, name)
            for top in (known.venv, known.library)
            for directory, _, names in os.walk(top)
            for name in names
            if not os.path.islink(os.path.join(directory, name))
            and os.path.getsize(os.path.join(directory, name))
        ]
        chance.choice(CHANGES)(chance.choice(files))
        assert looks.during(lambda: nixpatch(known.venv)) == 1
        nixpatch(known.venv)


def test_a_new_file_is_seen(known: World, nixpatch: Run, looks: Looks) -> None:
    shared(
        "extension.c",
        os.path.join(known.site, "pkg", "_new.so"),
        os.path.join(known.library, "libanswer.so.1"),
    )
    assert looks.during(lambda: nixpatch(known.venv)) == 1


def test_byte_code_that_python_writes_changes_nothing(known: World, nixpatch: Run, looks: Looks) -> None:
    os.makedirs(os.path.join(known.site, "pkg", "__pycache__"))
    assert looks.during(lambda: nixpatch(known.venv)) == 1
    nixpatch(known.venv)
    with open(os.path.join(known.site, "pkg", "__pycache__", "x.cpython-311.pyc"), "w") as file:
        file.write("byte code")
    assert looks.during(lambda: nixpatch(known.venv)) == 0


def test_a_lockfile_that_changed_is_read_again(world: World, nixpatch: Run, looks: Looks, lock: str) -> None:
    assert nixpatch("lock", "-o", lock, world.venv)[0] == 0
    nixpatch("--locked", lock, world.venv)
    nixpatch("--locked", lock, world.venv)
    assert looks.during(lambda: nixpatch("--locked", lock, world.venv)) == 0
    os.utime(lock)
    assert looks.during(lambda: nixpatch("--locked", lock, world.venv)) == 1


def test_of_many_trees_the_oldest_are_forgotten(
    world: World, nixpatch: Run, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_files, "_MOST", 2)
    for name in ("a", "b", "c"):
        path = os.path.join(world.root, name)
        shutil.copytree(world.venv, path, symlinks=True)
        nixpatch(path)
        nixpatch(path)
        time.sleep(0.01)
    assert len(records(world)) == 2
