"""ELF headers that ask for more than a file is worth: each is answered within the limits."""

import os
import struct
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.forge import BASE, DT_NEEDED, DT_RUNPATH, NEED, PATH, Forged, dlopen_note, verneed
from fuzz.seeds import edited
from nixpatch.elf import read
from nixpatch.elf.headers import parse
from nixpatch.elf.image import Image
from nixpatch.elf.undo import guard, guarded_tables
from nixpatch.elf.undo_record import FOOTER_SIZE, UndoFooter, UndoRecord
from nixpatch.model import ElfFacts, Skip, SkipReason
from support.bounded import run

LOOK = """
    found = read(path, payload_ok=True)
    why = found.reason.name if isinstance(found, Skip) else found.obstacle or ""
    print(type(found).__name__, why)
"""
EDIT = """
    with open(path, "rb") as source, tempfile.TemporaryFile() as out:
        wish = ElfEdit("/nix/store/x/lib")
        try:
            write_edited(source.fileno(), out.fileno(), wish)
        except FileRefused as refused:
            print("refused", refused)
        else:
            print("edited", *check(source.fileno(), out.fileno(), wish))
            original_sha256(out.fileno())
"""
PT_LOAD, PT_NOTE = 1, 4
LONG = b"\0libself.so.1\0libneed.so.2\0$ORIGIN/../lib\0" + b"n" * 60000 + b"\0"


def _load(number: int) -> tuple[int, ...]:
    """A further segment, far away and empty in the file's own memory."""
    return (PT_LOAD, 6, 0, (number + 16) << 24, 0, 64, 64, 0x1000)


def _many_needs() -> bytes:
    names = b"".join(b"lib%d.so\0" % n for n in range(4000))
    offsets = [at + len(LONG) for at in range(0, 4000 * 5, 5)]
    dynamic = [(DT_NEEDED, at) for at in offsets] + [(DT_RUNPATH, PATH)]
    return Forged(strings=LONG + names, dynamic=dynamic).data()


def _one_name_65535_times() -> bytes:
    return Forged(strings=LONG, dynamic=[(DT_NEEDED, 43)] * 65530).data()


def _tails_of_one_string() -> bytes:
    return Forged(strings=LONG, dynamic=[(DT_NEEDED, 43 + n) for n in range(4000)]).data()


def _path_of_a_hundred_thousand() -> bytes:
    return Forged(
        strings=b"\0libneed\0" + b":" * 100_000 + b"\0", dynamic=[(DT_NEEDED, 1), (DT_RUNPATH, 9)]
    ).data()


def _needs_times_entries() -> bytes:
    path = b":".join(b"$ORIGIN/%x" % n for n in range(4500))
    strings = b"\0libneed.so\0" + path + b"\0"
    needs = [(DT_NEEDED, 1 + n % 9) for n in range(4000)]
    return Forged(strings=strings, dynamic=[*needs, (DT_RUNPATH, 12)]).data()


def _verneed_loop() -> bytes:
    return Forged(
        verneed=struct.pack("<HHIII", 1, 0xFFFF, NEED, 0, 0)[:16] + b"\0" * 32, verneed_count=1 << 31
    ).data()


def _verneed_over_itself() -> bytes:
    # Records that overlap, each a byte behind the one before; each asks for as many versions as there are.
    return Forged(
        verneed=b"\1" * 70_000, verneed_count=65_535, more_phdrs=[_load(n) for n in range(1000)]
    ).data()


def _vernaux_shared() -> bytes:
    heads = b"".join(struct.pack("<HHIII", 1, 8, NEED, 16 * (4096 - n), 16) for n in range(4096))
    aux = verneed(versions=[42] * 16)[16:]
    return Forged(verneed=heads + aux, verneed_count=4096).data()


