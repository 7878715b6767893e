"""Content of the segment that LIEF adds, and the header table entries that point to it.

LIEF finds the place; content and references come from the same pure functions as in an in-place edit.

This module also repairs LIEF's header tables. LIEF adds the size of its segment to the address of every
section that is later in the file, including .bss, which has no bytes there, and sections in no segment. strip
relies on section headers and would then destroy the layout.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from nixpatch.elf import structs as elf
from nixpatch.elf.errors import malformed
from nixpatch.elf.header_tables import Placement, with_strings
from nixpatch.elf.headers import ElfFile, Headers, parse
from nixpatch.elf.image import Image
from nixpatch.elf.resolved_edit import NewDynamic, ResolvedEdit, new_dynamic
from nixpatch.elf.structs import Phdr, Shdr, round_up
from nixpatch.errors import FileRefused

_STRINGS = 24 << 20  # bytes; the child gets it as base64 in JSON, with several copies in memory


@dataclass(frozen=True, slots=True)
class SegmentContents:
    """The new segment: dynamic section, string table, interpreter. Addresses are relative to its start."""

    dynamic: NewDynamic
    dynamic_size: int
    """0 if the section stays in its place"""
    strings: bytes
    interp: bytes
    """empty if the interpreter stays in its place"""

    @property
    def strings_address(self) -> int:
        """Address of the string table."""
        return round_up(self.dynamic_size, 16)

    @property
    def interp_address(self) -> int:
        """Address of the interpreter."""
        return self.strings_address + len(self.strings)

    @property
    def flags(self) -> int:
        """Flags of the segment: ld.so writes to the dynamic section."""
        return elf.PF_R | (elf.PF_W if self.dynamic_size else 0)

    @property
    def data(self) -> bytes:
        """All bytes. The dynamic section is zeros until the string table's address is known."""
        return bytes(self.strings_address) + self.strings + self.interp


def plan_contents(file: ElfFile, resolved: ResolvedEdit) -> SegmentContents:
    """Plan the content of the new segment.

    Raises:
        FileRefused: the string table is too large.

    """
    headers = file.headers
    dynamic = new_dynamic(headers, resolved, headers.string_size, must_move=False)
    size = len(dynamic.entries) * headers.layout.dyn.size if dynamic.moves else 0
    if headers.string_size > _STRINGS:
        raise FileRefused(f"its string table of {headers.string_size} bytes is too large to hand to LIEF")
    strings = file.image.read(headers.string_offset, headers.string_size)
    if resolved.search_path is not None:
        strings += resolved.search_path + b"\0"
    segment, interp = headers.interp_segment, b""
    if segment is not None and resolved.interp is not None and len(resolved.interp) + 1 > segment.filesz:
        interp = resolved.interp + b"\0"
    return SegmentContents(dynamic, size, strings, interp)


def apply_contents(
    original: Headers, fd: int, resolved: ResolvedEdit, contents: SegmentContents, address: int
) -> None:
    """Point the headers of LIEF's output to the new segment.

    Args:
        original: headers of the original.
        fd: LIEF's output.
        resolved: the edit.
        contents: the content that LIEF gave to the new segment.
        address: address of the new segment.

    Raises:
        SkippedFile: LIEF's output is malformed.
        OSError: it cannot be read or written.

    """
    written = parse(Image.of(fd))
    layout = written.layout
    new = next((p for p in written.loads if p.vaddr == address), None)
    if new is None or new.filesz < len(contents.data):
        raise malformed("LIEF's segment is not there")
    strings = Placement(address + contents.strings_address, len(contents.strings))
    packed = layout.pack_dyns(with_strings(contents.dynamic.entries, strings))
    os.pwrite(fd, packed, new.offset if contents.dynamic_size else written.dynamic_offset)
    segment = written.interp_segment
    if segment and resolved.interp is not None and not contents.interp:
        os.pwrite(fd, resolved.interp.ljust(segment.filesz, b"\0"), segment.offset)
    phdrs = tuple(_phdr(written, header, new, contents) for header in written.phdrs)
    os.pwrite(fd, b"".join(map(layout.pack_phdr, phdrs)), written.ehdr.phoff)
    if len(written.shdrs) == len(original.shdrs):  # otherwise the checks will fail
        pairs = zip(original.shdrs, written.shdrs, strict=True)
        shdrs = [_shdr(original, written, pair, new, contents) for pair in pairs]
        os.pwrite(fd, b"".join(map(layout.pack_shdr, shdrs)), written.ehdr.shoff)


def _phdr(written: Headers, header: Phdr, new: Phdr, contents: SegmentContents) -> Phdr:
    if header.type == elf.PT_DYNAMIC and contents.dynamic_size:
        return _moved(header, new, 0, contents.dynamic_size)._replace(flags=header.flags | elf.PF_W)
    if header.type == elf.PT_INTERP and contents.interp:
        return _moved(header, new, contents.interp_address, len(contents.interp))
    if header.type == elf.PT_PHDR:
        start, size = written.ehdr.phoff, len(written.phdr_bytes)
        for load in written.loads:
            if load.offset <= start and start + size <= load.file_end:
                address = start - load.offset + load.vaddr
                return header._replace(offset=start, vaddr=address, paddr=address, filesz=size, memsz=size)
    return header


def _moved(header: Phdr, new: Phdr, start: int, size: int) -> Phdr:
    address = new.vaddr + start
    return header._replace(offset=new.offset + start, vaddr=address, paddr=address, filesz=size, memsz=size)


def _shdr(
    original: Headers, written: Headers, pair: tuple[Shdr, Shdr], new: Phdr, contents: SegmentContents
) -> Shdr:
    before, after = pair
    after = after._replace(info=before.info)  # LIEF sets it to the number of symbols, which it has not read
    if not before.flags & elf.SHF_ALLOC:
        return after._replace(addr=before.addr)
    if before.type == elf.SHT_STRTAB and before.addr == original.values[elf.DT_STRTAB]:
        return _inside(after, new, contents.strings_address, len(contents.strings))
    if before.type == elf.SHT_DYNAMIC and contents.dynamic_size:
        moved = _inside(after, new, 0, contents.dynamic_size)
        return moved._replace(flags=before.flags | elf.SHF_WRITE)
    segment = original.interp_segment
    if contents.interp and segment and (before.addr, before.size) == (segment.vaddr, segment.filesz):
        return _inside(after, new, contents.interp_address, len(contents.interp))
    if before.type == elf.SHT_NOBITS:
        for load in written.loads:
            if load.vaddr <= before.addr <= load.memory_end:
                offset = load.offset + before.addr - load.vaddr
                return after._replace(addr=before.addr, offset=offset)
    return after


def _inside(section: Shdr, new: Phdr, start: int, size: int) -> Shdr:
    return section._replace(addr=new.vaddr + start, offset=new.offset + start, size=size)
