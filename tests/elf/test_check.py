"""Each invariant fires when something breaks it: a check that never fails proves nothing."""

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from nixpatch.elf import structs as elf
from nixpatch.elf.check_inplace import check
from nixpatch.elf.headers import Headers, parse
from nixpatch.elf.image import Image
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, Tag
from support.programs import RICH, Workshop, content, edit_file, patched_bytes

pytestmark = pytest.mark.gcc

EDIT = ElfEdit("/new/path:/another", Tag.RUNPATH, "/interp/" + "x" * 100)
Change = Callable[[bytearray, Headers], None]


def headers_of(path: str) -> Headers:
    fd = os.open(path, os.O_RDONLY)
    try:
        return parse(Image.of(fd))
    finally:
        os.close(fd)


def phdr(index: int | str, **fields: int) -> Change:
    """Change fields of a program header: by index, or the last of a type."""

    def change(data: bytearray, headers: Headers) -> None:
        at = index if isinstance(index, int) else find(headers, index)
        new = headers.layout.pack_phdr(headers.phdrs[at]._replace(**fields))
        start = headers.ehdr.phoff + at * len(new)
        data[start : start + len(new)] = new

    return change


def find(headers: Headers, kind: str) -> int:
    types = {"load": elf.PT_LOAD, "dynamic": elf.PT_DYNAMIC, "interp": elf.PT_INTERP, "tls": elf.PT_TLS}
    return max(i for i, p in enumerate(headers.phdrs) if p.type == types[kind])


def shdr(which: Callable[[Headers, int], bool], **fields: int) -> Change:
    def change(data: bytearray, headers: Headers) -> None:
        at = next(i for i in range(len(headers.shdrs)) if which(headers, i))
        new = headers.layout.pack_shdr(headers.shdrs[at]._replace(**fields))
        start = headers.ehdr.shoff + at * len(new)
        data[start : start + len(new)] = new

    return change


def dynamic(tag: int, value: int | None = None, *, becomes: int | None = None) -> Change:
    """Change the first entry with a tag."""

    def change(data: bytearray, headers: Headers) -> None:
        at = next(i for i, entry in enumerate(headers.dynamic) if entry.tag == tag)
        old = headers.dynamic[at]
        start = headers.dynamic_offset + 16 * at
        new = (tag if becomes is None else becomes, old.value if value is None else value)
        data[start : start + 16] = struct.pack("<QQ", *new)

    return change


def text(old: bytes, new: bytes) -> Change:
    """Overwrite the last occurrence of a text: the one in the new string table."""

    def change(data: bytearray, headers: Headers) -> None:
        end = headers.last_load.file_end
        at = data.rindex(old, 0, end)
        data[at : at + len(new)] = new

    return change


def byte_at(where: Callable[[Headers], int]) -> Change:
    def change(data: bytearray, headers: Headers) -> None:
        data[where(headers)] ^= 0xFF

    return change


def is_dynstr(headers: Headers, index: int) -> bool:
    return headers.shdrs[index].addr == headers.values[elf.DT_STRTAB]


def is_comment(headers: Headers, index: int) -> bool:
    section = headers.shdrs[index]
    return section.type == elf.SHT_PROGBITS and not section.flags & elf.SHF_ALLOC


def is_bss(headers: Headers, index: int) -> bool:
    section = headers.shdrs[index]
    return section.type == elf.SHT_NOBITS and not section.flags & elf.SHF_TLS


def bss_byte(headers: Headers) -> int:
    """The .bss is zeros in the file now; its section header says where."""
    return next(s.offset for i, s in enumerate(headers.shdrs) if is_bss(headers, i))


def full_dynamic(data: bytearray, headers: Headers) -> None:
    """Overwrite every DT_NULL."""
    for at in range(headers.dynamic_offset, headers.dynamic_offset + headers.dynamic_segment.filesz, 16):
        if data[at : at + 8] == bytes(8):
            data[at] = 0x15


def lead(data: bytearray, headers: Headers) -> None:
    data.extend(b"?")


