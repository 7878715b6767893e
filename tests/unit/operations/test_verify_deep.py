"""verify --deep: what pyelftools and LIEF find in a patched file, and in its original."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixpatch.elf import child_process
from nixpatch.elf.readers import others, own
from nixpatch.elf.readers.others import OTHERS, OpenFile, Unread, describe_all
from nixpatch.errors import FileRefused
from nixpatch.installed.provenance import PatchedFile
from nixpatch.model import ElfEdit, Finding, Linkage, ManualEdit, Tag
from nixpatch.operations.verify_deep import Reading, judge, reread
from support.programs import (
    RICH,
    SOURCES,
    Workshop,
    content,
    digest,
    edit_file,
    interpreter_alias,
    patched_bytes,
    read_headers,
)

pytestmark = pytest.mark.gcc

PATH = "/a/path/that/was/not/there"
LIBRARIES = {
    "plain": (),
    "rich": (*RICH, "-Wl,--build-id"),
    "rpath": (*RICH, "-Wl,--disable-new-dtags,-rpath,/old"),
    "relr": (*RICH, "-Wl,-z,pack-relative-relocs"),
    "sysv hash": (*RICH, "-Wl,--hash-style=sysv"),
    "full dynamic section": (*RICH, "-Wl,--spare-dynamic-tags=1"),
    "full, and the last segment is code": (
        *RICH,
        "-Wl,--spare-dynamic-tags=1",
        f"-Wl,-T,{os.path.join(SOURCES, 'code_last.ld')}",
        os.path.join(SOURCES, "code_last.c"),
    ),
    "debug information": (*RICH, "-g"),
    "64 KiB pages": (*RICH, "-Wl,-z,max-page-size=65536"),
}


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(str(tmp_path_factory.mktemp("elf")))


def provenance(library: str, **fields: Any) -> PatchedFile:
    entry = PatchedFile(f"sha256={digest(library).hex()}", "", PATH, Tag.RUNPATH, None)
    return replace(entry, **fields)


def patched(source: str, to: Path, edit: ElfEdit | None = None) -> str:
    edit_file(source, str(to), edit or ElfEdit(PATH))
    return str(to)


def texts_of(findings: tuple[Finding, ...]) -> list[str]:
    return [f"{finding.severity}: {finding.text}" for finding in findings]


def findings_in(path: str, library: str, **fields: Any) -> list[str]:
    """Findings about one patched file, as text."""
    return texts_of(reread({path: provenance(library, **fields)}, "/tree", 1)[1])


@pytest.mark.parametrize("kind", LIBRARIES)
def test_the_readers_agree_on_a_patched_library(workshop: Workshop, tmp_path: Path, kind: str) -> None:
    library = workshop.library(*LIBRARIES[kind])
    path = patched(library, tmp_path / "patched.so")
    tag = Tag.RPATH if kind == "rpath" else Tag.RUNPATH

    done, findings = reread({path: provenance(library, tag=tag)}, "/tree", 1)

    assert findings == ()
    assert (done.files, done.originals) == (1, 1)
    assert [name.split(" ")[0] for name in done.readers] == ["nixpatch", "pyelftools", "LIEF"]


@pytest.mark.parametrize("flags", [(), ("-no-pie", "-fno-pie"), ("-Wl,--spare-dynamic-tags=1",)])
@pytest.mark.parametrize("length", [10, 200])
def test_the_readers_agree_on_a_patched_program(
    workshop: Workshop, tmp_path: Path, flags: tuple[str, ...], length: int
) -> None:
    program = workshop.program(*RICH, *flags)
    interp = interpreter_alias(str(tmp_path), "/lib64/ld-linux-x86-64.so.2", length)
    path = patched(program, tmp_path / "patched", ElfEdit(PATH, interp=interp))

    assert findings_in(path, program, interp=interp) == []


def test_no_section_headers(workshop: Workshop, tmp_path: Path) -> None:
    def strip(data: bytearray) -> None:
        data[0x28:0x30] = bytes(8)
        data[0x3A:0x40] = bytes(6)

    for source in (workshop.library(*RICH), workshop.library(*RICH, "-Wl,-z,pack-relative-relocs")):
        bare = patched_bytes(source, str(tmp_path / "bare.so"), strip)
        path = patched(bare, tmp_path / f"{len(os.listdir(tmp_path))}.so")

        assert findings_in(path, bare) == []


def test_names_that_are_not_utf8(workshop: Workshop, tmp_path: Path) -> None:
    def rename(data: bytearray) -> None:
        data[:] = data.replace(b"\0use\0", b"\0us\xff\0").replace(b"\0libuse.so\0", b"\0libus\xff.so\0")

    odd = patched_bytes(workshop.library(*RICH), str(tmp_path / "odd.so"), rename)
    path = patched(odd, tmp_path / "patched.so")

    assert findings_in(path, odd) == []


def test_a_renamed_need_has_to_be_declared(workshop: Workshop, tmp_path: Path) -> None:
    library = workshop.library(*RICH)
    edit = ElfEdit(PATH, renames=(("libanswer.so", "libanother-name.so"),))
    path = patched(library, tmp_path / "patched.so", edit)

    assert findings_in(path, library, renamed={"libanswer.so": "libanother-name.so"}) == []
    _, need, version = findings_in(path, library)

    assert need.startswith("error: its DT_NEEDED 0 was 'libanswer.so' and is 'libanother-name.so'")
    assert version.startswith("error: its version need 0, soname was 'libanswer.so'")


def test_the_readers_agree_on_a_library_that_nixpatch_elf_edited_before(
    workshop: Workshop, tmp_path: Path
) -> None:
    """Provenance has only the edit of the patch, so all others would be errors."""
    library = workshop.library(*RICH)
    manual = ManualEdit(
        needed=("liba.so", "libanswer.so", "libc.so.6"),
        soname="libnew.so",
        executable_stack=True,
        no_default_lib=True,
        renamed_symbols=(("answer", "reply"), ("use", "employ")),
        unversioned_symbols=("answer",),
    )
    path = patched(library, tmp_path / "patched.so", ElfEdit(PATH, manual=manual))

    (text,) = findings_in(path, library)

    assert text.startswith("note: was edited with nixpatch elf, too")


def test_a_linkage_that_is_not_what_provenance_says(workshop: Workshop, tmp_path: Path) -> None:
    library = workshop.library(*RICH)
    path = patched(library, tmp_path / "patched.so")

    (text,) = findings_in(path, library, search_path="/declared")

    assert f"its DT_RUNPATH was '/declared' and is '{PATH}'" in text


def test_without_an_original_the_readers_are_compared_all_the_same(
    workshop: Workshop, tmp_path: Path
) -> None:
    """As LIEF writes a file, or as strip leaves it."""
    library = workshop.library(*RICH)
    path = shutil.copy(library, tmp_path / "copy.so")

    done, findings = reread({str(path): provenance(library)}, "/tree", 1)

    assert findings == ()
    assert (done.files, done.originals) == (1, 0)


def test_files_that_are_gone_or_no_elf_are_left_to_the_others(workshop: Workshop, tmp_path: Path) -> None:
    library = workshop.library(*RICH)
    (tmp_path / "text").write_text("no ELF")
    entry = provenance(library)

    done, findings = reread({str(tmp_path / "text"): entry, str(tmp_path / "gone"): entry}, "/tree", 1)

    assert done.files == 1
    assert {finding.severity for finding in findings} == {"note"}


# What a byte more or less comes to. The flips are made offset_of they stand in the patched file.


def string_at(name: bytes) -> Callable[[str], int]:
    def offset(path: str) -> int:
        headers = read_headers(path)
        table = content(path)[headers.string_offset : headers.string_offset + headers.string_size]
        return headers.string_offset + table.index(b"\0" + name + b"\0") + 2

    return offset


def at_tag(tag: int, more: int) -> Callable[[str], int]:
    """Behind the address that a dynamic entry holds."""

    def offset(path: str) -> int:
        headers = read_headers(path)
        offset = headers.file_offset(headers.values[tag])
        assert offset is not None
        return offset + more

    return offset


def value_of(tag: int) -> Callable[[str], int]:
    """In a dynamic entry itself."""

    def offset(path: str) -> int:
        headers = read_headers(path)
        index = next(index for index, entry in enumerate(headers.live) if entry.tag == tag)
        return headers.dynamic_offset + 16 * index + 8

    return offset


def in_note(more: int) -> Callable[[str], int]:
    return lambda path: (
        next(p.offset for p in read_headers(path).phdrs if p.type == 4 and p.align == 4) + more
    )


def flipped(path: str, offset_of: Callable[[str], int], bit: int = 1) -> None:
    offset = offset_of(path)
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ bit]))


FLIPS: dict[str, tuple[Callable[[str], int], str]] = {
    "name of DT_SONAME": (string_at(b"libuse.so"), "its DT_SONAME was 'libuse.so' and is 'lhbuse.so'"),
    "name of a version": (string_at(b"ANSWER_1"), "its version need 0, versions 0, name was 'ANSWER_1'"),
    "name of a symbol": (string_at(b"use"), "its dynamic symbol 0 to"),
    ".dynsym": (at_tag(6, 24 + 5), "its dynamic symbol 0 to"),
    ".gnu.version": (at_tag(0x6FFFFFF0, 4), "its DT_VERSYM 0 to"),
    "verneed": (at_tag(0x6FFFFFFE, 16), "its version need 0, versions 0, hash was"),
    "note": (in_note(16), "its note 0, digest was"),
}


@pytest.mark.parametrize("kind", FLIPS)
def test_what_changed_is_named_with_all_who_read_it(workshop: Workshop, tmp_path: Path, kind: str) -> None:
    library = workshop.library(*LIBRARIES["rich"])
    path = patched(library, tmp_path / "patched.so")
    offset_of, message = FLIPS[kind]
    flipped(path, offset_of)

    findings = judged(path, library)

    assert [finding.severity for finding in findings] == ["error"]
    assert message in findings[0].text
    assert "(read by nixpatch, pyelftools, LIEF)" in findings[0].text


def judged(path: str, original: str) -> list[Finding]:
    """Hold a file against the true original, which a file that is damaged cannot give."""
    descriptors = [os.open(path, os.O_RDONLY), os.open(original, os.O_RDONLY)]
    try:
        descriptions = [own.describe(fd) for fd in descriptors]
        readings = [Reading("nixpatch", *descriptions)]
        files = [
            OpenFile(fd, description.symbols.count)
            for fd, description in zip(descriptors, descriptions, strict=True)
            if description.symbols
        ]
        readings += [Reading(reader.name, *describe_all(reader, files)) for reader in OTHERS]
    finally:
        for fd in descriptors:
            os.close(fd)
    growth = os.path.getsize(path) - os.path.getsize(original)
    return list(judge(path, readings, Linkage(PATH, Tag.RUNPATH, None), growth))


@pytest.mark.parametrize("kind", [".dynsym", ".gnu.version", "verneed", "note"])
def test_what_the_original_shares_with_the_file_is_noticed_by_its_digest(
    workshop: Workshop, tmp_path: Path, kind: str
) -> None:
    library = workshop.library(*LIBRARIES["rich"])
    path = patched(library, tmp_path / "patched.so")
    flipped(path, FLIPS[kind][0])

    (text,) = findings_in(path, library)

    assert text.startswith("error: nixpatch cannot restore its original: what its undo record gives")


@pytest.mark.parametrize("kind", ["name of DT_SONAME", "name of a version", "name of a symbol"])
def test_what_stands_in_the_new_string_table_is_held_against_the_old_one(
    workshop: Workshop, tmp_path: Path, kind: str
) -> None:
    """Its checksum does not cover it, and the original comes out right."""
    library = workshop.library(*LIBRARIES["rich"])
    path = patched(library, tmp_path / "patched.so")
    offset_of, message = FLIPS[kind]
    flipped(path, offset_of)

    (text,) = findings_in(path, library)

    assert message in text
    assert "which the patch does not explain (read by nixpatch, pyelftools" in text


def test_another_original_than_provenance_names(workshop: Workshop, tmp_path: Path) -> None:
    library = workshop.library(*RICH)
    path = patched(library, tmp_path / "patched.so")

    (text,) = findings_in(path, library, original="sha256=00")

    assert text == ("error: nixpatch cannot restore its original: it is not the file that provenance names")


def section_field(kind: int, field: int) -> Callable[[str], int]:
    def offset(path: str) -> int:
        headers = read_headers(path)
        index = next(index for index, section in enumerate(headers.shdrs) if section.type == kind)
        return headers.ehdr.shoff + 64 * index + field

    return offset


def less(path: str, offset_of: Callable[[str], int], by: int) -> None:
    """Take something off a number of 64 bits."""
    offset = offset_of(path)
    with open(path, "r+b") as file:
        file.seek(offset)
        (number,) = struct.unpack("<Q", file.read(8))
        file.seek(offset)
        file.write(struct.pack("<Q", number - by))


SIZE_OF_DYNSYM = section_field(11, 0x20)
DISAGREEMENTS: dict[str, tuple[Callable[[str], int], int, str]] = {
    "DT_RELASZ": (value_of(8), 24, "its number of relocations"),
    "size of .dynsym": (SIZE_OF_DYNSYM, 24, "its number of dynamic symbols"),
    "count of .gnu.version_r": (section_field(0x6FFFFFFE, 0x2C), 1, "its number of version needs"),
}


@pytest.mark.parametrize("kind", DISAGREEMENTS)
def test_readers_that_go_by_other_headers_disagree(workshop: Workshop, tmp_path: Path, kind: str) -> None:
    """The dynamic section says one thing, the section headers say another."""
    library = workshop.library(*LIBRARIES["rich"])
    path = patched(library, tmp_path / "patched.so")
    offset_of, by, message = DISAGREEMENTS[kind]
    less(path, offset_of, by)

    texts = findings_in(path, library)

    assert any(
        re.match(f"error: pyelftools [0-9.]+ and nixpatch disagree on {message}", text) for text in texts
    )
    assert not any("LIEF" in text for text in texts)


def test_a_disagreement_on_the_original_too_is_a_note(workshop: Workshop, tmp_path: Path) -> None:
    """A reader that misreads what the file's maker made says nothing about the patch."""
    library = workshop.library(*LIBRARIES["rich"])
    damaged = str(shutil.copy(library, tmp_path / "damaged.so"))
    less(damaged, SIZE_OF_DYNSYM, 24)
    path = patched(damaged, tmp_path / "patched.so")

    texts = findings_in(path, damaged)

    assert texts
    assert all(text.startswith("note: pyelftools") and "so they do on the original" in text for text in texts)


