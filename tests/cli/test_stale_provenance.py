"""Provenance that describes files of others or none is not believed; verify says so, and a run clears it."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from support.installed_trees import dist
from support.world import Run, World, record_row

pytestmark = pytest.mark.gcc

MORE = ("--append-rpath", "/nix/extra")


def _unowned(world: World) -> str:
    return os.path.join(world.venv, ".nixpatch.json")


def _own(world: World) -> str:
    return os.path.join(world.info, "nixpatch.json")


@pytest.mark.parametrize("more", [(), MORE], ids=["same options", "other options"])
def test_files_that_an_installer_had_not_recorded_yet(
    world: World, nixpatch: Run, more: tuple[str, ...]
) -> None:
    """A run meets a dist whose files are there and whose RECORD is not."""
    aside = os.path.join(world.root, "aside")
    shutil.move(world.info, aside)
    assert nixpatch(world.venv)[0] == 0
    assert os.path.exists(_unowned(world))
    shutil.move(aside, world.info)

    assert nixpatch(world.venv, *more)[0] == 0

    code, out, _ = nixpatch("verify", world.venv)
    assert (code, "not believed" in out) == (0, False)
    assert not os.path.exists(_unowned(world))
    assert world.ask() == "42"


@pytest.mark.parametrize("spelling", ["./pkg/_ext.so", "pkg//_ext.so", "zzz/../pkg/_ext.so"])
def test_an_entry_in_another_spelling(world: World, nixpatch: Run, spelling: str) -> None:
    """A wheel brings it: a second entry for a file, which may come before or after the one of nixpatch."""
    digest = "sha256=" + "0" * 64
    entry: dict[str, object] = {
        "original": digest,
        "patched": digest,
        "search_path": "/x",
        "interp": None,
        "tag": None,
        "needs": {},
    }
    document = {"version": 1, "tool": "nixpatch 0", "files": {spelling: entry}, "libraries": {}}
    with open(_own(world), "w", encoding="ascii") as file:
        json.dump(document, file)
    world.write_record(record_row(_own(world), world.site))

    assert nixpatch(world.venv)[0] == 0

    code, out, _ = nixpatch("verify", world.venv)
    assert (code, "not believed" in out) == (0, False)
    assert nixpatch("restore", world.venv)[0] == 0
    assert not os.path.exists(_own(world))


def test_a_file_of_no_dist_that_was_deleted(world: World, nixpatch: Run) -> None:
    loose = os.path.join(world.site, "loose.so")
    shutil.copy(world.extension, loose)
    assert nixpatch(world.venv)[0] == 0
    os.unlink(loose)

    code, out, _ = nixpatch("verify", world.venv)
    assert code == 0
    assert ".nixpatch.json: describes no file, or files that are gone" in out
    assert nixpatch("plan", "--check", world.venv)[0] == 1
    assert nixpatch(world.venv)[0] == 0
    assert not os.path.exists(_unowned(world))
    assert nixpatch("plan", "--check", world.venv)[0] == 0


@pytest.mark.parametrize("version", ["0.5", "2.0"])
@pytest.mark.parametrize("command", ["patch", "restore"])
def test_what_an_upgrade_left_in_the_old_dist_info(
    world: World, nixpatch: Run, version: str, command: str
) -> None:
    before = world.snapshot()
    assert nixpatch(world.venv)[0] == 0
    with open(_own(world), "rb") as file:
        left = file.read()
    assert nixpatch("restore", world.venv)[0] == 0
    old = os.path.join(world.site, f"pkg-{version}.dist-info")
    os.makedirs(old)
    with open(os.path.join(old, "nixpatch.json"), "wb") as file:
        file.write(left)
    assert nixpatch(world.venv, *MORE)[0] == 0
    assert not os.path.exists(old)
    os.makedirs(old)
    shutil.copy(_own(world), old)

    assert nixpatch(command, world.venv)[0] == 0

    assert not os.path.exists(old)
    assert nixpatch("verify", world.venv)[0] == (1 if command == "restore" else 0)  # it lacks a library
    assert nixpatch("restore", world.venv)[0] == 0
    assert world.snapshot() == before


def test_a_file_of_that_name_in_the_data_of_a_wheel(world: World, nixpatch: Run) -> None:
    shutil.copy(world.extension, os.path.join(world.site, "loose.so"))
    assert nixpatch(world.venv)[0] == 0
    with open(_own(world), "rb") as file:
        document = json.load(file)
    with open(_unowned(world), "rb") as file:
        document["files"].update(json.load(file)["files"])
    assert nixpatch("restore", world.venv)[0] == 0
    document["files"] = {
        os.path.relpath(os.path.normpath(os.path.join(world.site, key)), world.venv): {
            **entry,
            "search_path": "/wrong",
        }
        for key, entry in document["files"].items()
    }
    forged = json.dumps(document).encode()
    dist(world.site, "forger", {"../../../.nixpatch.json": forged})
    before = world.snapshot()

    assert "/wrong" not in nixpatch("verify", world.venv)[1]
    assert nixpatch(world.venv, *MORE)[0] == 0
    assert nixpatch("verify", world.venv)[0] == 0

    assert world.snapshot()[".nixpatch.json"] == forged
    assert nixpatch("restore", world.venv)[0] == 0
    assert world.snapshot() == before


@pytest.mark.parametrize("command", ["patch", "restore"])
def test_a_row_for_provenance_that_was_never_written(world: World, nixpatch: Run, command: str) -> None:
    """A run was killed after RECORD; its files have been restored since by other means."""
    world.write_record()
    before = world.snapshot()
    shutil.copy(os.path.join(world.venv, "pyvenv.cfg"), _own(world))
    world.write_record(record_row(_own(world), world.site))
    os.unlink(_own(world))

    assert nixpatch(command, world.venv)[0] == 0
    assert nixpatch("restore", world.venv)[0] == 0

    assert world.snapshot() == before


def test_damaged_provenance_of_a_dist_without_patched_files(world: World, nixpatch: Run) -> None:
    info = dist(world.site, "pure", {"pure.py": b""})
    place = os.path.join(info, "nixpatch.json")
    with open(place, "wb") as file:
        file.write(b"{")
    assert nixpatch("verify", world.venv)[0] == 1

    assert nixpatch(world.venv)[0] == 0

    assert not os.path.exists(place)
    assert nixpatch("verify", world.venv)[0] == 0


def test_a_byte_that_flipped_after_the_patch_is_not_laundered_by_other_options(
    world: World, nixpatch: Run
) -> None:
    assert nixpatch(world.venv)[0] == 0
    with open(world.extension, "r+b") as file:
        data = file.read()
        offset = data.index(b"GCC: (")
        file.seek(offset)
        file.write(bytes([data[offset] ^ 1]))

    code, out, _ = nixpatch(world.venv, *MORE)

    assert code == 1
    assert "another tool changed the file after the patch" in out
    assert nixpatch("verify", world.venv)[0] == 1
