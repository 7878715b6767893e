"""All headers of one dynamic ELF file, parsed and bounded. Program headers only, as ld.so sees a file.

The section header table is read too, since an edit has to keep it true and since it tells separate debug
files; names of sections are never looked at, and nothing depends on the table being there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from nixpatch.elf import structs as elf
from nixpatch.elf.image import Image
from nixpatch.elf.structs import LAYOUTS, Dyn, Ehdr, Layout, Phdr, Shdr
from nixpatch.elf.unfit import Unfit, malformed
from nixpatch.errors import FileRefused
from nixpatch.model import Machine, SkipReason
from nixpatch.model.elf import ELF_MAGIC

# Bounds on what a hostile file can make us read.
_PHDR_TABLE = 1 << 16  # bytes; the kernel's own limit (fs/binfmt_elf.c, load_elf_phdrs)
_SECTIONS = 1 << 16
_DYNAMIC = 1 << 20  # bytes; 65,536 entries
_INTERP = 4096  # PATH_MAX, the kernel's limit (fs/binfmt_elf.c, load_elf_binary)


@dataclass(frozen=True)
class Headers:
    """What stands where. Offsets are those of the image that was parsed."""

    layout: Layout
    ident: bytes
    ehdr: Ehdr
    phdr_bytes: bytes
    phdrs: tuple[Phdr, ...]
    shdr_bytes: bytes
    shdrs: tuple[Shdr, ...]
    dynamic_offset: int
    dynamic_bytes: bytes
    dynamic: tuple[Dyn, ...]
    """every entry of PT_DYNAMIC, the terminating and spare DT_NULL included"""
    string_offset: int
    string_size: int
    interp_bytes: bytes
    """content of PT_INTERP, its NUL included; empty without one"""

    @functools.cached_property
    def machine(self) -> Machine:
        """Machine, class and byte order."""
        return Machine(self.ehdr.machine, self.layout.bits, self.layout.byteorder)

    @functools.cached_property
    def loads(self) -> tuple[Phdr, ...]:
        """PT_LOAD in table order."""
        return tuple(p for p in self.phdrs if p.type == elf.PT_LOAD)

    @functools.cached_property
    def last_load(self) -> Phdr:
        """PT_LOAD with the highest address: nothing is mapped behind it."""
        return max(self.loads, key=lambda p: (p.vaddr, p.memsz))

    @functools.cached_property
    def dynamic_segment(self) -> Phdr:
        """PT_DYNAMIC."""
        return next(p for p in self.phdrs if p.type == elf.PT_DYNAMIC)

    @functools.cached_property
    def interp_segment(self) -> Phdr | None:
        """PT_INTERP."""
        return next((p for p in self.phdrs if p.type == elf.PT_INTERP), None)

    @functools.cached_property
    def null_index(self) -> int | None:
        """Index of the first DT_NULL; None where the section is full to its end."""
        return next((i for i, entry in enumerate(self.dynamic) if entry.tag == elf.DT_NULL), None)

    @functools.cached_property
    def live(self) -> tuple[Dyn, ...]:
        """The entries before DT_NULL: all that ld.so looks at."""
        return self.dynamic[: self.null_index]

    @functools.cached_property
    def values(self) -> dict[int, int]:
        """Value by tag. Of several entries the last counts, as in ld.so (elf_get_dynamic_info)."""
        return dict(self.live)

    def file_offset(self, address: int, size: int = 1) -> int | None:
        """Where the file holds ``size`` bytes at an address; None if they are in no PT_LOAD's content."""
        return _file_offset(self.loads, address, size)

    @property
    def described_end(self) -> int:
        """File offset behind all that any header describes: what follows is an overlay."""
        ends = [self.ehdr.phoff + len(self.phdr_bytes), self.ehdr.shoff + len(self.shdr_bytes)]
        ends += [p.file_end for p in self.phdrs if p.filesz]
        ends += [s.offset + s.size for s in self.shdrs if s.type not in {elf.SHT_NULL, elf.SHT_NOBITS}]
        return max(ends)


