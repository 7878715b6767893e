"""The headers of one dynamic ELF file, parsed and bounded.

Contents are found by program headers, as in ld.so. The section header table is read because an edit has to
keep it true and because it identifies separate debug files. Section names are ignored; the table may be
absent.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from nixpatch.elf import structs as elf
from nixpatch.elf.errors import SkippedFile, malformed
from nixpatch.elf.image import Image
from nixpatch.elf.structs import LAYOUTS, Dyn, Ehdr, Layout, Phdr, Shdr
from nixpatch.errors import FileRefused
from nixpatch.model import Machine, SkipReason
from nixpatch.model.elf import ELF_MAGIC

# Bounds on what a hostile file can make nixpatch read.
_PHDR_TABLE = 1 << 16  # bytes; the kernel's own limit (fs/binfmt_elf.c, load_elf_phdrs)
_SECTIONS = 1 << 16
_DYNAMIC = 1 << 20  # bytes; 65,536 entries
_SYMBOLS = 1 << 12
_PADDING = 16  # bytes
_CUT = "truncated: a PT_LOAD reaches beyond the end of the file"
_SMALLEST_PAGE = 4096  # bytes; machines with larger pages ask for more
_ABI_VERSION = 4  # the highest that glibc knows: LIBC_ABI_GNU2_TLS (libc-abis of 2.42)
_INTERP = 4096  # PATH_MAX, the kernel's limit (fs/binfmt_elf.c, load_elf_binary)


@dataclass(frozen=True)
class Headers:
    """Header tables, dynamic section and interpreter. Offsets are those of the parsed image."""

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
    """every entry of PT_DYNAMIC, terminating and spare DT_NULL included"""
    string_offset: int
    string_size: int
    interp_bytes: bytes
    """content of PT_INTERP with its NUL; empty without PT_INTERP"""

    @functools.cached_property
    def machine(self) -> Machine:
        """Machine, class and byte order."""
        return Machine(self.ehdr.machine, self.layout.bits, self.layout.byteorder)

    @functools.cached_property
    def loads(self) -> tuple[Phdr, ...]:
        """PT_LOADs in table order."""
        return tuple(p for p in self.phdrs if p.type == elf.PT_LOAD)

    @functools.cached_property
    def last_load(self) -> Phdr:
        """PT_LOAD with the highest address: nothing is mapped behind it."""
        return max(self.loads, key=lambda p: (p.vaddr, p.memsz))

    @functools.cached_property
    def loads_end(self) -> int:
        """File offset of the end of the content of all PT_LOADs."""
        return max(p.file_end for p in self.loads if p.filesz)

    @functools.cached_property
    def tail_start(self) -> int:
        """File offset of what follows the PT_LOADs: their end, or a section that begins in their padding.

        eu-strip moves sections that are not in memory up to the last one that is, and patchelf pads PT_LOADs.
        """
        end = self.loads_end
        unmapped = (s for s in self.shdrs if s.in_file and not s.flags & elf.SHF_ALLOC)
        starts = (s.offset for s in unmapped if end - _PADDING <= s.offset < end < s.offset + s.size)
        return min([end, *starts])

    @functools.cached_property
    def dynamic_segment(self) -> Phdr:
        """PT_DYNAMIC."""
        return next(p for p in self.phdrs if p.type == elf.PT_DYNAMIC)

    @functools.cached_property
    def interp_segment(self) -> Phdr | None:
        """PT_INTERP."""
        return next((p for p in self.phdrs if p.type == elf.PT_INTERP), None)

    @functools.cached_property
    def stack_segment(self) -> Phdr | None:
        """PT_GNU_STACK, whose PF_X asks for an executable stack."""
        return next((p for p in self.phdrs if p.type == elf.PT_GNU_STACK), None)

    @functools.cached_property
    def null_index(self) -> int | None:
        """Index of the first DT_NULL; None if the section has none."""
        return next((i for i, entry in enumerate(self.dynamic) if entry.tag == elf.DT_NULL), None)

    @functools.cached_property
    def live(self) -> tuple[Dyn, ...]:
        """Entries before DT_NULL: those that ld.so reads."""
        return self.dynamic[: self.null_index]

    @functools.cached_property
    def values(self) -> dict[int, int]:
        """Value by tag. The last of several entries counts, as in ld.so (elf_get_dynamic_info)."""
        return dict(self.live)

    @functools.cached_property
    def tables(self) -> tuple[tuple[int, int, str], ...]:
        """``(offset, length, name)`` of ELF header, program headers and section headers."""
        ranges = (
            (0, self.layout.ehdr.size, "the ELF header"),
            (self.ehdr.phoff, len(self.phdr_bytes), "the program headers"),
            (self.ehdr.shoff, len(self.shdr_bytes), "the section headers"),
        )
        return tuple(entry for entry in ranges if entry[1])

    @functools.cached_property
    def rewritable(self) -> tuple[tuple[int, int, str], ...]:
        """``(offset, length, name)`` of what an edit may overwrite: tables, dynamic section, interpreter."""
        ranges = (*self.tables, (self.dynamic_offset, len(self.dynamic_bytes), "the dynamic section"))
        if self.interp_segment:
            ranges += ((self.interp_segment.offset, self.interp_segment.filesz, "the interpreter"),)
        return ranges

    def file_offset(self, address: int, size: int = 1) -> int | None:
        """Return the file offset of ``size`` bytes at an address; None if no PT_LOAD's content holds them."""
        return _file_offset(self.loads, address, size)

    def is_mapped(self, address: int) -> bool:
        """Whether an address is in a PT_LOAD or at its end."""
        return any(p.vaddr <= address <= p.memory_end for p in self.loads)

    @property
    def mapping_error(self) -> str | None:
        """The reason why no loader can map the file, in the words of ld.so; None if it can.

        glibc refuses such a library (_dl_map_object_from_fd in dl-load.c), mmap(2) such a program: offset and
        address of a PT_LOAD have to be congruent modulo the page size (gABI, "Program Header").
        """
        if not self.interp_bytes:  # of a program the kernel reads neither; an AppImage has its mark there
            if (error := ident_error(self.ident)) is not None:
                return error
            if self.ehdr.version != elf.EV_CURRENT:
                return f"ELF file version does not match current one: {self.ehdr.version}"
        return self.load_error

    @property
    def load_error(self) -> str | None:
        """The part of :attr:`mapping_error` that PT_LOADs cause."""
        for load in self.loads:
            # Of a program the kernel maps only what has bytes in the file (elf_load in fs/binfmt_elf.c).
            is_mapped = load.filesz or not self.interp_bytes
            if is_mapped and (load.offset - load.vaddr) % _SMALLEST_PAGE:
                return (
                    f"load command address/offset not page-aligned: offset {load.offset:#x}, "
                    f"address {load.vaddr:#x}"
                )
            if not self.interp_bytes and load.align % _SMALLEST_PAGE:
                return f"load command alignment not page-aligned: {load.align:#x}"
        return None

    @property
    def unmapped_entries(self) -> list[str]:
        """Names of dynamic entries that point outside all PT_LOADs."""
        values = self.values
        named = elf.ADDRESS_TAGS.items()
        return [name for tag, name in named if tag in values and not self.is_mapped(values[tag])]

    @property
    def dynamic_is_writable(self) -> bool:
        """Whether PT_DYNAMIC is in a writable PT_LOAD: ld.so writes to it."""
        start, end = self.dynamic_segment.vaddr, self.dynamic_segment.memory_end
        return any(p.flags & elf.PF_W and p.vaddr <= start and end <= p.memory_end for p in self.loads)

    @property
    def described_end(self) -> int:
        """File offset of the end of all that headers describe. An overlay begins here."""
        ends = [self.ehdr.phoff + len(self.phdr_bytes), self.ehdr.shoff + len(self.shdr_bytes)]
        ends += [p.file_end for p in self.phdrs if p.filesz]
        ends += [s.offset + s.size for s in self.shdrs if s.in_file]
        return max(ends)


