"""A patched file remembers what it was, and says so when it no longer can."""

import os
import subprocess
from pathlib import Path

import pytest

from nixpatch.elf import original_sha256, read
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, ElfFacts, Tag
from support.programs import (
    RICH,
    Workshop,
    content,
    digest,
    edit_file,
    interpreter_alias,
    load,
    need,
    patched_bytes,
    restore_file,
    run,
)

pytestmark = pytest.mark.gcc


def facts(path: str) -> ElfFacts:
    found = read(path)
    assert isinstance(found, ElfFacts), found
    return found


def programs(workshop: Workshop) -> list[str]:
    """One of each kind of edit: a spare entry, an entry that is there, a section that moves."""
    return [
        workshop.program(*RICH),
        workshop.program(*RICH, "-Wl,-rpath,/old,--disable-new-dtags"),
        workshop.program(*RICH, "-Wl,--spare-dynamic-tags=1"),
        workshop.program(*RICH, "-g", "-no-pie", "-fno-pie"),
    ]


@pytest.mark.parametrize("index", range(4))
def test_undo_gives_every_byte_back(workshop: Workshop, tmp_path: Path, index: int) -> None:
    program = programs(workshop)[index]
    out, back = os.path.join(tmp_path, "out"), os.path.join(tmp_path, "back")
    result = edit_file(program, out, ElfEdit(workshop.there, interp="/" + "x" * 300))
    assert result.original_sha256 == digest(program) == facts(out).original_sha256 == original_sha256(out)
    assert restore_file(out, back) == digest(program)
    assert content(back) == content(program)


@pytest.mark.parametrize("index", range(4))
def test_ten_edits_equal_the_last_one(workshop: Workshop, tmp_path: Path, index: int) -> None:
    program = programs(workshop)[index]
    loader = facts(program).original.interp
    assert loader
    file = program
    edit = ElfEdit(None)
    for number in range(10):
        out = os.path.join(tmp_path, str(number))
        there = ":".join([f"/nowhere/{number}"] * number + [workshop.there])
        edit = ElfEdit(there, Tag.RPATH, interpreter_alias(str(tmp_path), loader, 100 + 20 * number))
        edit_file(file, out, edit)
        assert run(out) == "42 phdr"
        file = out
    once = os.path.join(tmp_path, "once")
    edit_file(program, once, edit)
    assert content(file) == content(once)
    edit_file(file, os.path.join(tmp_path, "none"), ElfEdit(None))
    assert content(os.path.join(tmp_path, "none")) == content(program)


def test_removal_after_an_edit_is_about_the_original(workshop: Workshop, tmp_path: Path) -> None:
    library = workshop.library(*RICH)  # has no search path: to remove it is to go back
    edit_file(library, os.path.join(tmp_path, "1"), ElfEdit("/new"))
    edit_file(os.path.join(tmp_path, "1"), os.path.join(tmp_path, "2"), ElfEdit(""))
    assert content(os.path.join(tmp_path, "2")) == content(library)


def test_data_behind_a_library_comes_back(workshop: Workshop, tmp_path: Path) -> None:
    source = patched_bytes(
        workshop.library(*RICH), os.path.join(tmp_path, "s"), lambda data: data.extend(b"x")
    )
    edit_file(source, os.path.join(tmp_path, "out"), ElfEdit("/new"))
    restore_file(os.path.join(tmp_path, "out"), os.path.join(tmp_path, "back"))
    assert content(os.path.join(tmp_path, "back")) == content(source)


def test_untouched_file_has_nothing_to_undo(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match="no undo record"):
        restore_file(workshop.library(), os.path.join(tmp_path, "out"))


@pytest.mark.parametrize("times", [1, 2])
def test_stripped_file_says_that_its_record_is_stale(workshop: Workshop, tmp_path: Path, times: int) -> None:
    need("strip")
    out = os.path.join(tmp_path, "out")
    edit_file(workshop.program(*RICH, "-g"), out, ElfEdit(workshop.there))
    for _ in range(times):
        subprocess.run(["strip", "-S", out], check=True)
    assert run(out) == "42 phdr"
    assert facts(out).stale_undo
    assert facts(out).original == facts(out).current
    assert facts(out).original_sha256 is None
    with pytest.raises(FileRefused, match="stale"):
        restore_file(out, os.path.join(tmp_path, "back"))


def test_change_of_any_other_byte_is_found_by_the_digest(workshop: Workshop, tmp_path: Path) -> None:
    out = os.path.join(tmp_path, "out")
    edit_file(workshop.program(*RICH), out, ElfEdit(workshop.there))

    def change(data: bytearray) -> None:
        data[data.index(b"GCC: ")] ^= 1

    patched_bytes(out, os.path.join(tmp_path, "changed"), change)
    with pytest.raises(FileRefused, match="SHA-256"):
        restore_file(os.path.join(tmp_path, "changed"), os.path.join(tmp_path, "back"))


@pytest.mark.parametrize("flags", [(), ("-Wl,--spare-dynamic-tags=1",)], ids=["spare", "moved"])
def test_editing_and_stripping_in_turns_does_not_grow(
    workshop: Workshop, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    need("strip")
    file = workshop.program(*RICH, "-g", *flags)
    loader = facts(file).original.interp
    assert loader
    sizes = []
    for number in range(5):
        out = os.path.join(tmp_path, str(number))
        alias = interpreter_alias(str(tmp_path), loader, 200)
        edit_file(file, out, ElfEdit(f"/number/{number}:{workshop.there}", interp=alias))
        assert run(out) == "42 phdr"
        subprocess.run(["strip", "-S", out], check=True)
        assert run(out) == "42 phdr"
        sizes.append(os.stat(out).st_size)
        file = out
    assert len(set(sizes[1:])) == 1, sizes
    assert facts(file).stale_undo
    out = os.path.join(tmp_path, "interp")
    edit_file(file, out, ElfEdit(None, interp=loader))
    assert run(out) == "42 phdr"
    assert facts(out).current.search_path == f"/number/4:{workshop.there}"


def test_stale_library_still_loads_after_another_edit(workshop: Workshop, tmp_path: Path) -> None:
    need("strip")
    out = os.path.join(tmp_path, "1")
    edit_file(workshop.library(*RICH, "-g"), out, ElfEdit("/nowhere"))
    subprocess.run(["strip", "--strip-unneeded", out], check=True)
    edit_file(out, os.path.join(tmp_path, "2"), ElfEdit(workshop.there))
    assert load(os.path.join(tmp_path, "2")) == "42"
