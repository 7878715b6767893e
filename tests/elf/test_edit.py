"""An edited file does what the wish says, in the eyes of ld.so and of an independent reader."""

import os
import struct
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile

from nixpatch.elf import read
from nixpatch.elf.headers import Headers, parse
from nixpatch.elf.image import Image
from nixpatch.elf.inplace_writer import write_edited
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, ElfFacts, Linkage, Tag
from support.programs import (
    RICH,
    Workshop,
    content,
    edit_file,
    interpreter_alias,
    load,
    need,
    obstacle,
    patched_bytes,
    run,
)

pytestmark = pytest.mark.gcc

SHAPES = {
    "plain": (),
    "bss": ("-DWITH_BSS=200000",),
    "tls": ("-DWITH_TLS",),
    "data": ("-DWITH_DATA",),
    "rich": RICH,
    "relr": (*RICH, "-Wl,-z,pack-relative-relocs"),
    "now": (*RICH, "-Wl,-z,now"),
    "no relro": (*RICH, "-Wl,-z,norelro"),
    "big pages": (*RICH, "-Wl,-z,max-page-size=0x10000"),
    "debug": (*RICH, "-g"),
    "stripped": (*RICH, "-s"),
    "one spare tag": (*RICH, "-Wl,--spare-dynamic-tags=1"),
    "rpath": (*RICH, "-Wl,-rpath,/old,--disable-new-dtags"),
    "runpath": (*RICH, "-Wl,-rpath,/old,--enable-new-dtags"),
    "lld": (*RICH, "-fuse-ld=lld"),
    "lld without bss": ("-fuse-ld=lld",),
    "gold": (*RICH, "-fuse-ld=gold"),
}
LINKERS = {"lld": "ld.lld", "lld without bss": "ld.lld", "gold": "ld.gold"}


def facts(path: str) -> ElfFacts:
    found = read(path)
    assert isinstance(found, ElfFacts), found
    return found


def dynamic(path: str) -> list[tuple[str, object]]:
    """The dynamic section as an independent reader sees it: strings for names, else the number."""
    with open(path, "rb") as file:
        elf = ELFFile(file)
        segment = next(s for s in elf.iter_segments() if isinstance(s, DynamicSegment))
        names = {"DT_NEEDED": "needed", "DT_SONAME": "soname", "DT_RPATH": "rpath", "DT_RUNPATH": "runpath"}
        return [
            (tag.entry.d_tag, getattr(tag, names[tag.entry.d_tag]))
            for tag in segment.iter_tags()
            if tag.entry.d_tag in names
        ]


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param in LINKERS:
        need(LINKERS[request.param])
    return SHAPES[request.param]


@pytest.mark.parametrize("kind", [("-pie", "-fPIE"), ("-no-pie", "-fno-pie")], ids=["pie", "non-pie"])
def test_program_finds_its_library(
    workshop: Workshop, tmp_path: Path, shape: tuple[str, ...], kind: tuple[str, ...]
) -> None:
    program = workshop.program(*kind, *shape)
    assert run(program).startswith("failed 127")
    before = facts(program)
    assert before.original.interp
    out = os.path.join(tmp_path, "out")
    loader = interpreter_alias(str(tmp_path), before.original.interp, 200)

    edit_file(program, out, ElfEdit(workshop.there, interp=loader))

    assert run(out) == "42 phdr"
    after = facts(out)
    assert after.current == Linkage(workshop.there, before.original.tag or Tag.RUNPATH, loader)
    assert after.original == before.original
    assert (after.needed, after.version_needs) == (before.needed, before.version_needs)


def test_library_finds_its_library(workshop: Workshop, tmp_path: Path, shape: tuple[str, ...]) -> None:
    library = workshop.library(*shape)
    assert load(library).startswith("failed")
    before = [entry for entry in dynamic(library) if "PATH" not in entry[0]]
    out = os.path.join(tmp_path, "libuse.so")

    edit_file(library, out, ElfEdit("/nowhere:" + workshop.there))

    assert load(out) == "42"
    after = dynamic(out)
    assert [entry for entry in after if "PATH" not in entry[0]] == before
    assert [value for tag, value in after if "PATH" in tag] == ["/nowhere:" + workshop.there]