@dataclass(frozen=True, slots=True)
class ElfFile:
    """The bytes of a file and its headers."""

    image: Image
    headers: Headers

    @classmethod
    def of(cls, image: Image) -> ElfFile:
        """Parse an image, with the exceptions of :func:`parse`."""
        return cls(image, parse(image))

    def memory(self, address: int, length: int) -> bytes | None:
        """Return the content of a range of addresses; None if the file does not hold all of it."""
        offset = self.headers.file_offset(address, length)
        return None if offset is None else self.image.read(offset, length)


def parse(image: Image) -> Headers:
    """Read and check the headers of a dynamic ELF file.

    Raises:
        SkippedFile: it is not a well-formed dynamic ELF file.
        OSError: it cannot be read.

    """
    layout, ident, ehdr = _elf_header(image)
    try:
        return _parse(image, layout, ident, ehdr)
    except SkippedFile:
        if ident[elf.EI_OSABI] not in elf.LINUX_OSABIS:  # which says more
            raise SkippedFile(SkipReason.OTHER_OSABI, f"OSABI {ident[elf.EI_OSABI]}") from None
        raise


def _parse(image: Image, layout: Layout, ident: bytes, ehdr: Ehdr) -> Headers:
    phdr_bytes = _phdr_table(image, layout, ehdr)
    phdrs = layout.phdrs_of(phdr_bytes)
    loads = tuple(p for p in phdrs if p.type == elf.PT_LOAD)
    dynamics = [p for p in phdrs if p.type == elf.PT_DYNAMIC]
    if not dynamics:
        raise SkippedFile(SkipReason.STATIC, "no PT_DYNAMIC")
    is_cut = any(p.filesz and p.file_end > image.size for p in loads)
    if is_cut and ehdr.shoff + ehdr.shnum * ehdr.shentsize > image.size:
        raise SkippedFile(SkipReason.UNMAPPABLE, _CUT)
    shdr_bytes = _shdr_table(image, layout, ehdr)
    shdrs = layout.shdrs_of(shdr_bytes)
    if len(dynamics) > 1 or sum(p.type == elf.PT_INTERP for p in phdrs) > 1:
        raise malformed("more than one PT_DYNAMIC or PT_INTERP")
    segment = dynamics[0]
    if segment.filesz == 0 or any(s.addr == segment.vaddr and _is_nobits(s) for s in shdrs):
        raise SkippedFile(SkipReason.DEBUG_FILE, "the dynamic section has no bytes in the file")
    if is_cut:  # nor is it a debug file, whose segments are in another file
        raise SkippedFile(SkipReason.UNMAPPABLE, _CUT)
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
    if _is_static(image, headers):
        # A static PIE relocates itself: no loader reads its search path, and glibc's startup crashes on one.
        raise SkippedFile(SkipReason.STATIC, "no PT_INTERP, no DT_NEEDED, no DT_SONAME")
    return headers