def _notes_over_notes() -> bytes:
    note = dlopen_note(b'[{"soname":["liba.so"]}' + b',{"soname":["liba.so"]}' * 40_000 + b"]")
    at = 64 + 56 * 1000
    more = [(PT_NOTE, 4, at, BASE + at, BASE + at, len(note), len(note), 4)] * 997
    return Forged(notes=(note,), more_phdrs=more).data()


def _caches_and_sections() -> bytes:
    note = struct.pack("<III", 6, 24, 0x63A86CB6) + b"NixOS\0\0\0" + b"libneed.so.2\0=/a/b/c/d\0\0"
    sections = [(0, 7, 2, n << 24, n << 24, 64, 0, 0, 4, 0) for n in range(1, 65_279)]
    return Forged(notes=[note + bytes(-len(note) % 4)] * 1000, sections=sections).data()


def _note(description: bytes) -> Callable[[], bytes]:
    return lambda: Forged(notes=(dlopen_note(description),)).data()


def _sections_everywhere() -> bytes:
    # As in a file of 1 GiB, a hole but for its head: each section's end is in a block of its own.
    sections = [(0, 1, 0, 0, n << 14, 4096, 0, 0, 1, 0) for n in range(65_279)]
    return Forged(interp=b"/l\0", sections=sections).data()


def _sections_with_large_numbers() -> bytes:
    big = (1 << 40) + 1
    return Forged(sections=[(n, 1, 2, big + n, 64 + n, 8, n, 0, big, big + n) for n in range(65_279)]).data()


