"""--writer lief on the command line: who wrote what is told and remembered, and there is no way back."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from nixpatch.elf.lief import writer as lief_writer
from nixpatch.errors import FileRefused
from nixpatch.installed import provenance
from support.world import Run, World, shared

pytestmark = pytest.mark.gcc


def entries(world: World) -> dict[str, provenance.PatchedFile]:
    known = provenance.read(os.path.join(world.info, provenance.NAME))
    assert known is not None
    return dict(known.files)


def no_lief() -> str:
    raise FileRefused("LIEF is not installed")


def large_bss(world: World) -> None:
    """More .bss than the in-place edit turns into file content."""
    path = os.path.join(world.root, "bss.c")
    with open(path, "w", encoding="utf-8") as file:
        file.write("char zeros[300000000];\n")
    shared("extension.c", world.extension, path, os.path.join(world.library, "libanswer.so.1"))
    world.write_record()


def test_lief_writes_every_file_and_says_so(world: World, nixpatch: Run) -> None:
    code, out, _ = nixpatch("--writer", "lief", world.venv)

    assert code == 0
    assert world.ask() == "42"
    assert world.run_program() == 42
    assert "2 files were written by LIEF and hold no undo record" in out
    assert [entry.writer for entry in entries(world).values()] == ["lief", "lief"]
    assert nixpatch("verify", world.venv)[0] == 0


def test_a_second_run_changes_nothing(world: World, nixpatch: Run) -> None:
    nixpatch("--writer", "lief", world.venv)
    before = world.snapshot()

    for arguments in ([], ["--writer", "lief"], ["--check"]):
        assert nixpatch(*arguments, world.venv)[0] == 0

    assert world.snapshot() == before


def test_restore_says_that_there_is_no_way_back(world: World, nixpatch: Run) -> None:
    nixpatch("--writer", "lief", world.venv)
    before = world.snapshot()

    code, out, _ = nixpatch("restore", world.venv)

    assert code == 1
    assert "LIEF wrote it, and its output holds no undo record; install the dist again" in out
    assert world.snapshot() == before


def test_what_lief_wrote_is_not_edited_again(world: World, nixpatch: Run) -> None:
    nixpatch("--writer", "lief", world.venv)
    before = world.snapshot()
    other = os.path.join(world.root, "other")
    shutil.copytree(world.library, other)

    for writer in ("lief", "inplace"):
        code, out, _ = nixpatch("--writer", writer, "--append-rpath", other, world.venv)

        assert code == 1
        assert "LIEF wrote it in an earlier run" in out
        assert world.snapshot() == before


def test_lief_starts_from_the_original_of_a_patched_file(world: World, nixpatch: Run) -> None:
    """LIEF starts from the original, seen through the undo record, and the digest of it is kept."""
    nixpatch(world.venv)
    original = {path: entry.original for path, entry in entries(world).items()}
    other = os.path.join(world.root, "other")
    shutil.copytree(world.library, other)

    assert nixpatch("--writer", "lief", "--append-rpath", other, world.venv)[0] == 0

    assert {path: entry.original for path, entry in entries(world).items()} == original
    assert world.ask() == "42"


def test_where_the_in_place_edit_declines_lief_is_tried(world: World, nixpatch: Run) -> None:
    large_bss(world)

    code, out, _ = nixpatch("--dry-run", world.venv)
    assert code == 0
    assert "not edited in place, left to LIEF: its .bss" in out
    code, out, _ = nixpatch(world.venv)

    assert code == 0
    assert "written by LIEF, not in place: its .bss" in out
    assert world.ask() == "42"
    writers = {os.path.basename(path): entry.writer for path, entry in entries(world).items()}
    assert writers == {"_ext.so": "lief", "pkg-tool": "inplace"}
    assert nixpatch("restore", world.venv)[0] == 1
    assert [os.path.basename(path) for path in entries(world)] == ["_ext.so"]


def test_without_lief_such_a_file_is_reported_and_the_others_are_patched(
    world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    large_bss(world)
    monkeypatch.setattr(lief_writer, "lief_directory", no_lief)

    code, out, _ = nixpatch("--json", world.venv)

    assert code == 1
    status = {os.path.basename(file["path"]): file for file in json.loads(out)["trees"][0]["files"]}
    assert status["_ext.so"]["status"] == "failed"
    assert "LIEF is not installed" in status["_ext.so"]["reason"]
    assert status["pkg-tool"]["status"] == "changed"
    assert world.run_program() == 42