def _is_static(image: Image, headers: Headers) -> bool:
    """Whether a file with a dynamic section is a static program.

    Linkers have set DF_1_PIE in a static PIE since 2018 (binutils 2.32, lld 7). One from before then has an
    entry point, and unlike a library it defines no symbols for others.
    """
    values = headers.values
    if headers.interp_bytes or {elf.DT_NEEDED, elf.DT_SONAME} & values.keys():
        return False
    if headers.ehdr.type == elf.ET_EXEC or values.get(elf.DT_FLAGS_1, 0) & elf.DF_1_PIE:
        return True
    return headers.ehdr.entry != 0 and not _defines_symbols(image, headers)


def _defines_symbols(image: Image, headers: Headers) -> bool:
    """Whether the first symbols of the hash tables, of which DT_GNU_HASH has only defined ones, show one."""
    layout, values = headers.layout, headers.values
    symbols = headers.file_offset(values.get(elf.DT_SYMTAB, -1), layout.symbol.size)
    table = headers.file_offset(values.get(elf.DT_GNU_HASH, -1), 16)
    order = layout.order
    if table is not None:
        buckets, _, words, _ = struct.unpack(f"{order}4I", image.read(table, 16))
        start, count = table + 16 + words * (layout.bits // 8), min(buckets, _SYMBOLS)
        return any(image.read(start, 4 * count))
    table = headers.file_offset(values.get(elf.DT_HASH, -1), 8)
    if symbols is None or table is None:
        return False
    wide = headers.machine.arch.hash_word == 8
    _, count = struct.unpack(order + ("QQ" if wide else "II"), image.read(table, 16 if wide else 8))
    read = image.read(symbols, min(count, _SYMBOLS) * layout.symbol.size)
    return any(index and info >> 4 for _, _, _, info, _, index in layout.symbols_of(read))


def ident_error(ident: bytes) -> str | None:
    """Return why glibc opens no library with this ``e_ident``; None if it does (open_verify in dl-load.c)."""
    osabi, abi_version = ident[elf.EI_OSABI], ident[elf.EI_ABIVERSION]
    if ident[elf.EI_VERSION] != elf.EV_CURRENT:
        return f"ELF file version ident does not match current one: {ident[elf.EI_VERSION]}"
    if osabi not in {elf.OSABI_SYSV, elf.OSABI_GNU}:
        return f"ELF file OS ABI invalid: {osabi}"
    if abi_version > (_ABI_VERSION if osabi == elf.OSABI_GNU else 0):
        return f"ELF file ABI version invalid: {abi_version}"
    return "nonzero padding in e_ident" if any(ident[elf.EI_PAD :]) else None


def stack_and_system(image: Image) -> tuple[bool | None, int]:
    """Return PF_X of PT_GNU_STACK, None without one, and EI_OSABI; also of a static program.

    Raises:
        SkippedFile: it is neither a program nor a library.

    """
    layout, ident, ehdr = _elf_header(image)
    phdrs = layout.phdrs_of(_phdr_table(image, layout, ehdr))
    stack = next((p for p in phdrs if p.type == elf.PT_GNU_STACK), None)
    return stack and bool(stack.flags & elf.PF_X), ident[elf.EI_OSABI]


def library_machine(image: Image) -> Machine | None:
    """Return the machine of a file that the ELF header calls a shared object; None for any other file."""
    try:
        layout, _, ehdr = _elf_header(image)
    except SkippedFile:
        return None
    return Machine(ehdr.machine, layout.bits, layout.byteorder) if ehdr.type == elf.ET_DYN else None


def refuse_machine(headers: Headers) -> None:
    """Refuse machines whose files cannot be edited (:mod:`nixpatch.arch`).

    Raises:
        FileRefused: this is one of them.

    """
    if headers.machine.arch.refused is not None:
        raise FileRefused(headers.machine.arch.refused)


def _elf_header(image: Image) -> tuple[Layout, bytes, Ehdr]:
    if image.size < elf.EI_NIDENT:
        raise SkippedFile(SkipReason.NOT_ELF)
    ident = image.read(0, elf.EI_NIDENT)
    if not ident.startswith(ELF_MAGIC):
        raise SkippedFile(SkipReason.NOT_ELF)
    layout = LAYOUTS.get((ident[elf.EI_CLASS], ident[elf.EI_DATA]))
    if layout is None or ident[elf.EI_VERSION] != elf.EV_CURRENT:
        raise malformed("unknown class, byte order or version")
    ehdr = layout.ehdr_of(image.read(0, layout.ehdr.size))
    if ehdr.type == elf.ET_REL:
        raise SkippedFile(SkipReason.RELOCATABLE)
    if ehdr.type not in {elf.ET_EXEC, elf.ET_DYN}:
        raise SkippedFile(SkipReason.CORE, f"ELF type {ehdr.type}")
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
        # gABI: sh_size of entry 0 holds a count of 0xff00 and more. sstrip removes the table but not e_shoff.
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
    # .tbss takes no address space, so .dynamic may well have its address.
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
            # 1: libQt5Core of opencv-python has an empty interpreter; as a library it loads nevertheless.
            if not 1 <= segment.filesz <= _INTERP:
                raise malformed(f"PT_INTERP of {segment.filesz} bytes")
            content = image.read(segment.offset, segment.filesz)
            if content[-1] != 0:
                raise malformed("PT_INTERP does not end in NUL")
            return content
    return b""


def _file_offset(loads: tuple[Phdr, ...], address: int, size: int) -> int | None:
    """Return the file offset of a range of addresses.

    A range may span several PT_LOADs that are contiguous in memory and in the file: old versions of patchelf,
    run several times, leave a string table that spans four.
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