SHAPES = {
    "4,000 needs": _many_needs,
    "65,530 needs of one name": _one_name_65535_times,
    "4,000 tails of one string": _tails_of_one_string,
    "100,000 search path entries": _path_of_a_hundred_thousand,
    "4,000 needs in 4,500 directories": _needs_times_entries,
    "2**31 verneed records": _verneed_loop,
    "verneed records over one another in 1,000 segments": _verneed_over_itself,
    "vernaux records shared by 4,096": _vernaux_shared,
    "1,000 segments over one note": _notes_over_notes,
    "1,000 resolution caches in 65,000 sections": _caches_and_sections,
    "a note nested 100,000 deep": _note(b"[" * 100_000),
    "a note of tables": _note(b"[" + b"{}," * 340_000 + b"{}]"),
    "a note with a number of 100,000 digits": _note(b"9" * 100_000),
    "a note with half a character": _note(b'[{"soname":["lib\\ud800.so"]}]'),
    "a note with 100,000 alternatives": _note(b'[{"soname":["a"' + b',"lib.so"' * 100_000 + b"]}]"),
    "65,279 sections": _sections_with_large_numbers,
    "65,279 sections all over 1 GiB": _sections_everywhere,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_reading_and_editing(shape: str, tmp_path: Path) -> None:
    read_as, edited = run(LOOK + EDIT, _file(shape, tmp_path)).splitlines()
    assert read_as.startswith(("ElfFacts", "Skip"))
    assert edited.startswith(("edited", "refused"))


def _file(shape: str, directory: Path) -> str:
    path = os.path.join(directory, "x.so")
    Path(path).write_bytes(SHAPES[shape]())
    if "GiB" in shape:
        os.truncate(path, (1 << 30) + (1 << 20))
    return path


def test_counts_and_places_that_are_not_true(tmp_path: Path) -> None:
    whole = Forged(sections=[(0, 0, 0, 0, 0, 1 << 40, 0, 0, 0, 0)] * 3).data()
    fields = {
        "e_phnum": (0x38, "<H"),
        "e_shnum": (0x3C, "<H"),
        "e_phoff": (0x20, "<Q"),
        "e_shoff": (0x28, "<Q"),
    }
    made = 0
    for at, form in fields.values():
        for value in (0xFFFF, 0xFFFE, 0x7FFF, 0):
            data = bytearray(whole)
            struct.pack_into(form, data, at, value)
            Path(tmp_path, f"{made}.so").write_bytes(data)
            made += 1
    code = f"""
    directory = path
    for number in range({made}):
        path = os.path.join(directory, f"{{number}}.so")
""" + textwrap.indent(LOOK + EDIT, "    ")
    assert len(run(code, str(tmp_path)).splitlines()) == 2 * made


@pytest.mark.parametrize("which", ["note", "string table", "bss", "interpreter", "dynamic section"])
def test_a_segment_of_gigabytes_in_a_file_of_holes(which: str, tmp_path: Path) -> None:
    size = 4 << 30
    large = {"note": PT_NOTE, "interpreter": 3}.get(which)
    more = [(large, 4, 4096, BASE + 4096, 0, size, size, 4)] if large else []
    forged = Forged(more_phdrs=more, string_size=size - 8192 if which == "string table" else None)
    data = bytearray(forged.data())
    if which == "bss":
        struct.pack_into("<Q", data, 64 + 40, 1 << 45)
    else:
        struct.pack_into("<QQ", data, 64 + 32, size, size)
    if which == "dynamic section":
        struct.pack_into("<QQ", data, 120 + 32, size // 2, size // 2)
    path = os.path.join(tmp_path, "x.so")
    Path(path).write_bytes(data)
    if which != "bss":
        os.truncate(path, size)
    # A string table can be edited; to copy and compare four gigabytes takes its minute.
    said = run(LOOK if which == "string table" else LOOK + EDIT, path)
    assert said.startswith(("ElfFacts", "Skip"))


def test_what_is_too_much_is_malformed_and_says_so(tmp_path: Path) -> None:
    for shape in ("65,530 needs of one name", "4,000 needs in 4,500 directories"):
        found = read(_file(shape, tmp_path))
        assert isinstance(found, Skip)
        assert found.reason is SkipReason.MALFORMED
        assert "needs" in found.detail or "DT_NEEDED" in found.detail


def test_of_a_note_only_so_much_is_looked_for(tmp_path: Path) -> None:
    found = read(_file("a note with 100,000 alternatives", tmp_path))
    assert isinstance(found, ElfFacts)
    assert [len(need.sonames) for need in found.dlopen_needs] == [16]
    half = read(_file("a note with half a character", tmp_path))
    assert isinstance(half, ElfFacts)
    assert half.dlopen_needs == ()


def test_a_forged_record_of_half_a_million_patches(tmp_path: Path) -> None:
    """Each read of the original goes through the patches that touch it, not through all of them."""
    code = """
        from nixpatch.elf.image import Image, Patch
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            patches = tuple(Patch(n, b"") for n in range(500_000))
            image = Image.of(file.fileno()).before_edit(size, 1, size, patches)
            for block in range(0, 60_000):
                image.read(block * 4096, 8)
        print("done")
    """
    path = os.path.join(tmp_path, "x")
    Path(path).touch()
    os.truncate(path, 1 << 28)
    assert run(code, path) == "done"


@pytest.mark.parametrize("turned", [False, True])
def test_patches_out_of_order_are_no_record(turned: bool, tmp_path: Path) -> None:
    data = bytearray(edited(Forged(strings=LONG).data())[0])
    path = os.path.join(tmp_path, "x.so")
    Path(path).write_bytes(data)
    with open(path, "rb") as file:
        image = Image.of(file.fileno())
        headers = parse(image)
        at = headers.last_load.file_end - FOOTER_SIZE
        footer = UndoFooter.unpack(bytes(data[at : at + FOOTER_SIZE]))
        assert footer is not None
        record = UndoRecord.unpack(bytes(data[at - footer.record_length : at]))
        assert record is not None
        if turned:
            record = replace(record, patches=record.patches[::-1])
        packed = record.pack()
        footer = replace(
            footer, guard=guard(image, guarded_tables(image, headers), packed, footer, record.left)
        )
    data[at - len(packed) : at + FOOTER_SIZE] = packed + footer.pack()
    Path(path).write_bytes(data)
    found = read(path)
    assert isinstance(found, ElfFacts)
    assert found.stale_undo is turned
