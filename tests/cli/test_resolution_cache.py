"""--resolution-cache: each file has the note, it is true, and it goes when nobody asks for it."""

import json
import os
import shutil
from pathlib import Path

import pytest

from nixpatch.elf import read
from nixpatch.model import ElfFacts
from support.programs import cache_source
from support.world import Run, World, shared

pytestmark = pytest.mark.gcc


def cache_in(path: str) -> dict[str, str]:
    facts = read(path)
    assert isinstance(facts, ElfFacts)
    return dict(facts.current.resolution_cache)


def place(world: World) -> str:
    return f"={world.library}/libanswer.so.1"


def test_each_file_gets_the_places_of_its_libraries(world: World, nixpatch: Run) -> None:
    before = world.snapshot()
    code, out, _ = nixpatch("-v", "--resolution-cache", world.venv)
    assert (code, out.count("resolution cache of 1 libraries")) == (0, 2)
    for path in (world.extension, world.program):
        assert cache_in(path) == {"libanswer.so.1": place(world)}
    assert (world.ask(), world.run_program()) == ("42", 42)
    provenance = json.loads(Path(world.info, "nixpatch.json").read_text(encoding="ascii"))
    assert provenance["files"]["pkg/_ext.so"]["resolution_cache"] == {"libanswer.so.1": place(world)}
    assert nixpatch("verify", "--deep", world.venv)[0] == 0
    once = world.snapshot()
    assert "Patched 0 of" in nixpatch("--no-cache", "--resolution-cache", world.venv)[1]
    assert world.snapshot() == once
    assert nixpatch("restore", world.venv)[0] == 0
    assert world.snapshot() == before


def test_a_run_without_the_option_drops_the_caches(world: World, nixpatch: Run) -> None:
    assert nixpatch(world.venv)[0] == 0
    without = world.snapshot()
    assert nixpatch("--resolution-cache", world.venv)[0] == 0
    assert world.snapshot() != without
    assert nixpatch(world.venv)[0] == 0
    assert world.snapshot() == without


def test_another_library_makes_the_cache_anew(world: World, nixpatch: Run) -> None:
    assert nixpatch("--resolution-cache", world.venv)[0] == 0
    other = os.path.join(world.store, "1" * 32 + "-answer-2.0", "lib")
    shutil.copytree(world.library, other)
    assert nixpatch("--resolution-cache", "--lib", other, world.venv)[0] == 0
    assert cache_in(world.extension) == {"libanswer.so.1": f"={other}/libanswer.so.1"}


def test_a_tree_that_moves_has_a_cache_that_is_true(world: World, nixpatch: Run) -> None:
    own = os.path.join(world.site, "pkg.libs")
    os.makedirs(own)
    assert nixpatch("--resolution-cache", "--append-rpath", "$ORIGIN/../pkg.libs", world.venv)[0] == 0
    assert cache_in(world.extension) == {"libanswer.so.1": f"{place(world)}:?$ORIGIN/../pkg.libs"}
    moved = world.copy("moved")
    shutil.rmtree(world.venv)
    assert "resolution cache" not in nixpatch("verify", moved.venv)[1]
    assert moved.ask() == "42"


def test_verify_reports_a_cache_that_is_not_true_any_more(world: World, nixpatch: Run) -> None:
    extra = os.path.join(world.store, "2" * 32 + "-extra-1.0", "lib")
    shutil.copytree(world.library, extra)
    options = ("--resolution-cache", "--append-rpath", extra)
    assert nixpatch(*options, world.venv)[0] == 0
    assert cache_in(world.program) == {"libanswer.so.1": f"{place(world)}:={extra}/libanswer.so.1"}
    assert nixpatch("verify", world.venv)[0] == 0
    shutil.rmtree(extra)
    code, out, _ = nixpatch("verify", world.venv)
    text = "its resolution cache is not what its search path says now of libanswer.so.1"
    assert (code, text in out) == (1, True)
    assert nixpatch(*options, world.venv)[0] == 0
    assert cache_in(world.program) == {"libanswer.so.1": f"{place(world)}:?{extra}"}
    assert nixpatch("verify", world.venv)[0] == 0


