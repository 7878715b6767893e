"""A resolution cache in a file: in place, with the notes that were there, and back."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from nixpatch.elf import read
from nixpatch.elf.check_inplace import check
from nixpatch.elf.resolution_cache import obstacle
from nixpatch.elf.undo import open_views
from nixpatch.model import ElfEdit, ElfFacts, ResolutionCache
from support.programs import (
    RICH,
    Workshop,
    cache_source,
    content,
    copy,
    edit_file,
    load,
    need,
    patched_bytes,
    restore_file,
    run,
)

pytestmark = pytest.mark.gcc

KINDS = {
    "pie": (),
    "non-pie": ("-no-pie", "-fno-pie"),
    "build id": ("-Wl,--build-id",),
    "full dynamic section": ("-Wl,--spare-dynamic-tags=1",),
    "big pages": ("-Wl,-z,max-page-size=0x10000",),
    "gold": ("-fuse-ld=gold", "-Wl,--build-id"),
    "lld": ("-fuse-ld=lld", "-Wl,--build-id"),
}
STRIPS = [("strip",), ("strip", "-S"), ("llvm-strip", "--strip-debug"), ("eu-strip",)]
_GNU_PROPERTY = 0x6474E553


@pytest.fixture(params=KINDS)
def flags(request: pytest.FixtureRequest) -> tuple[str, ...]:
    chosen = KINDS[request.param]
    for flag in chosen:
        if flag.startswith("-fuse-ld="):
            need(f"ld.{flag.removeprefix('-fuse-ld=')}")
    return (*RICH, *chosen)


def edit_with_cache(workshop: Workshop, *, entry: str = "/nowhere") -> ElfEdit:
    cache = (("libanswer.so", f"?{entry}:={workshop.answer}"), ("libc.so.6", "=/lib/libc.so.6"))
    return ElfEdit(f"{entry}:{workshop.there}", resolution_cache=cache)


def cache_in(path: str) -> ResolutionCache:
    facts = read(path)
    assert isinstance(facts, ElfFacts)
    return facts.current.resolution_cache


def notes(path: str) -> list[tuple[str, str, bytes]]:
    """Read the notes of all PT_NOTEs with pyelftools."""
    with open(path, "rb") as stream:
        segments = [s for s in ELFFile(stream).iter_segments() if isinstance(s, NoteSegment)]
        return [
            (str(note["n_name"]), str(note["n_type"]), bytes(note["n_descdata"]))
            for segment in segments
            for note in segment.iter_notes()
        ]


def described(note: tuple[str, str, bytes]) -> bool:
    return note[:2] == ("NixOS", str(0x63A86CB6))


def build_id(path: str) -> str:
    shown = subprocess.run(["readelf", "-n", path], check=True, capture_output=True, text=True).stdout
    found = re.search(r"Build ID: (\w+)", shown)
    return found[1] if found else ""


def test_the_cache_stands_behind_the_notes_that_were_there(
    workshop: Workshop, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    program = workshop.program(*flags)
    out = os.path.join(tmp_path, "out")
    edit = edit_with_cache(workshop)
    edit_file(program, out, edit)
    assert cache_in(out) == edit.resolution_cache
    assert [note for note in notes(out) if not described(note)] == notes(program)
    (cache,) = (note[2] for note in notes(out) if described(note))
    texts = [text.encode() for pair in edit.resolution_cache or () for text in pair]
    assert cache == b"".join(text + b"\0" for text in texts) + b"\0"
    assert run(out) == run(program, runner=("env", f"LD_LIBRARY_PATH={workshop.there}"))
    assert build_id(out) == build_id(program)


def test_headers_stay_in_number_and_gnu_properties_in_place(
    workshop: Workshop, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    program = workshop.program(*flags, "-fcf-protection=full")
    out = os.path.join(tmp_path, "out")
    edit_file(program, out, edit_with_cache(workshop))
    with open(program, "rb") as before, open(out, "rb") as after:
        old, new = (list(ELFFile(stream).iter_segments()) for stream in (before, after))
    assert [s["p_type"] for s in old] == [s["p_type"] for s in new]
    pairs = zip(old, new, strict=True)
    moved = [a["p_type"] for a, b in pairs if a["p_vaddr"] != b["p_vaddr"]]
    assert [kind for kind in moved if kind != "PT_DYNAMIC"] == ["PT_NOTE"]
    kept = [s.header for s in new if s["p_type"] in {"PT_GNU_PROPERTY", _GNU_PROPERTY}]
    assert kept == [s.header for s in old if s["p_type"] in {"PT_GNU_PROPERTY", _GNU_PROPERTY}]


def test_ten_edits_give_the_bytes_of_one_and_restore_the_original(
    workshop: Workshop, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    program, edit = workshop.program(*flags), edit_with_cache(workshop)
    first = os.path.join(tmp_path, "0")
    edit_file(program, first, edit)
    last = first
    for index in range(1, 10):
        step = os.path.join(tmp_path, str(index))
        other = edit_with_cache(workshop, entry=f"/{index}") if index % 2 else ElfEdit("/no-cache")
        edit_file(last, step, edit if index == 9 else other)
        assert bool(cache_in(step)) == bool(index % 2)
        last = step
    assert content(last) == content(first)
    back = os.path.join(tmp_path, "back")
    restore_file(last, back)
    assert content(back) == content(program)


@pytest.mark.parametrize("strip", STRIPS, ids=" ".join)
def test_strip_keeps_the_cache_and_later_edits_replace_it(
    workshop: Workshop, tmp_path: Path, flags: tuple[str, ...], strip: tuple[str, ...]
) -> None:
    need(strip[0])
    program, edit = workshop.program(*flags), edit_with_cache(workshop)
    untouched = copy(program, os.path.join(tmp_path, "untouched"))
    if subprocess.run([*strip, untouched], check=False, capture_output=True).returncode:
        pytest.skip("it cannot strip this untouched")
    sizes = []
    last = program
    for index, entry in enumerate(("/a", "/b" * 40, "/c", "/d")):
        out = os.path.join(tmp_path, str(index))
        edit = edit_with_cache(workshop, entry=entry)
        edit_file(last, out, edit)
        subprocess.run([*strip, out], check=True, capture_output=True)
        assert cache_in(out) == edit.resolution_cache
        assert [note for note in notes(out) if not described(note)] == notes(program)
        assert run(out).startswith("42")
        sizes.append(os.path.getsize(out))
        last = out
    assert sizes[-1] <= sizes[0] + 64  # the area of the stale edit is replaced, not added to
    dropped = os.path.join(tmp_path, "dropped")
    edit_file(last, dropped, ElfEdit(workshop.there, resolution_cache=()))
    assert notes(dropped) == notes(program)
    assert run(dropped).startswith("42")


def test_libraries_load_with_a_cache(workshop: Workshop, tmp_path: Path) -> None:
    out = os.path.join(tmp_path, "libuse.so")
    edit_file(workshop.library(*RICH, "-Wl,--build-id"), out, edit_with_cache(workshop))
    assert load(out) == "42"


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (("-nostdlib", "-Wl,--build-id=none", "-fcf-protection=none"), "it has no PT_NOTE"),
        (("-nostdlib", "-Wl,--build-id=none", "-fcf-protection=full"), "its PT_NOTE is aligned to 8 bytes"),
    ],
)
def test_files_without_a_movable_note_are_left_without_a_cache(
    workshop: Workshop, build: tuple[str, ...], reason: str
) -> None:
    with open_views(workshop.library(*build, name="libbare.so")) as views:
        assert (obstacle(views.original) or "").startswith(reason)


def test_programs_of_mold_have_all_notes_in_a_pt_note_for_properties(workshop: Workshop) -> None:
    need("ld.mold")
    with open_views(workshop.program("-fuse-ld=mold", "-Wl,--build-id", "-fcf-protection=full")) as views:
        assert (obstacle(views.original) or "").startswith("its PT_NOTE is aligned to 8 bytes")


def test_an_edit_drops_the_cache_that_it_makes_stale(workshop: Workshop, tmp_path: Path) -> None:
    with_note = workshop.library(
        "-Wl,--build-id",
        cache_source(tmp_path / "cache.s", "libanswer.so\\0=/a/libanswer.so\\0\\0"),
        name="libnoted.so",
    )
    assert cache_in(with_note) == (("libanswer.so", "=/a/libanswer.so"),)
    kept, stale, renamed = (os.path.join(tmp_path, name) for name in ("kept", "stale", "renamed"))
    edit_file(with_note, stale, ElfEdit(workshop.there))
    assert cache_in(stale) == ()
    assert not any(described(note) for note in notes(stale))
    assert load(stale) == "42"
    edit_file(with_note, renamed, ElfEdit(None, renames=(("libanswer.so", workshop.answer),)))
    assert cache_in(renamed) == ()
    edit_file(with_note, kept, ElfEdit(None, resolution_cache=(("libanswer.so", "=/b"),)))
    assert cache_in(kept) == (("libanswer.so", "=/b"),)
    for edited in (kept, stale, renamed):
        back = f"{edited}.back"
        restore_file(edited, back)
        assert content(back) == content(with_note)


@pytest.mark.parametrize("where", ["note", "cache", "section", "segment"])
def test_the_check_sees_damage_to_the_new_notes(workshop: Workshop, tmp_path: Path, where: str) -> None:
    program, edit = workshop.program("-Wl,--build-id"), edit_with_cache(workshop)
    out = os.path.join(tmp_path, "out")
    edit_file(program, out, edit)
    with open(out, "rb") as stream:
        file = ELFFile(stream)
        segments = [s for s in file.iter_segments() if isinstance(s, NoteSegment)]
        (segment,) = (s for s in segments if any(n["n_name"] == "NixOS" for n in s.iter_notes()))
        place, length = segment["p_offset"], segment["p_filesz"]
        ends = [s["sh_offset"] + s["sh_size"] for s in file.iter_sections()]
        row = file["e_shoff"] + ends.index(place + length) * file["e_shentsize"] + 32  # sh_size
        index = next(i for i, s in enumerate(file.iter_segments()) if s["p_offset"] == place)
        header = file["e_phoff"] + index * file["e_phentsize"] + 32  # p_filesz
    offset = {"note": place + 20, "cache": place + length - 20, "section": row, "segment": header}[where]

    def flip(data: bytearray) -> None:
        data[offset] ^= 1

    damaged = patched_bytes(out, os.path.join(tmp_path, "damaged"), flip)
    assert check(program, damaged, edit) != ()
