"""What stands in the segment that LIEF adds, and what in the header tables has to lead there.

LIEF finds the room; what goes there and who points at it is decided by the same pure functions as in an edit
in place. Here, too, are the repairs of what LIEF gets wrong in the header tables: it adds the distance that
its segment takes to the address of every section that comes later in the file: .bss, which has no bytes
there, and sections that are in no segment at all. strip goes by section headers and would then lay the file
out wrongly.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from nixpatch.elf import structs as elf
from nixpatch.elf.header_tables import Placed, with_strings
from nixpatch.elf.headers import Headers, parse
from nixpatch.elf.image import Image
from nixpatch.elf.resolved_edit import NewDynamic, Wish, new_dynamic
from nixpatch.elf.structs import Phdr, Shdr, round_up
from nixpatch.elf.unfit import malformed
from nixpatch.errors import FileRefused

_STRINGS = 24 << 20  # bytes; it goes to the child as base64 in JSON, several times over in memory


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into the new segment. Addresses count from its start."""

    dynamic: NewDynamic
    dynamic_size: int
    """0 where the section stays in its place"""
    strings: bytes
    interp: bytes
    """empty where the interpreter stays in its place or as it is"""

    @property
    def strings_at(self) -> int:
        """Address of the string table."""
        return round_up(self.dynamic_size, 16)

    @property
    def interp_at(self) -> int:
        """Address of the interpreter."""
        return self.strings_at + len(self.strings)

    @property
    def flags(self) -> int:
        """Of the segment: ld.so writes into the dynamic section."""
        return elf.PF_R | (elf.PF_W if self.dynamic_size else 0)

    @property
    def data(self) -> bytes:
        """All of it; the dynamic section is still zeros, for want of the string table's address."""
        return bytes(self.strings_at) + self.strings + self.interp


def contents_for(image: Image, headers: Headers, wish: Wish) -> Contents:
    """Decide what the new segment holds. Raises ``FileRefused`` for a dynamic section that cannot grow."""
    dynamic = new_dynamic(headers, wish, headers.string_size, must_move=False)
    size = len(dynamic.entries) * headers.layout.dyn.size if dynamic.moves else 0
    if headers.string_size > _STRINGS:
        raise FileRefused(f"its string table of {headers.string_size} bytes is too large to hand to LIEF")
    strings = image.read(headers.string_offset, headers.string_size)
    if wish.search_path is not None:
        strings += wish.search_path + b"\0"
    segment = headers.interp_segment
    grows = segment is not None and wish.interp is not None and len(wish.interp) + 1 > segment.filesz
    interp = (wish.interp or b"") + b"\0" if grows else b""
    return Contents(dynamic, size, strings, interp)


def point_at(original: Headers, fd: int, wish: Wish, contents: Contents, address: int) -> None:
    """Make the file behind ``fd``, with the new segment at ``address``, one with the wished linkage.

    Raises ``Unfit`` if LIEF left something that cannot be read, and ``OSError``.
    """
    written = parse(Image.of(fd))
    layout = written.layout
    new = next((p for p in written.loads if p.vaddr == address), None)
    if new is None or new.filesz < len(contents.data):
        raise malformed("LIEF's segment is not there")
    strings = Placed(address + contents.strings_at, len(contents.strings))
    packed = layout.pack_dyns(with_strings(contents.dynamic.entries, strings))
    os.pwrite(fd, packed, new.offset if contents.dynamic_size else written.dynamic_offset)
    segment = written.interp_segment
    if segment and wish.interp is not None and not contents.interp:
        os.pwrite(fd, wish.interp.ljust(segment.filesz, b"\0"), segment.offset)
    phdrs = tuple(_phdr(written, header, new, contents) for header in written.phdrs)
    os.pwrite(fd, b"".join(map(layout.pack_phdr, phdrs)), written.ehdr.phoff)
    if len(written.shdrs) == len(original.shdrs):  # else the check will say so
        pairs = zip(original.shdrs, written.shdrs, strict=True)
        shdrs = [_shdr(original, written, pair, new, contents) for pair in pairs]
        os.pwrite(fd, b"".join(map(layout.pack_shdr, shdrs)), written.ehdr.shoff)


def _phdr(written: Headers, header: Phdr, new: Phdr, contents: Contents) -> Phdr:
    if header.type == elf.PT_DYNAMIC and contents.dynamic_size:
        return _moved(header, new, 0, contents.dynamic_size)._replace(flags=header.flags | elf.PF_W)
    if header.type == elf.PT_INTERP and contents.interp:
        return _moved(header, new, contents.interp_at, len(contents.interp))
    if header.type == elf.PT_PHDR:
        start, size = written.ehdr.phoff, len(written.phdr_bytes)
        for load in written.loads:
            if load.offset <= start and start + size <= load.file_end:
                address = start - load.offset + load.vaddr
                return header._replace(offset=start, vaddr=address, paddr=address, filesz=size, memsz=size)
    return header


def _moved(header: Phdr, new: Phdr, at: int, size: int) -> Phdr:
    address = new.vaddr + at
    return header._replace(offset=new.offset + at, vaddr=address, paddr=address, filesz=size, memsz=size)


def _shdr(
    original: Headers, written: Headers, pair: tuple[Shdr, Shdr], new: Phdr, contents: Contents
) -> Shdr:
    before, after = pair
    after = after._replace(info=before.info)  # LIEF counts symbols that it has not read
    if not before.flags & elf.SHF_ALLOC:
        return after._replace(addr=before.addr)
    if before.type == elf.SHT_STRTAB and before.addr == original.values[elf.DT_STRTAB]:
        return _inside(after, new, contents.strings_at, len(contents.strings))
    if before.type == elf.SHT_DYNAMIC and contents.dynamic_size:
        moved = _inside(after, new, 0, contents.dynamic_size)
        return moved._replace(flags=before.flags | elf.SHF_WRITE)
    segment = original.interp_segment
    if contents.interp and segment and (before.addr, before.size) == (segment.vaddr, segment.filesz):
        return _inside(after, new, contents.interp_at, len(contents.interp))
    if before.type == elf.SHT_NOBITS:
        for load in written.loads:
            if load.vaddr <= before.addr <= load.memory_end:
                offset = load.offset + before.addr - load.vaddr
                return after._replace(addr=before.addr, offset=offset)
    return after


def _inside(section: Shdr, new: Phdr, at: int, size: int) -> Shdr:
    return section._replace(addr=new.vaddr + at, offset=new.offset + at, size=size)
