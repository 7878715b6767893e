"""Structures of the gABI by class and byte order, and their named constants.

Sources: System V gABI, chapters 4 and 5 (https://www.sco.com/developers/gabi/latest/contents.html); LSB core
specification, "Symbol Versioning", for verneed and verdef. GNU extensions have GNU in their names.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

EI_CLASS, EI_DATA, EI_VERSION, EI_OSABI, EI_ABIVERSION, EI_PAD, EI_NIDENT = 4, 5, 6, 7, 8, 9, 16
EV_CURRENT = 1
OSABI_SYSV, OSABI_GNU = 0, 3
LINUX_OSABIS: Final = frozenset({OSABI_SYSV, OSABI_GNU})
"""values of EI_OSABI that ld.so accepts (open_verify in elf/dl-load.c of glibc)"""

ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
PN_XNUM: Final = 0xFFFF

PT_NULL, PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE, PT_PHDR, PT_TLS = 0, 1, 2, 3, 4, 6, 7
PT_GNU_STACK, PT_GNU_RELRO = 0x6474E551, 0x6474E552
STACK_ALIGN: Final = 16
"""p_align of the PT_GNU_STACK that linkers write"""
PF_X, PF_W, PF_R = 1, 2, 4

SHT_NULL, SHT_PROGBITS, SHT_STRTAB, SHT_DYNAMIC, SHT_NOTE, SHT_NOBITS, SHT_DYNSYM = 0, 1, 3, 6, 7, 8, 11
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_TLS = 0x1, 0x2, 0x4, 0x400

DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_SONAME, DT_RPATH, DT_RUNPATH = 0, 1, 5, 10, 14, 15, 29
DT_CONFIG, DT_DEPAUDIT, DT_AUDIT = 0x6FFFFEFA, 0x6FFFFEFB, 0x6FFFFEFC
DT_AUXILIARY, DT_FILTER = 0x7FFFFFFD, 0x7FFFFFFF
DT_HASH, DT_SYMTAB, DT_GNU_HASH, DT_VERSYM = 4, 6, 0x6FFFFEF5, 0x6FFFFFF0
DT_RELA, DT_RELASZ, DT_REL, DT_RELSZ, DT_DEBUG = 7, 8, 17, 18, 21
DT_PLTRELSZ, DT_PLTREL, DT_JMPREL = 2, 20, 23
DT_RELACOUNT, DT_RELCOUNT, DT_FLAGS_1 = 0x6FFFFFF9, 0x6FFFFFFA, 0x6FFFFFFB
DT_VERDEF, DT_VERDEFNUM, DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
DF_1_NODEFLIB, DF_1_PIE = 0x800, 0x08000000
VER_FLG_BASE: Final = 1

STRING_TAGS: Final = frozenset(
    {DT_NEEDED, DT_SONAME, DT_RPATH, DT_RUNPATH, DT_CONFIG, DT_DEPAUDIT, DT_AUDIT, DT_AUXILIARY, DT_FILTER}
)
"""dynamic entries whose value is a string table offset"""

HINT_TAGS: Final = frozenset({DT_RELACOUNT, DT_RELCOUNT})
"""dynamic entries that no loader needs: the number of R_*_RELATIVE relocations at the start of a table

With the number, glibc handles these in a loop of their own; without it, in the loop for all types, in the
same order (elf/dynamic-link.h, elf/do-rel.h, dl-machine.h of each machine). musl does not read it, and
linkers leave it out with -z nocombreloc.
"""

PACKED_RELOCATION_TAGS: Final = frozenset({0x40000026, 0x6000000F, 0x60000011})
"""tags of relocations in other forms: DT_CREL (LLVM), DT_ANDROID_REL and DT_ANDROID_RELA (bionic)"""

SYMBOL_LIMIT: Final = 1 << 18
"""dynamic symbols to read; libtorch_cpu.so has 76,000, with 400 bytes of memory each"""
RELOCATION_LIMIT: Final = 64 << 20
"""bytes of one table of relocations to read"""

ADDRESS_TAGS: Final = {
    3: "DT_PLTGOT",
    DT_HASH: "DT_HASH",
    5: "DT_STRTAB",
    DT_SYMTAB: "DT_SYMTAB",
    7: "DT_RELA",
    12: "DT_INIT",
    13: "DT_FINI",
    17: "DT_REL",
    23: "DT_JMPREL",
    25: "DT_INIT_ARRAY",
    26: "DT_FINI_ARRAY",
    32: "DT_PREINIT_ARRAY",
    36: "DT_RELR",
    DT_GNU_HASH: "DT_GNU_HASH",
    DT_VERSYM: "DT_VERSYM",
    DT_VERDEF: "DT_VERDEF",
    DT_VERNEED: "DT_VERNEED",
}
"""dynamic entries whose value is an address (gABI figure 5-10 and the GNU ones)"""


def round_up(value: int, alignment: int) -> int:
    """Round up to a multiple of ``alignment`` (> 0). ``value`` may be negative."""
    return -(-value // alignment) * alignment


class Ehdr(NamedTuple):
    """ELF header, without ``e_ident``."""

    type: int
    machine: int
    version: int
    entry: int
    phoff: int
    shoff: int
    flags: int
    ehsize: int
    phentsize: int
    phnum: int
    shentsize: int
    shnum: int
    shstrndx: int


class Phdr(NamedTuple):
    """Program header, in the field order of ELF64."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int

    @property
    def file_end(self) -> int:
        """File offset of the end of the content."""
        return self.offset + self.filesz

    @property
    def memory_end(self) -> int:
        """Address of the end of the memory, .bss included."""
        return self.vaddr + self.memsz


