"""Repair of the section headers that LIEF moves along although nothing of theirs moved in memory.

LIEF puts its new segment behind the others and adds the distance to the address of every section that comes
later in the file: .bss, which has no bytes there, and sections that are in no segment at all. strip goes by
section headers, so it would then lay the file out wrongly.
"""

from __future__ import annotations

import os

from nixpatch.elf import layout as elf
from nixpatch.elf.headers import Headers, parse
from nixpatch.elf.image import Image
from nixpatch.elf.layout import Phdr, Shdr


def repair_sections(original: Headers, fd: int) -> None:
    """Give the sections of the file behind ``fd`` the addresses they have in the original.

    Raises ``Unfit`` if LIEF left something that cannot be read, and ``OSError``.
    """
    written = parse(Image.of(fd))
    if len(written.shdrs) != len(original.shdrs):
        return  # the check will say so
    for index, (before, after) in enumerate(zip(original.shdrs, written.shdrs, strict=True)):
        right = _repaired(written.loads, before, after)
        if right != after:
            at = written.ehdr.shoff + index * written.layout.shdr.size
            os.pwrite(fd, written.layout.pack_shdr(right), at)


def _repaired(loads: tuple[Phdr, ...], before: Shdr, after: Shdr) -> Shdr:
    if not before.flags & elf.SHF_ALLOC:
        return after._replace(addr=before.addr)
    if before.type != elf.SHT_NOBITS:
        return after
    for load in loads:
        if load.vaddr <= before.addr <= load.memory_end:
            return after._replace(addr=before.addr, offset=load.offset + before.addr - load.vaddr)
    return after