def test_only_what_is_in_the_store_has_an_exact_place(world: World, nixpatch: Run) -> None:
    """Other directories may change, and the same lockfile has to give the same bytes on every machine."""
    extra = os.path.join(world.root, "extra")
    shutil.copytree(world.library, extra)
    options = ("--resolution-cache", "--append-rpath", extra)
    assert nixpatch(*options, world.venv)[0] == 0
    assert cache_in(world.program) == {"libanswer.so.1": f"{place(world)}:?{extra}"}
    before = world.snapshot()
    shutil.rmtree(extra)
    assert nixpatch("verify", world.venv)[0] == 0
    assert nixpatch("--no-cache", *options, world.venv)[0] == 0
    assert world.snapshot() == before


def test_files_that_cannot_have_one_are_patched_without(world: World, nixpatch: Run) -> None:
    link = os.path.join(world.library, "libanswer.so.1")
    bare = ("-nostdlib", "-Wl,--build-id=none", "-fcf-protection=none")
    shared("extension.c", world.extension, link, *bare)
    world.write_record()
    code, out, _ = nixpatch("--resolution-cache", world.venv)
    assert (code, world.ask()) == (0, "42")
    assert (cache_in(world.extension), cache_in(world.program)) == ({}, {"libanswer.so.1": place(world)})
    assert "no resolution cache for _ext.so: it has no PT_NOTE" in out
    code, out, _ = nixpatch("--tag", "rpath", "--resolution-cache", world.venv)
    assert (code, cache_in(world.program)) == (0, {})
    assert "ld.so searches DT_RPATH before it reads a cache" in out


@pytest.mark.parametrize("is_true", [True, False])
def test_a_cache_of_another_tool_is_kept_while_it_is_true(world: World, nixpatch: Run, is_true: bool) -> None:
    listed = place(world) if is_true else "=/gone/libanswer.so.1"
    source = cache_source(Path(world.root, "note.s"), f"libanswer.so.1\\0{listed}\\0\\0")
    link = os.path.join(world.library, "libanswer.so.1")
    path = f"-Wl,-rpath,{world.library},--enable-new-dtags"
    shared("extension.c", world.extension, link, source, path, "-Wl,--build-id")
    world.write_record()
    before = Path(world.extension).read_bytes()
    assert "its resolution cache is not" in nixpatch("verify", world.venv)[1] or is_true
    assert nixpatch(world.venv)[0] == 0
    assert (Path(world.extension).read_bytes() == before) is is_true
    assert cache_in(world.extension) == ({"libanswer.so.1": listed} if is_true else {})
    assert nixpatch("verify", world.venv)[0] == 0
    assert nixpatch("--resolution-cache", world.venv)[0] == 0
    assert cache_in(world.extension) == {"libanswer.so.1": place(world)}
    assert nixpatch("--append-rpath", "/more", world.venv)[0] == 0
    assert cache_in(world.extension) == {}
    assert nixpatch("restore", world.venv)[0] == 0
    assert Path(world.extension).read_bytes() == before


def test_lief_cannot_write_one(world: World, nixpatch: Run) -> None:
    code, _, err = nixpatch("--resolution-cache", "--writer", "lief", world.venv)
    assert (code, "--resolution-cache needs the in-place writer" in err) == (2, True)


def test_files_of_one_command_are_said_to_get_none(world: World, elf_command: Run) -> None:
    before = Path(world.extension).read_bytes()
    code, _, err = elf_command("--build-resolution-cache", world.extension)
    assert (code, err.count("no resolution cache: it has no search path")) == (0, 1)
    assert Path(world.extension).read_bytes() == before
    code, _, err = elf_command("--build-resolution-cache", "--set-rpath", world.library, world.extension)
    assert (code, err) == (0, "")
    assert cache_in(world.extension) == {"libanswer.so.1": place(world)}
    old_tag = ("--force-rpath", "--set-rpath", "/a", world.extension)
    code, _, err = elf_command(*old_tag)
    assert (code, cache_in(world.extension)) == (0, {})
    assert elf_command("--build-resolution-cache", *old_tag)[0] == 2
