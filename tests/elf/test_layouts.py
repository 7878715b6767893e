"""Layouts that other tools were seen to break: huge tables, notes, headers that no segment maps."""

import os
import subprocess
from pathlib import Path

import pytest

from nixpatch.elf import read
from nixpatch.elf import structs as elf
from nixpatch.model import ElfEdit, ElfFacts
from support.programs import RICH, Workshop, content, edit_file, load, need, read_headers, restore_file, run

pytestmark = pytest.mark.gcc


def test_more_than_a_thousand_dynamic_entries(workshop: Workshop, tmp_path: Path) -> None:
    many = [f"-Wl,-f,libnot-there-{number}.so" for number in range(1100)]
    library = workshop.library(*RICH, *many)
    assert len(read_headers(library).live) > 1100
    before = read(library)
    out, back = os.path.join(tmp_path, "out"), os.path.join(tmp_path, "back")
    edit_file(library, out, ElfEdit(workshop.there))
    after = read(out)
    assert isinstance(before, ElfFacts)
    assert isinstance(after, ElfFacts)
    assert after.needed == before.needed != ()
    assert load(out) == "42"
    restore_file(out, back)
    assert content(back) == content(library)


def test_more_than_three_million_relocations(workshop: Workshop, tmp_path: Path) -> None:
    source = os.path.join(tmp_path, "many.s")
    Path(source).write_text(
        '.section .data.rel,"aw"\n.align 8\nfirst:\n.rept 3100000\n.quad first\n.endr\n'
        '.section .note.GNU-stack,"",@progbits\n'
    )
    library = workshop.gcc("libuse.so", "-shared", "-fPIC", workshop.source("use.c"), source, workshop.answer)
    out = os.path.join(tmp_path, "out")
    edit_file(library, out, ElfEdit(workshop.there))
    assert load(out) == "42"


def notes(path: str) -> str:
    done = subprocess.run([need("readelf"), "-nW", path], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("flags", [(), ("-Wl,--spare-dynamic-tags=1",), ("-no-pie", "-fno-pie")])
def test_notes_stay_what_and_where_they_are(
    workshop: Workshop, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    program = workshop.program(*RICH, "-fcf-protection=full", "-Wl,--build-id=sha1", *flags)
    out = os.path.join(tmp_path, "out")
    edit_file(program, out, ElfEdit(workshop.there, interp="/" + "i" * 300))
    assert "Build ID" in notes(program)
    assert notes(out).replace(out, "") == notes(program).replace(program, "")
    kinds = {elf.PT_NOTE, 0x6474E553}  # PT_GNU_PROPERTY
    before, after = ([p for p in read_headers(path).phdrs if p.type in kinds] for path in (program, out))
    assert before == after != []


def test_headers_that_lie_in_no_segment(workshop: Workshop, tmp_path: Path) -> None:
    script = f"-Wl,-T,{workshop.source('headers_outside.ld')}"
    library = workshop.library("-nostdlib", script, "-DWITH_BSS=9000", "-DWITH_DATA", "-lc")
    headers = read_headers(library)
    assert min(p.offset for p in headers.loads) >= headers.ehdr.phoff + len(headers.phdr_bytes)
    out = os.path.join(tmp_path, "out")
    edit_file(library, out, ElfEdit(workshop.there))
    assert load(out) == "42"


def test_program_headers_are_where_the_kernel_says_they_are(workshop: Workshop, tmp_path: Path) -> None:
    """AT_PHDR is the place of PT_PHDR on new kernels, and load address plus e_phoff on old ones."""
    for index, flags in enumerate([(), ("-no-pie", "-fno-pie"), ("-fuse-ld=lld", "-no-pie", "-fno-pie")]):
        if "-fuse-ld=lld" in flags:
            need("ld.lld")
        program = workshop.program(*RICH, *flags)
        out = os.path.join(tmp_path, str(index))
        edit_file(program, out, ElfEdit(workshop.there))
        assert run(out) == "42 phdr"
        headers = read_headers(out)
        table = next(p for p in headers.phdrs if p.type == elf.PT_PHDR)
        assert table.offset == headers.ehdr.phoff
        assert headers.file_offset(table.vaddr, table.filesz) == table.offset