def parse(image: Image) -> Headers:
    """Read and check the headers of a dynamic ELF file.

    Raises ``Unfit`` with the reason for anything else, and ``OSError`` for trouble with reading.
    """
    layout, ident, ehdr = _elf_header(image)
    phdr_bytes = _phdr_table(image, layout, ehdr)
    phdrs = layout.phdrs_of(phdr_bytes)
    loads = tuple(p for p in phdrs if p.type == elf.PT_LOAD)
    dynamics = [p for p in phdrs if p.type == elf.PT_DYNAMIC]
    if not dynamics:
        raise Unfit(SkipReason.STATIC, "no PT_DYNAMIC")
    shdr_bytes = _shdr_table(image, layout, ehdr)
    shdrs = layout.shdrs_of(shdr_bytes)
    if len(dynamics) > 1 or sum(p.type == elf.PT_INTERP for p in phdrs) > 1:
        raise malformed("more than one PT_DYNAMIC or PT_INTERP")
    segment = dynamics[0]
    if segment.filesz == 0 or any(s.addr == segment.vaddr and _is_nobits(s) for s in shdrs):
        raise Unfit(SkipReason.DEBUG_FILE, "the dynamic section has no bytes in the file")
    if any(p.filesz and p.file_end > image.size for p in loads):
        raise malformed("truncated: a PT_LOAD reaches beyond the end of the file")
    if any(p.memsz < p.filesz for p in loads):
        raise malformed("a PT_LOAD has more bytes in the file than in memory")
    if segment.filesz > _DYNAMIC:
        raise malformed(f"dynamic section of {segment.filesz} bytes")
    dynamic_offset = _file_offset(loads, segment.vaddr, segment.filesz)
    if dynamic_offset is None:
        raise malformed("PT_DYNAMIC lies in no PT_LOAD")
    dynamic_bytes = image.read(dynamic_offset, segment.filesz)
    dynamic = layout.dyns_of(dynamic_bytes)
    string_offset, string_size = _string_table(dynamic, loads)
    headers = Headers(
        layout,
        ident,
        ehdr,
        phdr_bytes,
        phdrs,
        shdr_bytes,
        shdrs,
        dynamic_offset,
        dynamic_bytes,
        dynamic,
        string_offset,
        string_size,
        _interp(image, phdrs),
    )
    if not headers.interp_bytes and not {elf.DT_NEEDED, elf.DT_SONAME} & headers.values.keys():
        # A static PIE relocates itself and has nobody who would read a search path (glibc's then crashes).
        raise Unfit(SkipReason.STATIC, "no PT_INTERP, no DT_NEEDED, no DT_SONAME")
    return headers


def refuse_machine(headers: Headers) -> None:
    """Raise ``FileRefused`` if no file of this machine can be edited, whoever writes it."""
    if headers.machine.arch.refused is not None:
        raise FileRefused(headers.machine.arch.refused)


def _elf_header(image: Image) -> tuple[Layout, bytes, Ehdr]:
    if image.size < elf.EI_NIDENT:
        raise Unfit(SkipReason.NOT_ELF)
    ident = image.read(0, elf.EI_NIDENT)
    if not ident.startswith(ELF_MAGIC):
        raise Unfit(SkipReason.NOT_ELF)
    layout = LAYOUTS.get((ident[elf.EI_CLASS], ident[elf.EI_DATA]))
    if layout is None or ident[elf.EI_VERSION] != 1:
        raise malformed("unknown class, byte order or version")
    ehdr = layout.ehdr_of(image.read(0, layout.ehdr.size))
    if ehdr.type == elf.ET_REL:
        raise Unfit(SkipReason.RELOCATABLE)
    if ehdr.type not in {elf.ET_EXEC, elf.ET_DYN}:
        raise Unfit(SkipReason.CORE, f"ELF type {ehdr.type}")
    osabi = ident[elf.EI_OSABI]
    if osabi not in {elf.OSABI_SYSV, elf.OSABI_GNU}:
        raise Unfit(SkipReason.OTHER_OSABI, f"OSABI {osabi}")
    return layout, ident, ehdr


