"""Sound files that cannot be edited safely are refused, each with its reason, before anything is written."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nixpatch.elf import read
from nixpatch.elf import structs as elf
from nixpatch.elf.headers import Headers, parse
from nixpatch.elf.image import Image
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, ElfFacts
from support.programs import RICH, Workshop, content, edit_file, obstacle, patched_bytes, restore_file, run

pytestmark = pytest.mark.gcc


def headers_of(path: str) -> Headers:
    fd = os.open(path, os.O_RDONLY)
    try:
        return parse(Image.of(fd))
    finally:
        os.close(fd)


def with_phdrs(source: str, to: str, change: Callable[[list[elf.Phdr]], None]) -> str:
    """A copy of a file with other program headers."""
    headers = headers_of(source)
    table = list(headers.phdrs)
    change(table)
    packed = b"".join(map(headers.layout.pack_phdr, table))

    def write(data: bytearray) -> None:
        data[headers.ehdr.phoff : headers.ehdr.phoff + len(packed)] = packed

    return patched_bytes(source, to, write)


def refused(path: str, to: str, reason: str) -> None:
    assert isinstance(read(path), ElfFacts)
    with pytest.raises(FileRefused, match=reason):
        edit_file(path, to, ElfEdit("/new"))


def last(table: list[elf.Phdr]) -> int:
    return max(i for i, p in enumerate(table) if p.type == elf.PT_LOAD)


def test_huge_bss(workshop: Workshop, tmp_path: Path) -> None:
    program = workshop.program("-DWITH_BSS=300000000")
    refused(program, os.path.join(tmp_path, "out"), "bss of 300")
    assert re.search("bss", obstacle(program) or "")


@pytest.mark.parametrize("flags", [(), ("-no-pie", "-fno-pie"), ("-fuse-ld=lld",)])
def test_loads_out_of_order(workshop: Workshop, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """The kernel maps such a program, and it runs before and after; nothing of the order changes."""

    def swap(table: list[elf.Phdr]) -> None:
        last = max(i for i, p in enumerate(table) if p.type == elf.PT_LOAD)
        table[last], table[last - 1] = table[last - 1], table[last]

    program = workshop.program(*RICH, f"-Wl,-rpath,{workshop.there}", *flags)
    swapped = with_phdrs(program, os.path.join(tmp_path, "swapped"), swap)
    assert obstacle(swapped) is None
    out, back = os.path.join(tmp_path, "out"), os.path.join(tmp_path, "back")
    edit_file(swapped, out, ElfEdit(f"/new:{workshop.there}"))
    assert run(out) == run(swapped) == "42 phdr"
    restore_file(out, back)
    assert content(back) == content(swapped)


def test_last_segment_that_cannot_be_read(workshop: Workshop, tmp_path: Path) -> None:
    def hide(table: list[elf.Phdr]) -> None:
        table[last(table)] = table[last(table)]._replace(flags=elf.PF_W)

    path = with_phdrs(workshop.library(*RICH), os.path.join(tmp_path, "hidden"), hide)
    refused(path, os.path.join(tmp_path, "out"), "not readable")


def test_no_segment_becomes_writable_and_executable(workshop: Workshop, tmp_path: Path) -> None:
    def code(table: list[elf.Phdr]) -> None:
        table[last(table)] = table[last(table)]._replace(flags=elf.PF_R | elf.PF_X)

    full = workshop.library(*RICH, "-Wl,--spare-dynamic-tags=0,-z,nocombreloc")
    path = with_phdrs(full, os.path.join(tmp_path, "code"), code)
    refused(path, os.path.join(tmp_path, "out"), "executable segment")


def test_last_segment_in_the_middle_of_the_file(workshop: Workshop, tmp_path: Path) -> None:
    def reach(table: list[elf.Phdr]) -> None:
        at = last(table)
        more = table[at].file_end + 8 - table[at - 1].offset
        table[at - 1] = table[at - 1]._replace(filesz=more, memsz=more)

    path = with_phdrs(workshop.library(*RICH), os.path.join(tmp_path, "reaching"), reach)
    refused(path, os.path.join(tmp_path, "out"), "not the last one in the file")


def test_what_can_be_edited_has_no_obstacle(workshop: Workshop, tmp_path: Path) -> None:
    out = os.path.join(tmp_path, "out")
    edit_file(workshop.library(*RICH), out, ElfEdit("/new"))
    assert obstacle(workshop.library(*RICH)) is None
    assert obstacle(out) is None
    assert "not an ELF file" in (obstacle(workshop.source("use.c")) or "")
