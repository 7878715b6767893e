"""Edits beyond search path and interpreter: what the checks hold against them, refusals, and the way back."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz.forge import DT_NEEDED, DT_RUNPATH, NEED, PATH, SELF, VERSION, Forged
from nixpatch.elf import read
from nixpatch.elf.check_inplace import check, undo_violations
from nixpatch.elf.headers import ElfFile, Headers
from nixpatch.elf.image import Image, Patch
from nixpatch.elf.structs import (
    DT_DEBUG,
    DT_FLAGS_1,
    DT_GNU_HASH,
    DT_HASH,
    DT_JMPREL,
    DT_RELA,
    DT_RELASZ,
    DT_SONAME,
    DT_VERSYM,
)
from nixpatch.elf.symbol_tables import SymbolTables, read_symbol_tables
from nixpatch.elf.undo import open_views, views_of
from nixpatch.elf.undo_record import UndoRecord
from nixpatch.elf.writer import write_checked
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, ElfFacts, ManualEdit, Writer
from support.programs import (
    RICH,
    Workshop,
    content,
    copy,
    edit_file,
    load,
    patched_bytes,
    read_headers,
    restore_file,
)

pytestmark = pytest.mark.gcc

MANUAL = ManualEdit(
    needed=("liba.so", "libanswer.so", "libc.so.6"),
    soname="libnew.so",
    os_abi=0,
    executable_stack=True,
    no_default_lib=True,
    debug_tag=True,
    renamed_symbols=(("pair_11", "other_11"), ("pair_25", "pair_25_new"), ("pair_base", "base_of_pair")),
    unversioned_symbols=("answer",),
)
EDIT = ElfEdit("/new", manual=MANUAL)


@pytest.fixture(scope="session")
def library(workshop: Workshop) -> str:
    flags = (
        "-shared",
        "-fPIC",
        "-DWITH_IFUNC",
        "-Wl,-soname,libpair.so",
        "-Wl,--hash-style=both",
        workshop.source("pair.c"),
    )
    return workshop.gcc("libpair.so", *flags, workshop.answer)


@pytest.fixture(scope="session")
def edited(library: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = os.path.join(tmp_path_factory.mktemp("manual"), "edited.so")
    edit_file(library, path, EDIT)
    return path


def tables_of(path: str) -> SymbolTables:
    with open(path, "rb") as stream:
        return read_symbol_tables(ElfFile.of(Image.of(stream.fileno())))


def test_the_facts_of_an_edited_file_have_the_edit(library: str, edited: str, tmp_path: Path) -> None:
    facts = read(edited)
    assert isinstance(facts, ElfFacts)
    assert facts.manual == MANUAL
    assert (facts.soname, facts.os_abi, facts.executable_stack) == ("libnew.so", 0, True)
    assert (facts.no_default_lib, facts.debug_tag) == (True, True)
    assert facts.needed == MANUAL.needed
    back = os.path.join(tmp_path, "back.so")
    restore_file(edited, back)
    assert content(back) == content(library)
    with open_views(edited) as views:
        assert undo_violations(views, strict=True) == ()


def test_an_edit_of_the_search_path_keeps_the_others(library: str, edited: str, tmp_path: Path) -> None:
    """As ``patch`` of a tree does: it hands on what it does not decide."""
    again, once = (os.path.join(tmp_path, name) for name in ("again.so", "once.so"))
    facts = read(edited)
    assert isinstance(facts, ElfFacts)
    edit = ElfEdit("/another:/path", manual=facts.manual)
    edit_file(edited, again, edit)
    edit_file(library, once, edit)
    assert content(again) == content(once)


def dynamic_value(tag: int, value: int) -> Callable[[bytearray, Headers], None]:
    def change(data: bytearray, headers: Headers) -> None:
        index = [entry.tag for entry in headers.dynamic].index(tag)
        struct.pack_into("<QQ", data, headers.dynamic_offset + 16 * index, tag, value)

    return change


def bytes_behind(tag: int, skip: int, length: int = 4) -> Callable[[bytearray, Headers], None]:
    """Invert bytes of a table."""

    def change(data: bytearray, headers: Headers) -> None:
        offset = headers.file_offset(headers.values[tag])
        assert offset is not None
        for position in range(offset + skip, offset + skip + length):
            data[position] ^= 0xFF

    return change


def other_symbol(data: bytearray, headers: Headers) -> None:
    """Let a relocation refer to the next symbol."""
    offset = headers.file_offset(headers.values[DT_RELA])
    assert offset is not None
    while True:
        (info,) = struct.unpack_from("<Q", data, offset + 8)
        if info >> 32:
            struct.pack_into("<Q", data, offset + 8, info + (1 << 32))
            return
        offset += 24


def other_addend(data: bytearray, headers: Headers) -> None:
    offset = headers.file_offset(headers.values[DT_RELA], 24)
    assert offset is not None
    data[offset + 16] ^= 1


def swap_symbols(data: bytearray, headers: Headers) -> None:
    """Exchange two symbols without their versions and relocations."""
    offset = headers.file_offset(headers.values[6])
    assert offset is not None
    count = 30
    first, second = offset + 24 * count, offset + 24 * (count + 1)
    data[first : first + 24], data[second : second + 24] = (
        data[second : second + 24],
        data[first : first + 24],
    )


DAMAGE: list[tuple[Callable[[bytearray, Headers], None], str]] = [
    (lambda data, _: data.__setitem__(7, 3), "ELF header"),
    (lambda data, _: data.__setitem__(8, 1), "ELF header"),
    (dynamic_value(DT_DEBUG, 1), "another value"),
    (dynamic_value(DT_FLAGS_1, 0x801), "another value"),
    (dynamic_value(DT_SONAME, 1), "DT_SONAME|a dynamic entry"),
    (bytes_behind(DT_VERSYM, 2 * 20, 1), "symbols"),
    (bytes_behind(DT_GNU_HASH, 16, 8), "DT_GNU_HASH"),
    (bytes_behind(DT_HASH, 8), "DT_HASH|refers to a symbol"),
    (other_symbol, "relocation"),
    (other_addend, "relocation"),
    (swap_symbols, "symbols|relocation|DT_GNU_HASH"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_a_damaged_result_does_not_pass(
    library: str, edited: str, tmp_path: Path, damage: Callable[[bytearray, Headers], None], message: str
) -> None:
    headers = read_headers(edited)
    damaged = patched_bytes(edited, os.path.join(tmp_path, "damaged.so"), lambda data: damage(data, headers))
    assert content(damaged) != content(edited)
    lines = check(library, damaged, EDIT)
    assert any(part in line for line in lines for part in message.split("|")), lines


@pytest.mark.parametrize(
    "other",
    [
        ManualEdit(),
        ManualEdit(soname="libother.so"),
        ManualEdit(needed=("libanswer.so", "libc.so.6", "liba.so")),
        ManualEdit(os_abi=0, executable_stack=False),
        ManualEdit(renamed_symbols=(("pair_11", "other_12"),)),
        ManualEdit(unversioned_symbols=("pair_11",)),
    ],
)
def test_another_edit_is_not_this_one(library: str, edited: str, other: ManualEdit) -> None:
    assert check(library, edited, EDIT) == ()
    assert check(library, edited, ElfEdit("/new", manual=other)) != ()


def test_a_record_with_other_symbols_is_not_believed(edited: str) -> None:
    """It would rename an imported symbol at restore, or let a relocation refer to another one."""
    with open_views(edited) as views:
        assert views.record is not None
        assert undo_violations(views) == ()
        tables = tables_of(edited)
        relocation = tables.relocations[0].table.offset
        forged = [
            (views.record.renamed_symbols[:1], views.record.patches),
            ((), views.record.patches),
            (views.record.renamed_symbols, (*views.record.patches, Patch(relocation + 8, bytes(8)))),
        ]
        for renamed, patches in forged:
            record = UndoRecord(
                views.record.left,
                tuple({p.offset: p for p in sorted(patches, key=lambda p: p.offset)}.values()),
                renamed,
                views.record.unversioned_symbols,
            )
            assert UndoRecord.unpack(record.pack()) == record
            footer = views.footer
            assert footer is not None
            image = views.current.image.before_edit(
                footer.cut, footer.delta, footer.original_size, record.patches
            )
            lie = type(views)(views.state, footer, views.current, ElfFile.of(image), record)
            assert undo_violations(lie) != (), renamed


REFUSED = [
    (ManualEdit(renamed_symbols=(("pair_11", "a@V"),)), "cannot be the name of a symbol"),
    (ManualEdit(renamed_symbols=(("pair_11", ""),)), "cannot be the name of a symbol"),
    (ManualEdit(soname="a\0b"), "cannot be the name of a library"),
    (ManualEdit(needed=("",)), "cannot be the name of a needed library"),
]


@pytest.mark.parametrize(("manual", "message"), REFUSED)
def test_what_no_file_can_have_is_refused(
    library: str, tmp_path: Path, manual: ManualEdit, message: str
) -> None:
    with pytest.raises(FileRefused, match=message):
        edit_file(library, os.path.join(tmp_path, "out.so"), ElfEdit(None, manual=manual))


def test_a_hash_table_that_is_wrong_is_not_rebuilt(library: str, tmp_path: Path) -> None:
    tables = tables_of(library)
    assert tables.gnu_hash is not None
    last = tables.gnu_hash.table.offset + len(tables.gnu_hash.table.data) - 4
    odd = patched_bytes(library, os.path.join(tmp_path, "odd.so"), lambda data: data.__setitem__(last, 6))
    with pytest.raises(FileRefused, match="DT_GNU_HASH does not agree"):
        edit_file(odd, os.path.join(tmp_path, "out.so"), EDIT)
    # A symbol that is imported is in no bucket.
    edit = ElfEdit(None, manual=ManualEdit(renamed_symbols=(("pair_base", "base_of_pair"),)))
    edit_file(odd, os.path.join(tmp_path, "imported.so"), edit)


def test_only_the_in_place_writer_makes_such_an_edit(library: str, tmp_path: Path) -> None:
    edit = ElfEdit(None, manual=MANUAL)
    out = os.path.join(tmp_path, "out")
    with (
        open(library, "rb") as source,
        open(out, "x+b") as temp,
        pytest.raises(FileRefused, match="only the in-place edit"),
    ):
        write_checked(source.fileno(), temp.fileno(), edit, writer=Writer.LIEF)


def test_an_edit_back_to_the_original_gives_its_bytes(library: str, edited: str, tmp_path: Path) -> None:
    out = os.path.join(tmp_path, "out.so")
    edit_file(edited, out, ElfEdit(None))
    assert content(out) == content(library)


def test_a_strip_between_two_edits_keeps_new_names(library: str, edited: str, tmp_path: Path) -> None:
    """The names are in the area of the first edit, which the second one must therefore not discard."""
    stripped = copy(edited, os.path.join(tmp_path, "stripped.so"))
    subprocess.run(["strip", "--strip-unneeded", stripped], check=True)
    facts = read(stripped)
    assert isinstance(facts, ElfFacts)
    assert facts.stale_undo
    again = os.path.join(tmp_path, "again.so")
    edit_file(stripped, again, ElfEdit("/other"))
    with open(again, "rb") as stream:
        names = read_symbol_tables(views_of(stream.fileno()).current).names
    assert {"other_11", "pair_25_new", "base_of_pair"} <= set(names)


def test_a_record_of_names_survives_packing() -> None:
    record = UndoRecord(((1, 2),), (Patch(3, b"x"),), ((b"old", b"new"), (b"a", b"\xff")), (b"name", b""))
    packed = record.pack()
    assert UndoRecord.unpack(packed) == record
    for end in range(len(packed)):
        assert UndoRecord.unpack(packed[:end]) != record
    assert UndoRecord.unpack(packed + b"\0") is None
    # One without names has the form that it always had.
    assert UndoRecord(((1, 2),), (Patch(3, b"x"),)).pack() == bytes([1, 1, 2, 1, 3, 1]) + b"x"


def test_ld_so_loads_a_library_with_symbols_in_other_places(workshop: Workshop, tmp_path: Path) -> None:
    library = workshop.library(*RICH, "-Wl,-rpath," + workshop.there)
    out = os.path.join(tmp_path, "out.so")
    edit_file(library, out, ElfEdit(None, manual=ManualEdit(renamed_symbols=(("use", "employ"),))))
    assert load(out, "employ") == "42"
    assert load(out, "use").startswith("failed")


def test_other_needs_in_the_place_of_scattered_entries_can_be_undone(tmp_path: Path) -> None:
    source, out, back = (os.path.join(tmp_path, name) for name in ("source", "out", "back"))
    dynamic = [(DT_NEEDED, NEED), (DT_SONAME, SELF), (DT_RUNPATH, PATH), (DT_NEEDED, VERSION)]
    Path(source).write_bytes(Forged(dynamic=dynamic).data())
    manual = ManualEdit(needed=("liba.so", "libb.so"))
    edit_file(source, out, ElfEdit(None, manual=manual))
    restore_file(out, back)
    assert content(back) == content(source)


def test_relocation_tables_that_overlap_within_an_entry_are_refused(library: str, tmp_path: Path) -> None:
    headers = read_headers(library)
    index = next(index for index, entry in enumerate(headers.live) if entry.tag == DT_JMPREL)
    place = headers.dynamic_offset + 16 * index + 8

    def shift(data: bytearray) -> None:
        data[place : place + 8] = struct.pack("<Q", headers.values[DT_RELA] + headers.values[DT_RELASZ] - 8)

    path = patched_bytes(library, os.path.join(tmp_path, "library.so"), shift)
    manual = ManualEdit(renamed_symbols=(("pair_11", "other_11"),))
    with pytest.raises(FileRefused, match="relocation tables overlap within an entry"):
        edit_file(path, os.path.join(tmp_path, "out"), ElfEdit(None, manual=manual))
