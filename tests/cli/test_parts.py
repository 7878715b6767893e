"""A path in a tree means that part of it: its Python, RECORD and provenance are those of the tree."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from nixpatch import elf
from nixpatch.model import ElfFacts
from support.world import Run, World, shared


def changed(world: World, before: dict[str, bytes]) -> set[str]:
    now = world.snapshot()
    return {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}


def below(world: World, path: str) -> str:
    return os.path.relpath(path, world.venv)


@pytest.fixture
def loose(world: World) -> str:
    """An extension module that no dist claims."""
    path = os.path.join(world.site, "loose.so")
    return shared("extension.c", path, os.path.join(world.library, "libanswer.so.1"))


@pytest.mark.parametrize("named", ["_ext.so", ""])
def test_a_file_and_a_package(nixpatch: Run, world: World, named: str) -> None:
    before = world.snapshot()
    part = os.path.join(world.site, "pkg", named).rstrip("/")

    code, out, _ = nixpatch("patch", part)

    assert (code, world.ask()) == (0, "42"), out
    assert changed(world, before) == {
        below(world, path)
        for path in (world.extension, world.record, os.path.join(world.info, "nixpatch.json"))
    }
    assert nixpatch("verify", part)[0] == 0
    assert nixpatch("restore", part)[0] == 0
    assert world.snapshot() == before


def test_the_programs_of_a_venv(nixpatch: Run, world: World) -> None:
    assert nixpatch(os.path.join(world.venv, "bin"))[0] == 0

    assert world.run_program() == 42
    assert world.ask() != "42"


def test_a_part_after_the_whole_changes_nothing(nixpatch: Run, world: World) -> None:
    nixpatch(world.venv)
    before = world.snapshot()

    assert nixpatch(world.extension)[0] == 0
    assert changed(world, before) == set()


@pytest.mark.parametrize("named", ["loose.so", ""])
def test_a_file_that_no_dist_claims_is_recorded_for_the_whole_venv(
    nixpatch: Run, world: World, loose: str, named: str
) -> None:
    before = world.snapshot()

    assert nixpatch(os.path.join(world.site, named).rstrip("/"))[0] == 0

    provenance = os.path.join(world.venv, ".nixpatch.json")
    with open(provenance, encoding="utf-8") as file:
        assert list(json.load(file)["files"]) == [below(world, loose)]
    assert not os.path.exists(os.path.join(world.site, ".nixpatch.json"))
    assert nixpatch("restore", world.venv)[0] == 0
    assert world.snapshot() == before


def test_entries_that_lead_to_another_part_stay(nixpatch: Run, world: World) -> None:
    libs = os.path.join(world.site, "pkg.libs")
    os.makedirs(libs)
    shutil.copy(os.path.join(world.library, "libanswer.so.1"), libs)
    shared(
        "extension.c",
        world.extension,
        os.path.join(libs, "libanswer.so.1"),
        "-Wl,-rpath,$ORIGIN/../pkg.libs:/usr/lib/nowhere",
    )
    world.write_record()

    code, out, _ = nixpatch(os.path.dirname(world.extension), "-v")

    facts = elf.read(world.extension)
    assert isinstance(facts, ElfFacts)
    assert (code, facts.current.search_path) == (0, "$ORIGIN/../pkg.libs"), out
    assert world.ask() == "42"


def test_unvendor_takes_whole_trees(nixpatch: Run, world: World) -> None:
    code, _, err = nixpatch(os.path.dirname(world.extension), "--unvendor")
    assert code == 2
    assert f"a part of {world.venv}" in err


def test_tree_and_missing_of_a_part(nixpatch: Run, world: World) -> None:
    shutil.rmtree(world.library)
    code, out, _ = nixpatch("missing", os.path.join(world.venv, "bin"), "--json")
    (library,) = json.loads(out)["trees"][0]["missing"]
    assert (code, library["files"]) == (1, [world.program])
    code, out, _ = nixpatch("tree", os.path.dirname(world.extension), "--json")
    assert [need["by"] for need in json.loads(out)["trees"][0]["needs"]] == [world.extension]
