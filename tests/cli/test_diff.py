"""nixpatch diff: what changes when nixpkgs moves, on plans and locks of compiled files."""

from __future__ import annotations

import json
import os
import shutil
from importlib import resources

import jsonschema
import pytest

from support.world import Run, World, shared

pytestmark = pytest.mark.gcc

SCHEMA = json.loads(resources.files("nixpatch").joinpath("data/report.schema.json").read_text("utf-8"))
NEW = "1123456789abcdfghijklmnpqrsvwxyz-answer-2.0"


def saved(world: World, nixpatch: Run, name: str, *options: str) -> str:
    """Plan the world's venv and keep what was printed."""
    path = os.path.join(world.root, name)
    _, out, _ = nixpatch("plan", "--json", world.venv, *options)
    with open(path, "w", encoding="utf-8") as file:
        file.write(out)
    return path


def moved(world: World) -> str:
    """Let the store have a newer version of the library instead; return its directory."""
    new = os.path.join(world.store, NEW, "lib")
    shutil.copytree(world.library, new)
    shutil.rmtree(os.path.dirname(world.library))
    return new


def test_a_plan_before_and_after_the_store_moved(world: World, nixpatch: Run) -> None:
    before = saved(world, nixpatch, "before.json")
    new = moved(world)
    after = saved(world, nixpatch, "after.json")

    code, out, _ = nixpatch("diff", before, after)

    assert code == 1
    assert out.splitlines() == [
        "libanswer.so.1  answer-1.0 -> answer-2.0  for 2 files",
        "2 files:",
        "  bin/pkg-tool",
        f"  {os.path.relpath(world.extension, world.venv)}",
        "    search path",
        f"      - {world.library}",
        f"      + {new}",
        "Differences: 1 library, 2 files.",
    ]


def test_nothing_differs_between_a_plan_and_itself_nor_once_it_is_carried_out(
    world: World, nixpatch: Run
) -> None:
    before = saved(world, nixpatch, "before.json")
    assert nixpatch("diff", before, before)[:2] == (0, "No differences.\n")
    nixpatch("patch", world.venv)
    assert nixpatch("diff", before, saved(world, nixpatch, "after.json"))[:2] == (0, "No differences.\n")


def test_what_comes_goes_and_is_missing(world: World, nixpatch: Run) -> None:
    before = saved(world, nixpatch, "before.json")
    gone = os.path.join(world.root, "libgone.so.3")
    shared("library.c", gone, "-Wl,-soname,libgone.so.3")
    shared("extension.c", os.path.join(world.site, "pkg", "_new.so"), gone)
    os.unlink(gone)
    shutil.rmtree(os.path.dirname(world.library))
    after = saved(world, nixpatch, "after.json")

    code, out, _ = nixpatch("diff", before, after)
    assert code == 1
    assert "libanswer.so.1  answer-1.0 -> not found  for 2 files" in out
    assert "libgone.so.3    + not found  for 1 file" in out
    assert "    added\n" in out

    _, out, _ = nixpatch("diff", after, before)
    assert "libgone.so.3    - not found  for 1 file" in out
    assert "    removed\n" in out

    code, out, _ = nixpatch("diff", "--json", before, after)
    document = json.loads(out)
    jsonschema.validate(document, SCHEMA)
    assert code == 1
    assert [
        (one["soname"], one["before"] is None, one["after"]) for one in document["diff"]["libraries"]
    ] == [
        ("libanswer.so.1", False, ""),
        ("libgone.so.3", True, ""),
    ]
    assert nixpatch("diff", "-q", before, after) == (1, "", "")


def test_two_locks(world: World, nixpatch: Run) -> None:
    before, after = (os.path.join(world.root, name) for name in ("before.lock", "after.lock"))
    nixpatch("lock", world.venv, "--output", before)
    moved(world)
    nixpatch("lock", world.venv, "--output", after)
    assert nixpatch("diff", before, before)[0] == 0
    code, out, _ = nixpatch("diff", before, after)
    assert (code, out) == (1, "libanswer.so.1  answer-1.0 -> answer-2.0\nDifferences: 1 library.\n")


def test_what_cannot_be_compared_is_said_in_one_line(world: World, nixpatch: Run) -> None:
    plan = saved(world, nixpatch, "plan.json")
    lock = os.path.join(world.root, "nixpatch.lock")
    nixpatch("lock", world.venv, "--output", lock)
    _, out, _ = nixpatch("tree", "--json", world.extension)
    wrong = {
        "text": "no json",
        "list.json": "[]",
        "other.json": '{"command": "plan", "trees": [{"tree": 1}]}',
        "old.lock": '{"version": 99}',
        "tree.json": out,
    }
    for name, content in wrong.items():
        path = os.path.join(world.root, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        code, out, err = nixpatch("diff", path, plan)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"nixpatch: {path}: ")
    code, _, err = nixpatch("diff", plan, lock)
    assert code == 2
    assert "compare two of the same kind" in err
    assert nixpatch("diff", plan, os.path.join(world.root, "none"))[0] == 2