BROKEN: dict[str, tuple[Change, str]] = {
    "entry point": (byte_at(lambda _: 0x18), "ELF header"),
    "number of program headers": (byte_at(lambda _: 0x38), "cannot be read|number and order"),
    "type of a program header": (phdr("tls", type=0x12345), "number and order"),
    "tls size": (phdr("tls", memsz=1), "program header .* changed"),
    "executable data": (phdr("load", flags=7), "program header .* changed"),
    "load moved": (phdr("load", paddr=5), "program header .* changed"),
    "loads not ascending": (phdr(2, vaddr=0x900000), "ascending"),
    "incongruent": (phdr(2, offset=0x10), "modulo"),
    "first load shares a page": (phdr(2, memsz=0x1800), "shares a page"),
    "load beyond the end": (phdr("load", filesz=1 << 30, memsz=1 << 30), "cannot be read"),
    "dynamic not writable": (phdr("load", flags=4), "no writable"),
    "address outside": (dynamic(elf.DT_VERNEED, 1 << 40), "DT_VERNEED points outside"),
    "symbol table moved": (dynamic(6, 0), "dynamic entry"),
    "sections lost": (byte_at(lambda _: 0x3C), "number of sections|cannot be read"),
    "section renamed": (shdr(is_comment, name=1), "name, type"),
    "section elsewhere": (shdr(is_comment, offset=0), "does not point"),
    "string section wrong": (shdr(is_dynstr, size=1), "address, offset or size"),
    "bss section wrong": (shdr(is_bss, offset=1), "address, offset or size"),
    "search path": (text(b"/new/path:", b"/bad/path:"), "the search path is"),
    "tag": (dynamic(elf.DT_RUNPATH, becomes=elf.DT_RPATH), "exactly one"),
    "path entry lost": (dynamic(elf.DT_RUNPATH, becomes=0x6FFFFDFF), "the search path is None"),
    "interpreter": (text(b"/interp/", b"/INTERP/"), "the interpreter is"),
    "interpreter misplaced": (phdr("interp", memsz=1), "program header .* changed"),
    "needed": (text(b"libanswer.so\0", b"libAnswer.so\0"), "DT_NEEDED changed"),
    "version needs": (text(b"ANSWER_1\0", b"ANSWER_3\0"), "version needs"),
    "string table": (text(b"dl_iterate_phdr\0", b"dl_iterate_PHDR\0"), "string table"),
    "needed entry lost": (dynamic(elf.DT_NEEDED, becomes=0x6FFFFDFF), "dynamic entry"),
    "no end": (full_dynamic, "DT_NULL"),
    "first byte of code": (byte_at(lambda h: h.loads[1].offset), "content of the PT_LOAD"),
    "bss not zero": (byte_at(bss_byte), "not zero"),
    "behind the segments": (byte_at(lambda h: h.shdrs[-1].offset), "behind the segments"),
    "undo record": (byte_at(lambda h: h.last_load.file_end - 2), "undo record cannot"),
    "undo digest": (byte_at(lambda h: h.last_load.file_end - 20), "undo record cannot"),
    "left behind": (byte_at(lambda h: h.loads[0].file_end - 1), "undo record|content"),
    "appended": (lead, "."),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("deep", [False, True])
def test_broken_output_is_found(workshop: Workshop, tmp_path: Path, name: str, deep: bool) -> None:
    change, message = BROKEN[name]
    source = workshop.program(*RICH)
    out, broken = os.path.join(tmp_path, "out"), os.path.join(tmp_path, "broken")
    edit_file(source, out, EDIT)
    patched_bytes(out, broken, lambda data: change(data, headers_of(out)))
    assert content(out) != content(broken)
    found = check(source, broken, EDIT, deep=deep)
    assert any(re.search(message, violation) for violation in found), found


@pytest.mark.parametrize("deep", [False, True])
def test_byte_in_the_middle_takes_a_deep_look(workshop: Workshop, tmp_path: Path, deep: bool) -> None:
    source = workshop.program("-DWITH_BSS=100000")
    out, broken = os.path.join(tmp_path, "out"), os.path.join(tmp_path, "broken")
    edit_file(source, out, EDIT)

    def change(data: bytearray) -> None:
        data[headers_of(out).last_load.file_end - 50_000] = 1

    patched_bytes(out, broken, change)
    assert bool(check(source, broken, EDIT, deep=deep)) is deep


def test_overlay_has_to_stay_last(workshop: Workshop, tmp_path: Path) -> None:
    source = patched_bytes(
        workshop.library(), os.path.join(tmp_path, "s"), lambda data: data.extend(b"over" * 9)
    )
    out = os.path.join(tmp_path, "out")
    edit_file(source, out, ElfEdit("/new"))
    broken = patched_bytes(out, os.path.join(tmp_path, "broken"), lambda data: data.__setitem__(-1, 0))
    assert any("behind the segments" in violation for violation in check(source, broken, ElfEdit("/new")))
    longer = patched_bytes(out, os.path.join(tmp_path, "longer"), lambda data: data.extend(b"x"))
    assert any("last thing" in violation for violation in check(source, longer, ElfEdit("/new")))


def test_nothing_wished_but_changed(workshop: Workshop, tmp_path: Path) -> None:
    out = os.path.join(tmp_path, "out")
    edit_file(workshop.library(), out, ElfEdit("/new"))
    assert check(workshop.library(), out, ElfEdit(None)) != ()


def test_entry_that_should_have_gone(workshop: Workshop, tmp_path: Path) -> None:
    source = workshop.library("-Wl,-rpath,/old")
    out = os.path.join(tmp_path, "out")
    edit_file(source, out, ElfEdit("/new"))
    assert any("is left" in violation for violation in check(source, out, ElfEdit("")))


def test_output_of_another_original(workshop: Workshop, tmp_path: Path) -> None:
    out = os.path.join(tmp_path, "out")
    edit_file(workshop.library(), out, ElfEdit("/new"))
    assert check(workshop.library(*RICH), out, ElfEdit("/new")) != ()


def test_garbage(workshop: Workshop, tmp_path: Path) -> None:
    path = os.path.join(tmp_path, "garbage")
    Path(path).write_bytes(b"garbage")
    assert "cannot be read" in check(workshop.library(), path, ElfEdit("/new"))[0]
    with pytest.raises(FileRefused):
        check(path, workshop.library(), ElfEdit("/new"))