def test_big_bss_is_a_hole_on_disk(workshop: Workshop, tmp_path: Path) -> None:
    program = workshop.program("-DWITH_BSS=20000000")
    out = os.path.join(tmp_path, "out")
    edit_file(program, out, ElfEdit(workshop.there))
    assert run(out) == "42 phdr"
    assert os.stat(out).st_size > 20_000_000
    assert os.stat(out).st_blocks * 512 < 5_000_000


def without_sections(data: bytearray) -> None:
    data[0x28:0x30] = bytes(8)
    data[0x3A:0x40] = bytes(6)


@pytest.mark.parametrize("kind", [("-pie", "-fPIE"), ("-no-pie", "-fno-pie")], ids=["pie", "non-pie"])
def test_no_section_headers(workshop: Workshop, tmp_path: Path, kind: tuple[str, ...]) -> None:
    program = workshop.program(*kind, *RICH)
    bare = patched_bytes(program, os.path.join(tmp_path, "bare"), without_sections)
    out = os.path.join(tmp_path, "out")
    edit_file(bare, out, ElfEdit(workshop.there))
    assert run(out) == "42 phdr"


@pytest.mark.parametrize("old", [(), ("-Wl,-rpath,/old",), ("-Wl,-rpath,/old,--disable-new-dtags",)])
@pytest.mark.parametrize("tag", Tag)
def test_wished_tag(workshop: Workshop, tmp_path: Path, old: tuple[str, ...], tag: Tag) -> None:
    out = os.path.join(tmp_path, "out")
    edit_file(workshop.library(*RICH, *old), out, ElfEdit(workshop.there, tag))
    assert [entry for entry in dynamic(out) if "PATH" in entry[0]] == [(f"DT_{tag.value}", workshop.there)]
    assert load(out) == "42"


def with_both_tags(data: bytearray) -> None:
    """Use the spare entry of a file with DT_RUNPATH for a DT_RPATH with the same string."""
    runpath = data.index(struct.pack("<Q", 29), dynamic_offset(data))
    while (runpath - dynamic_offset(data)) % 16:
        runpath = data.index(struct.pack("<Q", 29), runpath + 1)
    end = runpath
    while data[end : end + 8] != bytes(8):
        end += 16
    data[end : end + 8] = struct.pack("<Q", 15)
    data[end + 8 : end + 16] = data[runpath + 8 : runpath + 16]


def dynamic_offset(data: bytearray) -> int:
    phoff, phnum = struct.unpack_from("<Q", data, 0x20)[0], struct.unpack_from("<H", data, 0x38)[0]
    for index in range(phnum):
        kind, _, offset = struct.unpack_from("<IIQ", data, phoff + 56 * index)
        if kind == 2:
            return int(offset)
    raise AssertionError


@pytest.mark.parametrize("wish", ["/new", "/old", ""])
def test_file_with_both_tags_keeps_one(workshop: Workshop, tmp_path: Path, wish: str) -> None:
    source = workshop.library(*RICH, "-Wl,-rpath,/old,--enable-new-dtags")
    both = patched_bytes(source, os.path.join(tmp_path, "both"), with_both_tags)
    assert facts(both).both_tags
    out = os.path.join(tmp_path, "out")
    edit_file(both, out, ElfEdit(wish))
    expected = [("DT_RUNPATH", wish)] if wish else []
    assert [entry for entry in dynamic(out) if "PATH" in entry[0]] == expected
    assert not facts(out).both_tags


@pytest.mark.parametrize("dtags", ["--enable-new-dtags", "--disable-new-dtags"])
def test_removal(workshop: Workshop, tmp_path: Path, dtags: str) -> None:
    program = workshop.program(*RICH, f"-Wl,-rpath,{workshop.there},{dtags}")
    assert run(program) == "42 phdr"
    out = os.path.join(tmp_path, "out")
    edit_file(program, out, ElfEdit(""))
    assert facts(out).current.search_path is None
    assert run(out).startswith("failed 127")
    assert facts(out).needed == facts(program).needed


