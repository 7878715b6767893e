"""When --locked does not go on: what is locked is gone or changed, or the lock is for something else."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

import pytest

from support.world import HASH, Run, World

pytestmark = pytest.mark.gcc


def _read(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        document: dict[str, Any] = json.load(file)
    return document


def _change(path: str, **fields: object) -> None:
    document = {**_read(path), **fields}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file)


@pytest.mark.parametrize("command", [["patch"], ["plan"], ["verify"]])
def test_a_store_path_that_is_gone_is_named_and_nothing_changes(
    world: World, nixpatch: Run, lock: str, command: list[str]
) -> None:
    nixpatch("lock", world.venv, "-o", lock)
    gone = os.path.dirname(world.library)
    # Another store path with the same library is no way out.
    shutil.move(gone, os.path.join(world.store, f"{HASH[::-1]}-answer-1.0"))
    before = world.snapshot()

    code, out, err = nixpatch(*command, "--locked", lock, world.venv)

    assert (code, out) == (3, "")
    assert err.startswith(f"nixpatch: {lock}: not in the store (any more): {gone}; ")
    assert len(err.splitlines()) == 1
    assert world.snapshot() == before


def test_a_library_that_changed_is_named_and_nothing_changes(world: World, nixpatch: Run, lock: str) -> None:
    nixpatch("lock", world.venv, "-o", lock)
    library = os.path.join(world.library, "libanswer.so.1")
    with open(library, "ab") as file:
        file.write(b"\0")
    before = world.snapshot()

    code, out, err = nixpatch("--locked", lock, world.venv)

    assert (code, out) == (3, "")
    assert err.startswith(f"nixpatch: {lock}: not what was locked: {library}; ")
    assert len(err.splitlines()) == 1
    assert world.snapshot() == before


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"machine": "aarch64"}, "locked for aarch64, the target Python is x86_64"),
        ({"loader": "/nix/store/x/lib/ld.so"}, "locked for the loader /nix/store/x/lib/ld.so, the target"),
        ({"libc": {"name": "musl", "version": ""}}, "locked for musl, the target Python uses glibc"),
        ({"libc": {"name": "glibc", "version": "9.99"}}, "locked for glibc 9.99, the target Python has 2."),
    ],
)
def test_a_lock_for_another_target_is_refused(
    world: World, nixpatch: Run, lock: str, fields: dict[str, object], told: str
) -> None:
    nixpatch("lock", world.venv, "-o", lock)
    _change(lock, **fields)
    before = world.snapshot()

    code, _, err = nixpatch("--locked", lock, world.venv)

    assert code == 2
    assert told in err
    assert world.snapshot() == before


def test_what_is_no_lock_is_refused(world: World, nixpatch: Run, lock: str) -> None:
    code, _, err = nixpatch("--locked", lock, world.venv)
    assert (code, "no such file; nixpatch lock PATH makes it" in err) == (2, True)

    with open(lock, "w", encoding="utf-8") as file:
        file.write("{}")
    code, _, err = nixpatch("--locked", lock, world.venv)
    assert (code, "not a version 1 lock" in err) == (2, True)

    nixpatch("lock", world.venv, "-o", lock)
    libraries = _read(lock)["libraries"]
    libraries["libanswer.so.1"]["store_path"] = "/usr"
    _change(lock, libraries=libraries)
    code, _, err = nixpatch("--locked", lock, world.venv)
    assert (code, "comes from /usr, which is no path in the store" in err) == (2, True)


def test_no_option_goes_round_the_lock(world: World, nixpatch: Run, lock: str) -> None:
    nixpatch("lock", world.venv, "-o", lock)
    for option, value in (("--lib", world.library), ("--closure", world.library), ("--nixpkgs", "nixpkgs")):
        code, _, err = nixpatch("--locked", lock, option, value, world.venv)
        assert code == 2
        assert "with --locked the store serves what the lock has" in err