# Readers that fail: a package of ours takes LIEF's place.

FAKE = """
import os, time
__version__ = "9.9.9-fake"
class logging:
    disable = staticmethod(lambda: None)
class ELF:
    class ParserConfig:
        pass
    @staticmethod
    def parse(path, config):
        {code}
"""


def fake(directory: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = directory / "fake" / "lief"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(source, encoding="utf-8")
    real = child_process.package_directory

    def directory_of(name: str, called: str) -> str:
        return str(package.parent) if name == "lief" else real(name, called)

    monkeypatch.setattr(others, "package_directory", directory_of)


def test_lief_is_not_installed(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = child_process.package_directory

    def directory_of(name: str, called: str) -> str:
        if name == "lief":
            raise FileRefused("LIEF is not installed")
        return real(name, called)

    monkeypatch.setattr(others, "package_directory", directory_of)
    library = workshop.library(*RICH)
    path = patched(library, tmp_path / "patched.so")

    done, findings = reread({path: provenance(library)}, "/tree", 1)

    assert findings == (Finding("note", "/tree", "LIEF is not installed: it did not read the files again"),)
    assert [name.split(" ")[0] for name in done.readers] == ["nixpatch", "pyelftools"]


def test_lief_cannot_be_imported(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "raise ImportError('libstdc++.so.6: no such file')", monkeypatch)
    library = workshop.library(*RICH)
    path = patched(library, tmp_path / "patched.so")

    done, (finding,) = reread({path: provenance(library)}, "/tree", 1)

    assert (finding.severity, finding.path) == ("note", "/tree")
    assert finding.text.startswith("LIEF cannot be imported here (libstdc++.so.6: no such file)")
    assert done.originals == 1


CODES = {
    "abort": ("os.abort()", "died of SIGABRT"),
    "crash": ("import ctypes; ctypes.string_at(0)", "died of SIGSEGV"),
    "hang": ("time.sleep(60)", "was not done after 1 second"),
    "memory": ("bytearray(1 << 34)", "ran out of the memory"),
    "exit": ("os._exit(0)", "ended without an answer"),
    "flood": ("while True: os.write(1, b'[' * 65536)", "prints more than"),
    "errors": ("while True: os.write(2, b'oh' * 65536)", "prints more than"),
    "nonsense": ("os.write(1, b'[1]\\n')", "gave an answer that is no JSON object"),
    "no description": ("os.write(1, b'{\"description\": {}}\\n')", "gave an answer that is no description"),
}


@pytest.mark.parametrize("kind", CODES)
def test_whatever_lief_does_is_a_note_about_lief(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    code, message = CODES[kind]
    fake(tmp_path, FAKE.format(code=code), monkeypatch)
    if kind == "hang":
        monkeypatch.setattr(child_process, "SECONDS", 1)
    library = workshop.library(*RICH)
    path = patched(library, tmp_path / "patched.so")

    done, findings = reread({path: provenance(library)}, "/tree", 1)

    assert done.readers[-1] == "LIEF 9.9.9"
    assert {finding.severity for finding in findings} == {"note"}
    assert message in findings[0].text
    assert "LIEF 9.9.9" in findings[0].text


def test_a_file_that_kills_the_reader_does_not_keep_it_from_the_others(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        with open(path, "rb") as file:
            if b"-DWITH_KILLER" in file.read():
                os.abort()
        raise ValueError("not tried")
    """
    fake(tmp_path, FAKE.format(code=textwrap.dedent(code).strip().replace("\n", "\n        ")), monkeypatch)
    library = workshop.library(*RICH)
    killer = patched_bytes(library, str(tmp_path / "a.so"), lambda data: data.extend(b"-DWITH_KILLER"))
    descriptors = [os.open(path, os.O_RDONLY) for path in (library, killer, library)]

    answers = list(describe_all(OTHERS[1], [OpenFile(fd, None) for fd in descriptors]))

    for fd in descriptors:
        os.close(fd)
    assert [isinstance(answer, Unread) and answer.blames_file for answer in answers] == [True, False, True]


def test_a_reader_that_always_fails_is_given_up(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, FAKE.format(code="os.abort()"), monkeypatch)
    fd = os.open(workshop.library(*RICH), os.O_RDONLY)

    answers = list(describe_all(OTHERS[1], [OpenFile(fd, None)] * 9))

    os.close(fd)
    assert [isinstance(answer, Unread) and answer.blames_file for answer in answers] == [False] * 9
    assert isinstance(answers[8], Unread)
    assert answers[8].reason == "LIEF failed 3 times and was given up"


def test_a_file_that_lief_cannot_parse(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, FAKE.format(code="return None"), monkeypatch)
    library = workshop.library(*RICH)
    path = patched(library, tmp_path / "patched.so")

    assert findings_in(path, library) == ["note: LIEF 9.9.9 cannot read it: ValueError: it is no ELF file"]


def test_a_file_that_only_its_original_can_be_read_of(workshop: Workshop) -> None:
    library = workshop.library(*RICH)
    fd = os.open(library, os.O_RDONLY)
    description = own.describe(fd)
    os.close(fd)
    readings = [
        Reading("nixpatch", description, None),
        Reading("pyelftools", Unread("ELFParseError: no"), description),
    ]

    findings = list(judge(library, readings, Linkage(None, None, None), 0))

    assert texts_of(tuple(findings)) == [
        "error: pyelftools cannot read it, but can read the original: ELFParseError: no"
    ]


def test_several_processes_say_what_one_says(workshop: Workshop, tmp_path: Path) -> None:
    library = workshop.library(*LIBRARIES["rich"])
    files = {}
    for number in range(40):
        path = patched(library, tmp_path / f"{number:02}.so")
        files[path] = provenance(library, search_path="/other" if number == 35 else PATH)

    one, several = reread(files, "/tree", 1), reread(files, "/tree", 2)

    assert one == several
    assert one[0].originals == 40
    assert [finding.path for finding in one[1]] == [str(tmp_path / "35.so")]


def test_a_run_without_it_imports_nothing_of_it() -> None:
    code = """
        import sys, nixpatch.__main__, nixpatch.cli.app, nixpatch.operations.verify
        nixpatch.cli.app.command_line()
        names = ("nixpatch.operations.verify_deep", "nixpatch.elf.readers", "nixpatch.model.elf_description",
                 "elftools", "lief")
        print([name for name in names if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"
