"""nixpatch tree: who needs what, found where and how, on compiled files."""

from __future__ import annotations

import json
import os
from importlib import resources

import jsonschema
import pytest

from support.world import HASH, Run, World, compile_c, shared

pytestmark = pytest.mark.gcc

SCHEMA = json.loads(resources.files("nixpatch").joinpath("data/report.schema.json").read_text("utf-8"))


def test_an_unpatched_file_teaches_where_it_was_looked_for(world: World, nixpatch: Run) -> None:
    code, out, err = nixpatch("tree", world.extension)

    assert (code, err) == (1, "")
    assert "└── libanswer.so.1  not found" in out
    lesson = out[out.index("libanswer.so.1: not found") :]
    assert "  needed by pkg/_ext.so; searched in this order:" in lesson
    steps = [line.strip()[:12] for line in lesson.splitlines() if line.startswith("    ")]
    assert [step[:2] for step in steps[:6]] == ["1.", "2.", "3.", "4.", "5.", "6."]
    assert "RUNPATH: none" in lesson
    assert f"\n  {world.library}/libanswer.so.1 has it: nixpatch {world.venv} links it\n" in lesson
    assert out.endswith("1 not found.\n")


@pytest.mark.parametrize("options", [(), ("--why", "libykpers-1.so.1")])
def test_what_the_store_lacks_is_advised_as_patch_does(
    options: tuple[str, ...], world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = os.path.join(world.root, "libykpers-1.so.1")
    shared("library.c", library, "-Wl,-soname,libykpers-1.so.1")
    shared("extension.c", world.extension, library)
    os.remove(library)
    command = f"nixpatch --nixpkgs nixpkgs {world.venv}"
    _, out, _ = nixpatch("patch", world.venv)
    assert f"To add it: {command}\n" in out

    for path in (world.venv, world.extension):
        code, out, _ = nixpatch("tree", *options, path)
        assert code == 1
        assert f"nixpkgs has it in yubikey-personalization: add it with {command}\n" in out
    alone = os.path.join(world.root, "lib", "_alone.so")
    os.makedirs(os.path.dirname(alone))
    os.rename(world.extension, alone)
    _, out, _ = nixpatch("tree", *options, alone)
    assert f"add it with nixpatch --nixpkgs nixpkgs {os.path.dirname(alone)}\n" in out

    monkeypatch.setenv("NIX_BUILD_TOP", world.root)
    _, out, _ = nixpatch("tree", *options, alone)
    assert "add it with buildInputs = with pkgs; [ yubikey-personalization ];\n" in out


def test_a_patched_file_is_found_by_its_runpath_and_without_hash(world: World, nixpatch: Run) -> None:
    nixpatch("patch", world.venv)

    code, out, _ = nixpatch("tree", world.extension)
    assert code == 0
    assert "└── libanswer.so.1  answer-1.0/lib  [RUNPATH]" in out
    assert out.splitlines()[1].endswith(f"x86_64, RUNPATH {world.library}, patched")
    assert "all found." in out

    _, out, _ = nixpatch("tree", "-v", world.extension)
    assert f"libanswer.so.1  {world.library}  [RUNPATH]" in out

    _, out, _ = nixpatch("tree", world.program)
    assert "└── libc  /" in out  # folded, with its directory
    _, out, _ = nixpatch("tree", "-v", world.program)
    assert "── libc.so.6  /" in out


def test_any_program_is_started_by_its_own_loader(world: World, nixpatch: Run) -> None:
    code, out, _ = nixpatch("tree", world.program)
    assert code == 1
    assert "Loader /nowhere/ld-linux-x86-64.so.2 (its interpreter, which does not exist)" in out
    assert "libanswer.so.1  not found" in out

    program = compile_c(
        "program.c", os.path.join(world.root, "bin", "tool"), f"{world.library}/libanswer.so.1"
    )
    _, out, _ = nixpatch("tree", "--why", "libc.so.6", program)
    assert ": found" in out
    assert "  -> /" in out


def test_libraries_of_the_parent_come_by_its_rpath_and_are_drawn_once(world: World, nixpatch: Run) -> None:
    libs = os.path.join(world.site, "pkg.libs")
    inner = shared("library.c", os.path.join(libs, "libinner.so.1"), "-Wl,-soname,libinner.so.1")
    outer = shared("library.c", os.path.join(libs, "libouter.so.1"), "-Wl,--no-as-needed", inner)
    both = os.path.join(world.site, "pkg", "_both.so")
    rpath = "-Wl,--disable-new-dtags,-rpath,$ORIGIN/../pkg.libs"
    shared("library.c", both, "-Wl,--no-as-needed", outer, inner, rpath, f"-L{libs}")

    code, out, _ = nixpatch("tree", both)
    lines = [line for line in out.splitlines() if "libinner" in line]
    assert code == 0
    assert lines == [
        "│   ├── libinner.so.1  pkg.libs  [loaded already]",
        "├── libinner.so.1  pkg.libs  [RPATH]",
    ]

    _, out, _ = nixpatch("tree", "--json", world.venv)
    needs = json.loads(out)["trees"][0]["needs"]
    (need,) = [need for need in needs if need["by"] == outer and need["soname"] == "libinner.so.1"]
    assert (need["how"], need["path"]) == ("loaded", inner)  # by _both.so; on its own it finds nothing


def test_a_tree_is_told_by_dist(world: World, nixpatch: Run) -> None:
    code, out, _ = nixpatch("tree", world.venv)
    assert code == 1
    assert "pkg 1.0  2 files\n" in out
    assert "not found     2 files  libanswer.so.1" in out

    nixpatch("patch", world.venv)
    code, out, _ = nixpatch("tree", world.venv)
    assert code == 0
    assert "pkg 1.0  2 files, 2 patched\n" in out
    assert "answer-1.0     2 files  libanswer.so.1" in out

    _, out, _ = nixpatch("tree", "-v", world.venv)
    assert "pkg/_ext.so  x86_64, RUNPATH" in out


def test_why_lists_each_place_in_order(world: World, nixpatch: Run) -> None:
    empty = os.path.join(world.root, "empty")
    odd = os.path.join(world.root, "odd")
    os.makedirs(empty)
    os.makedirs(odd)
    with open(os.path.join(odd, "libanswer.so.1"), "w", encoding="utf-8") as file:
        file.write("INPUT(libanswer.so.1.0)\n")
    path = f"/gone:{empty}:{world.library}:{odd}"
    shared("extension.c", world.extension, f"{world.library}/libanswer.so.1", f"-Wl,-rpath,{path}")

    code, out, _ = nixpatch("tree", "--why", "libanswer.so.1", world.extension)

    assert code == 0
    told = [line.strip() for line in out.splitlines()]
    at = told.index("4. RUNPATH:")
    assert told[2:at] == [
        "2. RPATH: not used, because the file has a RUNPATH",
        "3. LD_LIBRARY_PATH: not set",
    ]
    assert told[at + 1 :] == [
        "/gone: no such directory",
        f"{empty}: no such file",
        f"{world.library}/libanswer.so.1: found",
        f"-> {world.library}/libanswer.so.1",
    ]


def test_why_shows_the_file_at_which_the_search_ends(world: World, nixpatch: Run) -> None:
    odd = os.path.join(world.root, "odd")
    os.makedirs(odd)
    with open(os.path.join(odd, "libanswer.so.1"), "w", encoding="utf-8") as file:
        file.write("INPUT(libanswer.so.1.0)\n")
    path = f"-Wl,-rpath,{odd}:{world.library}"
    shared("extension.c", world.extension, f"{world.library}/libanswer.so.1", path)

    code, out, _ = nixpatch("tree", "--why", "libanswer.so.1", world.extension)

    assert code == 1
    assert f"{odd}: is no ELF file (24 bytes): ld.so ends the search there" in out
    assert f"{world.library}/libanswer.so.1: found" not in out


def test_ld_library_path_counts_as_it_would(
    world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{world.root}/none:{world.library}")
    code, out, _ = nixpatch("tree", world.extension)
    assert code == 0
    assert "[LD_LIBRARY_PATH]" in out


def test_depth_json_and_names(world: World, nixpatch: Run) -> None:
    nixpatch("patch", world.venv)
    code, out, _ = nixpatch("tree", "--json", world.extension, world.venv)
    document = json.loads(out)
    jsonschema.validate(document, SCHEMA)
    assert code == 0
    file, tree = document["trees"]
    assert (file["kind"], tree["kind"]) == ("file", "venv")
    found = next(need for need in file["needs"] if need["soname"] == "libanswer.so.1")
    assert found["path"] == f"{world.store}/{HASH}-answer-1.0/lib/libanswer.so.1"
    assert [place["how"] for place in found["places"]] == ["runpath"]

    _, out, _ = nixpatch("tree", "--depth", "1", world.extension)
    assert "│   " not in out

    odd = shared("extension.c", os.path.join(world.site, "pkg", "x\n\x1b[31m.so"), "-Wl,-rpath,/\x1b[2J")
    _, out, _ = nixpatch("tree", odd)
    assert "\x1b" not in out


def test_what_is_no_dynamic_file_and_what_nothing_needs(world: World, nixpatch: Run) -> None:
    static = compile_c(
        "program.c", os.path.join(world.root, "static"), "-static", "-Wl,--unresolved-symbols=ignore-all"
    )
    code, out, _ = nixpatch("tree", static)
    assert (code, "static" in out) == (0, True)

    code, _, err = nixpatch("tree", world.record)
    assert code == 2
    assert "not an ELF file" in err

    code, _, err = nixpatch("tree", "--why", "libother.so.1", world.extension)
    assert code == 2
    assert "--why libother.so.1: no file needs it" in err


def test_a_bundled_library_is_found_by_the_rpath_of_a_file_beside_its_directory(
    world: World, nixpatch: Run
) -> None:
    libs = os.path.join(world.site, "pkg.libs")
    deep = shared("library.c", os.path.join(libs, "libdeep.so.1"), "-Wl,-soname,libdeep.so.1")
    middle = os.path.join(libs, "libmiddle.so.1")
    near = os.path.join(libs, "libnear.so.1")
    shared("library.c", middle, "-Wl,-soname,libmiddle.so.1,--no-as-needed", deep)
    shared("library.c", near, "-Wl,-soname,libnear.so.1,--no-as-needed", middle, f"-Wl,-rpath-link,{libs}")
    rpath = ("-Wl,--disable-new-dtags,-rpath,$ORIGIN/../pkg.libs,--no-as-needed", f"-Wl,-rpath-link,{libs}")
    shared("extension.c", os.path.join(world.site, "pkg", "_near.so"), *rpath, near)

    _, out, _ = nixpatch("tree", "--why", "libdeep.so.1", world.venv)

    assert "RPATH of _near.so:" in out
    assert f"-> {deep}\n" in out