class Shdr(NamedTuple):
    """Section header. ``name`` is an offset into the section name table."""

    name: int
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    addralign: int
    entsize: int

    @property
    def in_file(self) -> bool:
        """Whether the section has bytes in the file."""
        return self.type not in {SHT_NULL, SHT_NOBITS}


class Dyn(NamedTuple):
    """Entry of the dynamic section."""

    tag: int
    value: int


# _make without its length check: struct has checked the length, and files have dozens of each.
_PHDR: Final = functools.partial(tuple.__new__, Phdr)
_SHDR: Final = functools.partial(tuple.__new__, Shdr)
_DYN: Final = functools.partial(tuple.__new__, Dyn)


@dataclass(frozen=True, slots=True)
class Layout:
    """Compiled structures of one class and byte order."""

    bits: int
    byteorder: Literal["little", "big"]
    ehdr: struct.Struct
    phdr: struct.Struct
    shdr: struct.Struct
    dyn: struct.Struct
    symbol: struct.Struct
    verneed: struct.Struct
    vernaux: struct.Struct
    verdef: struct.Struct
    verdaux: struct.Struct

    @property
    def order(self) -> str:
        """Byte order character of the :mod:`struct` module."""
        return "<" if self.byteorder == "little" else ">"

    def ehdr_of(self, data: bytes) -> Ehdr:
        """Unpack the ELF header from the first ``ehdr.size`` bytes of a file."""
        return Ehdr._make(self.ehdr.unpack(data))

    def phdrs_of(self, data: bytes) -> tuple[Phdr, ...]:
        """Unpack a program header table."""
        if self.bits == 64:
            return tuple(map(_PHDR, self.phdr.iter_unpack(data)))
        return tuple(
            Phdr(type_, flags, offset, vaddr, paddr, filesz, memsz, align)
            for type_, offset, vaddr, paddr, filesz, memsz, flags, align in self.phdr.iter_unpack(data)
        )

    def shdrs_of(self, data: bytes) -> tuple[Shdr, ...]:
        """Unpack a section header table."""
        return tuple(map(_SHDR, self.shdr.iter_unpack(data)))

    def dyns_of(self, data: bytes) -> tuple[Dyn, ...]:
        """Unpack a dynamic section. An incomplete last entry is ignored."""
        whole = len(data) - len(data) % self.dyn.size
        return tuple(map(_DYN, self.dyn.iter_unpack(data[:whole])))

    def symbols_of(self, data: bytes) -> Iterator[tuple[int, int, int, int, int, int]]:
        """Unpack symbols: name offset, value, size, info, other and section index of each."""
        fields = self.symbol.iter_unpack(data)
        if self.bits == 32:
            return fields
        return ((name, value, size, info, other, index) for name, info, other, index, value, size in fields)

    def pack_ehdr(self, ident: bytes, header: Ehdr) -> bytes:
        """Pack ``e_ident`` and the ELF header."""
        return ident + self.ehdr.pack(*header)[EI_NIDENT:]

    def pack_phdr(self, header: Phdr) -> bytes:
        """Pack one program header."""
        if self.bits == 64:
            return self.phdr.pack(*header)
        type_, flags, *middle, align = header
        return self.phdr.pack(type_, *middle, flags, align)

    def pack_shdr(self, header: Shdr) -> bytes:
        """Pack one section header."""
        return self.shdr.pack(*header)

    def pack_dyns(self, entries: tuple[Dyn, ...]) -> bytes:
        """Pack a dynamic section."""
        return b"".join(itertools.starmap(self.dyn.pack, entries))


def _layout(bits: int, byteorder: Literal["little", "big"]) -> Layout:
    order = "<" if byteorder == "little" else ">"
    wide = bits == 64
    return Layout(
        bits,
        byteorder,
        struct.Struct(order + ("16xHHIQQQIHHHHHH" if wide else "16xHHIIIIIHHHHHH")),
        struct.Struct(order + ("IIQQQQQQ" if wide else "IIIIIIII")),
        struct.Struct(order + ("IIQQQQIIQQ" if wide else "IIIIIIIIII")),
        struct.Struct(order + ("QQ" if wide else "II")),
        struct.Struct(order + ("IBBHQQ" if wide else "IIIBBH")),
        struct.Struct(order + "HHIII"),  # vn_version vn_cnt vn_file vn_aux vn_next
        struct.Struct(order + "IHHII"),  # vna_hash vna_flags vna_other vna_name vna_next
        struct.Struct(order + "HHHHIII"),  # vd_version vd_flags vd_ndx vd_cnt vd_hash vd_aux vd_next
        struct.Struct(order + "II"),  # vda_name vda_next
    )


LAYOUTS: Final = {
    (1, 1): _layout(32, "little"),
    (1, 2): _layout(32, "big"),
    (2, 1): _layout(64, "little"),
    (2, 2): _layout(64, "big"),
}
"""by (EI_CLASS, EI_DATA)"""
