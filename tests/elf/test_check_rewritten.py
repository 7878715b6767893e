"""Each check of a rewritten file fires: a good one is damaged in one place at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nixpatch.elf import structs as elf
from nixpatch.elf.check_rewritten import check_rewritten
from nixpatch.elf.headers import Headers, parse
from nixpatch.elf.image import Image
from nixpatch.elf.structs import Phdr, Shdr
from nixpatch.elf.writer import write_checked
from nixpatch.model import ElfEdit, Writer
from support.programs import RICH, Workshop

pytestmark = pytest.mark.gcc

EDIT = ElfEdit("/new/search/path", interp="/a/longer/interpreter/than/the/one/that/was/there/before/ld.so")


def flip(fd: int, offset: int) -> None:
    os.pwrite(fd, bytes([os.pread(fd, 1, offset)[0] ^ 1]), offset)


def phdr(fd: int, headers: Headers, index: int, **fields: int) -> None:
    at = headers.ehdr.phoff + index * headers.layout.phdr.size
    os.pwrite(fd, headers.layout.pack_phdr(headers.phdrs[index]._replace(**fields)), at)


def first(headers: Headers, test: Callable[[Phdr], object]) -> int:
    return next(i for i, p in enumerate(headers.phdrs) if test(p))


def shdr(fd: int, headers: Headers, test: Callable[[Shdr], object], **fields: int) -> None:
    index = next(i for i, s in enumerate(headers.shdrs) if test(s))
    at = headers.ehdr.shoff + index * headers.layout.shdr.size
    os.pwrite(fd, headers.layout.pack_shdr(headers.shdrs[index]._replace(**fields)), at)


def dynamic(fd: int, headers: Headers, tag: int, value: int) -> None:
    index = next(i for i, entry in enumerate(headers.live) if entry.tag == tag)
    size = headers.layout.dyn.size
    os.pwrite(fd, headers.layout.dyn.pack(tag, value), headers.dynamic_offset + index * size)


def text(fd: int, h: Headers) -> None:
    flip(fd, next(p for p in h.loads if p.flags & elf.PF_X).offset + 8)


def entry(fd: int, h: Headers) -> None:
    os.pwrite(fd, h.layout.pack_ehdr(h.ident, h.ehdr._replace(entry=h.ehdr.entry + 4)), 0)


def table_elsewhere(fd: int, h: Headers) -> None:
    end = os.fstat(fd).st_size
    os.pwrite(fd, h.phdr_bytes, end)
    os.pwrite(fd, h.layout.pack_ehdr(h.ident, h.ehdr._replace(phoff=end)), 0)


def pt_phdr(fd: int, h: Headers) -> None:
    index = first(h, lambda p: p.type == elf.PT_PHDR)
    phdr(fd, h, index, vaddr=h.phdrs[index].vaddr + 8)


def relro(fd: int, h: Headers) -> None:
    index = first(h, lambda p: p.type == elf.PT_GNU_RELRO)
    phdr(fd, h, index, memsz=h.phdrs[index].memsz + 4096)


def tls(fd: int, h: Headers) -> None:
    phdr(fd, h, first(h, lambda p: p.type == elf.PT_TLS), align=64)


def stack(fd: int, h: Headers) -> None:
    phdr(fd, h, first(h, lambda p: p.type == 0x6474E551), flags=7)


def note_elsewhere(fd: int, h: Headers) -> None:
    index = first(h, lambda p: p.type == elf.PT_NOTE)
    phdr(fd, h, index, offset=h.phdrs[index].offset + 4)


def executable(fd: int, h: Headers) -> None:
    phdr(fd, h, first(h, lambda p: p is h.last_load), flags=5)


def writable_text(fd: int, h: Headers) -> None:
    phdr(fd, h, first(h, lambda p: p.type == elf.PT_LOAD and p.flags & elf.PF_X), flags=7)


def shared_page(fd: int, h: Headers) -> None:
    phdr(fd, h, first(h, lambda p: p is h.last_load), vaddr=h.loads[-2].memory_end // 16 * 16 + 16)


def not_congruent(fd: int, h: Headers) -> None:
    phdr(fd, h, first(h, lambda p: p is h.last_load), offset=h.last_load.offset + 16)


def smaller_bss(fd: int, h: Headers) -> None:
    index = first(h, lambda p: p.type == elf.PT_LOAD and p.memsz > p.filesz)
    phdr(fd, h, index, memsz=h.phdrs[index].memsz - 64)


def needed(fd: int, h: Headers) -> None:
    dynamic(fd, h, elf.DT_NEEDED, h.values[elf.DT_NEEDED] + 1)


def rpath_instead(fd: int, h: Headers) -> None:
    index = next(i for i, e in enumerate(h.live) if e.tag == elf.DT_RUNPATH)
    packed = h.layout.dyn.pack(elf.DT_RPATH, h.live[index].value)
    os.pwrite(fd, packed, h.dynamic_offset + index * h.layout.dyn.size)


def other_path(fd: int, h: Headers) -> None:
    flip(fd, h.string_offset + h.values[elf.DT_RUNPATH] + 1)


def other_interp(fd: int, h: Headers) -> None:
    assert h.interp_segment
    flip(fd, h.interp_segment.offset + 1)


def string(fd: int, h: Headers) -> None:
    flip(fd, h.string_offset + 3)


def bss_section(fd: int, h: Headers) -> None:
    shdr(fd, h, lambda s: s.type == elf.SHT_NOBITS and not s.flags & elf.SHF_TLS, addr=0x100000)


def symbol_section(fd: int, h: Headers) -> None:
    flip(fd, next(s for s in h.shdrs if s.type == 2).offset + 30)


def section_names(fd: int, h: Headers) -> None:
    flip(fd, h.shdrs[h.ehdr.shstrndx].offset + 1)


def link(fd: int, h: Headers) -> None:
    shdr(fd, h, lambda s: s.type == 2, link=1)


def overlay(fd: int, h: Headers) -> None:
    flip(fd, os.fstat(fd).st_size - 1)


def cut_short(fd: int, h: Headers) -> None:
    os.ftruncate(fd, h.last_load.offset)


DAMAGES: dict[Callable[[int, Headers], None], str] = {
    text: "memory differs",
    entry: "ELF header",
    table_elsewhere: "in no PT_LOAD",
    pt_phdr: "PT_PHDR",
    relro: "program header other than",
    tls: "program header other than",
    stack: "program header other than",
    note_elsewhere: "does not lead to the bytes",
    executable: "is executable",
    writable_text: "no longer what it was",
    shared_page: "PT_LOAD",
    not_congruent: "modulo its alignment",
    smaller_bss: "no longer what it was",
    needed: "dynamic entry other than",
    rpath_instead: "search path is",
    other_path: "search path is",
    other_interp: "interpreter is",
    string: "string table",
    bss_section: "address, offset or size",
    symbol_section: "no longer has the bytes",
    section_names: "another name",
    link: "link, information",
    overlay: "appended data",
    cut_short: "",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_each_damage_is_found(
    workshop: Workshop, tmp_path: Path, damage: Callable[[int, Headers], None]
) -> None:
    original = str(tmp_path / "original")
    with open(workshop.program(*RICH, "-g"), "rb") as built, open(original, "wb") as copy:
        copy.write(built.read() + b"overlay" * 10)
    with open(original, "rb") as source, open(tmp_path / "out", "x+b") as out:
        write_checked(source.fileno(), out.fileno(), EDIT, writer=Writer.LIEF)
        assert check_rewritten(source.fileno(), out.fileno(), EDIT) == ()

        damage(out.fileno(), parse(Image.of(out.fileno())))

        found = check_rewritten(source.fileno(), out.fileno(), EDIT)
        assert any(DAMAGES[damage] in violation for violation in found), found