def test_removal_where_there_is_nothing_changes_nothing(workshop: Workshop, tmp_path: Path) -> None:
    out = os.path.join(tmp_path, "out")
    result = edit_file(workshop.library(), out, ElfEdit(""))
    assert not result.changed
    assert content(out) == content(workshop.library())


def test_wish_that_is_met_gives_the_same_bytes(workshop: Workshop, tmp_path: Path) -> None:
    library = workshop.library(*RICH, "-Wl,-rpath,/old")
    for index, edit in enumerate((ElfEdit(None), ElfEdit("/old"), ElfEdit("/old", Tag.RUNPATH))):
        out = os.path.join(tmp_path, str(index))
        assert not edit_file(library, out, edit).changed
        assert content(out) == content(library)


def test_only_the_interpreter(workshop: Workshop, tmp_path: Path) -> None:
    program = workshop.program(*RICH, f"-Wl,-rpath,{workshop.there}")
    before = facts(program).original
    assert before.interp
    loader = interpreter_alias(str(tmp_path), before.interp, 100)
    out = os.path.join(tmp_path, "out")
    edit_file(program, out, ElfEdit(None, interp=loader))
    assert facts(out).current == Linkage(before.search_path, before.tag, loader)
    assert run(out) == "42 phdr"


def test_shorter_interpreter_stays_in_its_place(workshop: Workshop, tmp_path: Path) -> None:
    out = os.path.join(tmp_path, "out")
    edit_file(workshop.program(), out, ElfEdit(workshop.there, interp="/l"))
    assert facts(out).current.interp == "/l"
    before = places(workshop.program()).interp_segment
    assert before
    assert places(out).interp_segment == before._replace(filesz=3, memsz=3)


def test_a_library_whose_interpreter_is_the_empty_string_is_a_library(
    workshop: Workshop, tmp_path: Path
) -> None:
    """opencv-python ships such a libQt5Core: an editor emptied the string and left its segment."""
    source = os.path.join(tmp_path, "empty.c")
    with open(source, "w", encoding="ascii") as file:
        file.write('const char interp[] __attribute__((section(".interp"))) = "";')
    library = workshop.library(source)
    assert facts(library).current.interp is None
    out = os.path.join(tmp_path, "libuse.so")
    edit_file(library, out, ElfEdit(workshop.there))
    assert load(out) == "42"


def places(path: str) -> Headers:
    fd = os.open(path, os.O_RDONLY)
    try:
        return parse(Image.of(fd))
    finally:
        os.close(fd)


