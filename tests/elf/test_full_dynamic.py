"""A first search path where the dynamic section is full and the last segment holds code, as BOLT leaves them.

The count of relative relocations gives its place: ld.so does the same work without it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nixpatch.elf import read
from nixpatch.elf import structs as elf
from nixpatch.elf.check_inplace import check
from nixpatch.elf.structs import Dyn
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, ElfFacts, Tag
from support.programs import (
    RICH,
    Workshop,
    content,
    copy,
    edit_file,
    interpreter_alias,
    load,
    need,
    patched_bytes,
    read_headers,
    restore_file,
    run,
    search_paths,
)

pytestmark = pytest.mark.gcc

LINKERS = {"GNU ld": ("-Wl,--spare-dynamic-tags=1",), "lld": ("-fuse-ld=lld",)}


@pytest.fixture(params=LINKERS)
def full(request: pytest.FixtureRequest, workshop: Workshop) -> tuple[str, ...]:
    """Arguments for a file without room in its dynamic section, whose last segment holds code."""
    if request.param == "lld":
        need("ld.lld")
    return (*RICH, *LINKERS[request.param], *code_last(workshop))


def code_last(workshop: Workshop) -> tuple[str, ...]:
    return (f"-Wl,-T,{workshop.source('code_last.ld')}", workshop.source("code_last.c"))


def entries(path: str) -> list[int]:
    return [tag for tag, _ in read_headers(path).live]


def has_hint(path: str) -> bool:
    return not elf.HINT_TAGS.isdisjoint(entries(path))


def test_program_runs_and_goes_back(workshop: Workshop, tmp_path: Path, full: tuple[str, ...]) -> None:
    program = workshop.program(*full)
    assert run(program).startswith("failed")
    assert has_hint(program)
    facts = read(program)
    assert isinstance(facts, ElfFacts)
    assert facts.original.interp
    out, back = os.path.join(tmp_path, "out"), os.path.join(tmp_path, "back")
    interp = interpreter_alias(str(tmp_path), facts.original.interp, 200)

    result = edit_file(program, out, ElfEdit(workshop.there, interp=interp))

    assert run(out) == "42 phdr"
    assert search_paths(out) == [("DT_RUNPATH", workshop.there)]
    assert len(entries(out)) == len(entries(program))
    assert not has_hint(out)
    assert "count of relative relocations" in str(result.notes)
    assert not any(p.flags & elf.PF_W and p.flags & elf.PF_X for p in read_headers(out).loads)
    restore_file(out, back)
    assert content(back) == content(program)


def test_library_loads(workshop: Workshop, tmp_path: Path, full: tuple[str, ...]) -> None:
    library = workshop.library(*full)
    assert load(library).startswith("failed")
    out = os.path.join(tmp_path, "out.so")
    edit_file(library, out, ElfEdit(workshop.there))
    assert load(out) == "42"
    assert load(out, "last") == "7"


def test_ten_edits_equal_the_last_one(workshop: Workshop, tmp_path: Path, full: tuple[str, ...]) -> None:
    program = file = workshop.program(*full)
    edit = ElfEdit(None)
    for number in range(10):
        edit = ElfEdit(":".join([f"/nowhere/{number}"] * number + [workshop.there]), Tag.RPATH)
        out = os.path.join(tmp_path, str(number))
        edit_file(file, out, edit)
        assert run(out) == "42 phdr"
        file = out
    once, none = os.path.join(tmp_path, "once"), os.path.join(tmp_path, "none")
    edit_file(program, once, edit)
    assert content(file) == content(once)
    edit_file(file, none, ElfEdit(None))
    assert content(none) == content(program)


@pytest.mark.parametrize(
    "tools", [("strip -S", "patchelf --shrink-rpath"), ("patchelf --shrink-rpath", "strip --strip-unneeded")]
)
def test_other_tools_and_another_edit_afterwards(
    workshop: Workshop, tmp_path: Path, full: tuple[str, ...], tools: tuple[str, ...]
) -> None:
    need("patchelf")
    program = workshop.program(*full, "-g")
    bare, out, again = (os.path.join(tmp_path, name) for name in ("bare", "out", "again"))
    copy(program, bare)
    edit_file(program, out, ElfEdit(f"/nowhere:{workshop.there}"))
    for tool in tools:
        for path in (bare, out):
            subprocess.run([*tool.split(), path], check=True, capture_output=True)
    assert run(out) == "42 phdr"
    facts = read(out)
    assert isinstance(facts, ElfFacts)
    assert facts.stale_undo
    edit_file(out, again, ElfEdit(f"/other:{workshop.there}"))
    assert run(again) == "42 phdr"
    with pytest.raises(FileRefused, match="stale"):
        restore_file(again, os.path.join(tmp_path, "back"))


def test_without_a_hint_it_is_still_refused(workshop: Workshop, tmp_path: Path) -> None:
    flags = (*RICH, "-Wl,--spare-dynamic-tags=0,-z,nocombreloc", *code_last(workshop))
    library = workshop.library(*flags)
    assert not has_hint(library)
    with pytest.raises(
        FileRefused, match="its dynamic section is full and would have to move into an executable segment"
    ):
        edit_file(library, os.path.join(tmp_path, "out"), ElfEdit("/new"))


def test_the_hint_stays_where_there_is_room(workshop: Workshop, tmp_path: Path) -> None:
    for number, flags in enumerate([(), ("-Wl,--spare-dynamic-tags=1",), code_last(workshop)]):
        program, out = workshop.program(*RICH, *flags), os.path.join(tmp_path, str(number))
        edit_file(program, out, ElfEdit(workshop.there))
        assert run(out) == "42 phdr"
        assert has_hint(out)


def with_entries(path: str, to: str, change: dict[int, Dyn]) -> str:
    """A copy of a file with other dynamic entries, by index."""
    headers = read_headers(path)

    def write(data: bytearray) -> None:
        width = headers.layout.dyn.size
        for index, entry in change.items():
            start = headers.dynamic_offset + index * width
            data[start : start + width] = headers.layout.dyn.pack(*entry)

    return patched_bytes(path, to, write)


OTHER = "a dynamic entry other than the search path and the string table changed"


def test_no_other_entry_may_give_its_place(workshop: Workshop, tmp_path: Path) -> None:
    program, out = (
        workshop.program(*RICH, *LINKERS["GNU ld"], *code_last(workshop)),
        os.path.join(tmp_path, "o"),
    )
    edit = ElfEdit(workshop.there)
    edit_file(program, out, edit)
    hint = next(i for i, entry in enumerate(read_headers(program).live) if entry.tag in elf.HINT_TAGS)
    count = read_headers(program).live[hint].value
    claims = {
        "another entry": Dyn(elf.DT_VERNEEDNUM, count),
        "too high a count": Dyn(elf.DT_RELACOUNT, count + 1),
        "a count beyond the table": Dyn(elf.DT_RELACOUNT, 1 << 40),
        "a count of the other table": Dyn(elf.DT_RELCOUNT, count),
    }
    assert check(program, out, edit) == ()
    for number, claim in enumerate(claims.values()):
        other = with_entries(program, os.path.join(tmp_path, f"{number}"), {hint: claim})
        assert OTHER in check(other, out, edit)


def test_the_hint_may_not_give_its_place_without_need(workshop: Workshop, tmp_path: Path) -> None:
    program, out = workshop.program(*RICH, *code_last(workshop)), os.path.join(tmp_path, "out")
    edit = ElfEdit(workshop.there)
    edit_file(program, out, edit)
    live = read_headers(out).live
    hint = next(i for i, entry in enumerate(live) if entry.tag in elf.HINT_TAGS)
    change = {hint: live[-1], len(live) - 1: Dyn(elf.DT_NULL, 0)}
    assert check(program, out, edit) == ()
    assert OTHER in check(program, with_entries(out, os.path.join(tmp_path, "given up"), change), edit)


@pytest.mark.pypi
def test_a_published_program_that_bolt_optimised(tmp_path: Path) -> None:
    wheel = ["pip", "-q", "download", "--no-deps", "-d", str(tmp_path), "--platform", "manylinux2014_x86_64"]
    subprocess.run([sys.executable, "-m", *wheel, "ty==0.0.108"], check=True, capture_output=True)
    [archive] = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", archive, tmp_path], check=True)
    program = str(tmp_path / "ty-0.0.108.data" / "scripts" / "ty")
    os.chmod(program, 0o755)
    facts = read(program)
    assert isinstance(facts, ElfFacts)
    assert facts.original.interp
    interp = interpreter_alias(str(tmp_path), facts.original.interp, 100)
    out, back = str(tmp_path / "out"), str(tmp_path / "back")

    edit_file(program, out, ElfEdit("/nowhere", interp=interp))

    assert subprocess.run([out, "--version"], check=True, capture_output=True).stdout == b"ty 0.0.108\n"
    restore_file(out, back)
    assert content(back) == content(program)