def _phdr_table(image: Image, layout: Layout, ehdr: Ehdr) -> bytes:
    if ehdr.phnum == 0:
        raise malformed("no program headers")
    if ehdr.phnum == elf.PN_XNUM or ehdr.phnum * layout.phdr.size > _PHDR_TABLE:
        raise malformed(f"{ehdr.phnum} program headers")
    if ehdr.phentsize != layout.phdr.size:
        raise malformed(f"program headers of {ehdr.phentsize} bytes")
    return image.read(ehdr.phoff, ehdr.phnum * layout.phdr.size)


def _shdr_table(image: Image, layout: Layout, ehdr: Ehdr) -> bytes:
    if ehdr.shoff == 0:
        return b""
    count = ehdr.shnum
    if count == 0:
        # gABI: a count of 0xff00 and more stands in sh_size of entry 0. sstrip leaves a bare offset.
        if ehdr.shentsize != layout.shdr.size or ehdr.shoff + layout.shdr.size > image.size:
            return b""
        count = layout.shdrs_of(image.read(ehdr.shoff, layout.shdr.size))[0].size
        if count < 0xFF00:
            return b""
    if count > _SECTIONS:
        raise malformed(f"{count} sections")
    if ehdr.shentsize != layout.shdr.size:
        raise malformed(f"section headers of {ehdr.shentsize} bytes")
    return image.read(ehdr.shoff, count * layout.shdr.size)


def _is_nobits(section: Shdr) -> bool:
    # .tbss takes no room, so what follows it, .dynamic too, may well stand at its address.
    return (
        section.type == elf.SHT_NOBITS
        and bool(section.flags & elf.SHF_ALLOC)
        and not section.flags & elf.SHF_TLS
        and section.size > 0
    )


def _string_table(dynamic: Iterable[Dyn], loads: tuple[Phdr, ...]) -> tuple[int, int]:
    values: dict[int, int] = {}
    for tag, value in dynamic:
        if tag == elf.DT_NULL:
            break
        if tag in values and tag in {elf.DT_STRTAB, elf.DT_STRSZ}:
            raise malformed("more than one DT_STRTAB or DT_STRSZ")
        values[tag] = value
    address, size = values.get(elf.DT_STRTAB), values.get(elf.DT_STRSZ)
    if address is None or size is None:
        raise malformed("no DT_STRTAB or no DT_STRSZ")
    offset = _file_offset(loads, address, size)
    if offset is None:
        raise malformed("DT_STRTAB lies in no PT_LOAD")
    return offset, size


def _interp(image: Image, phdrs: Iterable[Phdr]) -> bytes:
    for segment in phdrs:
        if segment.type == elf.PT_INTERP:
            # 1: opencv-python's libQt5Core names the empty string; as a library it loads all the same.
            if not 1 <= segment.filesz <= _INTERP:
                raise malformed(f"PT_INTERP of {segment.filesz} bytes")
            content = image.read(segment.offset, segment.filesz)
            if content[-1] != 0:
                raise malformed("PT_INTERP does not end in NUL")
            return content
    return b""


def _file_offset(loads: tuple[Phdr, ...], address: int, size: int) -> int | None:
    """Where the file holds a range of addresses.

    It may run through several PT_LOADs if each goes on where the one before ended, in memory and in the file:
    an old patchelf that made room several times leaves a string table that spans four of them.
    """
    start = None
    reached = address
    for load in loads:  # ascending, gABI
        if not load.vaddr <= reached < load.vaddr + load.filesz:
            continue
        offset = reached - load.vaddr + load.offset
        if start is None:
            start = offset
        elif offset != start + reached - address:
            return None
        reached = load.vaddr + load.filesz
        if reached >= address + size:
            return start
    return None