def test_bytes_that_are_not_utf8_survive(workshop: Workshop, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    there = os.path.join(tmp_path, name)
    os.mkdir(there)
    os.symlink(workshop.answer, os.path.join(there, "libanswer.so"))
    out = os.path.join(tmp_path, "out")
    edit_file(workshop.program(), out, ElfEdit(there))
    assert facts(out).current.search_path == there
    assert os.fsencode(there) in content(out)
    assert run(out) == "42 phdr"


def test_symbol_that_shares_its_name_with_the_old_path_survives(workshop: Workshop, tmp_path: Path) -> None:
    library = workshop.gcc(
        "libtail.so",
        *("-shared", "-fPIC", "-Wl,-soname,libtail.so", "-Wl,-rpath,/nowhere/tail_of_a_path"),
        workshop.source("tail.c"),
    )
    assert content(library).count(b"tail_of_a_path\0") <= 2  # .dynstr and .strtab
    out = os.path.join(tmp_path, "out")
    edit_file(library, out, ElfEdit("/somewhere/else/that/is/longer/than/before"))
    assert load(out, "tail_of_a_path") == "42"


def test_full_dynamic_section_moves(workshop: Workshop, tmp_path: Path) -> None:
    out = os.path.join(tmp_path, "out")
    result = edit_file(workshop.program(*RICH, "-Wl,--spare-dynamic-tags=1"), out, ElfEdit(workshop.there))
    assert "dynamic section moved" in result.notes
    assert run(out) == "42 phdr"


def test_dynamic_section_without_end_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    library = workshop.library(*RICH, "-Wl,--spare-dynamic-tags=0")
    with pytest.raises(FileRefused, match="DT_NULL"):
        edit_file(library, os.path.join(tmp_path, "out"), ElfEdit("/new"))
    assert "DT_NULL" in (obstacle(library) or "")
    assert obstacle(workshop.library(*RICH)) is None


def test_data_behind_a_library_stays_last(workshop: Workshop, tmp_path: Path) -> None:
    overlay = b"overlay" * 100
    source = patched_bytes(
        workshop.library(*RICH), os.path.join(tmp_path, "with"), lambda data: data.extend(overlay)
    )
    out = os.path.join(tmp_path, "out")
    edit_file(source, out, ElfEdit(workshop.there))
    assert content(out).endswith(overlay)
    assert load(out) == "42"


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (ElfEdit("a\0b"), "NUL"),
        (ElfEdit(None, interp="/a\0b"), "NUL"),
        (ElfEdit(None, interp=""), "0 bytes"),
        (ElfEdit(None, interp="/" * 5000), "5000 bytes"),
    ],
)
def test_impossible_wishes_are_refused(workshop: Workshop, tmp_path: Path, edit: ElfEdit, why: str) -> None:
    with pytest.raises(FileRefused, match=why):
        edit_file(workshop.program(), os.path.join(tmp_path, "out"), edit)


def test_library_cannot_get_an_interpreter(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match="PT_INTERP"):
        edit_file(workshop.library(), os.path.join(tmp_path, "out"), ElfEdit(None, interp="/lib/ld.so"))


def test_other_machine_with_a_distance_in_its_dynamic_section_is_refused(
    workshop: Workshop, tmp_path: Path
) -> None:
    def mips(data: bytearray) -> None:
        data[18] = 8

    source = patched_bytes(workshop.library(), os.path.join(tmp_path, "mips"), mips)
    with pytest.raises(FileRefused, match="MIPS"):
        edit_file(source, os.path.join(tmp_path, "out"), ElfEdit("/new"))


def test_same_edit_gives_the_same_bytes_anywhere(workshop: Workshop, tmp_path: Path) -> None:
    for name in ("one", "another"):
        os.mkdir(os.path.join(tmp_path, name))
        edit_file(workshop.program(*RICH), os.path.join(tmp_path, name, name), ElfEdit("/new"))
    assert content(os.path.join(tmp_path, "one/one")) == content(os.path.join(tmp_path, "another/another"))


def test_copy_where_the_kernel_cannot(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    expected = os.path.join(tmp_path, "expected")
    edit_file(workshop.program(*RICH), expected, ElfEdit("/new"))
    monkeypatch.setattr(os, "copy_file_range", refuse)
    out = os.path.join(tmp_path, "out")
    edit_file(workshop.program(*RICH), out, ElfEdit("/new"))
    assert content(out) == content(expected)


def test_source_may_be_a_descriptor(workshop: Workshop, tmp_path: Path) -> None:
    fd = os.open(workshop.library(), os.O_RDONLY)
    out = os.open(os.path.join(tmp_path, "out"), os.O_RDWR | os.O_CREAT)
    assert write_edited(fd, out, ElfEdit("/new")).changed
    os.fstat(fd)
    os.close(fd)
    os.close(out)


def test_a_fresh_file_is_digested_as_it_is_written_and_a_patched_one_is_not(
    workshop: Workshop, tmp_path: Path
) -> None:
    once, twice = os.path.join(tmp_path, "once"), os.path.join(tmp_path, "twice")
    assert edit_file(workshop.library(*RICH), once, ElfEdit(workshop.there)).digested  # and rightly so
    assert not edit_file(once, twice, ElfEdit("/another")).digested
