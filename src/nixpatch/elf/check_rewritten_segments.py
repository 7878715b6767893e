"""The program headers of a file that was laid out anew: what the kernel and ld.so go by."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from nixpatch.elf import structs as elf
from nixpatch.elf.check_pair import chunks, shared_pages
from nixpatch.elf.headers import Headers
from nixpatch.elf.image import Image
from nixpatch.elf.structs import Phdr


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two files."""

    image: Image
    headers: Headers

    def memory(self, address: int, length: int) -> bytes | None:
        """Content of a range of addresses; None where the file does not hold all of it."""
        offset = self.headers.file_offset(address, length)
        return None if offset is None else self.image.read(offset, length)


def segment_violations(old: Side, new: Side) -> Iterator[str]:
    """Every segment but PT_LOAD is there once, with the same memory, and where the tables say."""
    apart = {elf.PT_LOAD, elf.PT_PHDR, elf.PT_DYNAMIC, elf.PT_INTERP}
    before = [p for p in old.headers.phdrs if p.type not in apart]
    after = [p for p in new.headers.phdrs if p.type not in apart]
    if [p._replace(offset=0) for p in before] != [p._replace(offset=0) for p in after]:
        yield "a program header other than PT_LOAD, PT_PHDR, PT_DYNAMIC and PT_INTERP changed"
    for was, now in zip(before, after, strict=False):
        if was.filesz and not _same_content(old, new, was, now):
            yield f"the program header of type {now.type:#x} does not lead to the bytes it had"
    for kind in apart - {elf.PT_LOAD}:
        if _count(old, kind) != _count(new, kind):
            yield f"the number of program headers of type {kind} changed"
    for segment in new.headers.phdrs:
        if segment.type in {elf.PT_DYNAMIC, elf.PT_INTERP} and not _in_place(new, segment):
            yield f"the program header of type {segment.type} is not where its address is in the file"
    yield from _phdr_table(new)


def _in_place(side: Side, segment: Phdr) -> bool:
    return side.headers.file_offset(segment.vaddr, segment.filesz) == segment.offset


def _same_content(old: Side, new: Side, was: Phdr, now: Phdr) -> bool:
    """Compare a segment that is in memory by its address, any other (attributes, RISC-V) by its bytes."""
    if _in_place(old, was):
        return _in_place(new, now)
    return all(
        old.image.read(at, count) == new.image.read(now.offset + at - was.offset, count)
        for at, count in chunks(was.offset, was.filesz)
    )


def _count(side: Side, kind: int) -> int:
    return sum(p.type == kind for p in side.headers.phdrs)


def _phdr_table(new: Side) -> Iterator[str]:
    """See that the kernel and ld.so find the table: AT_PHDR, PT_PHDR."""
    headers = new.headers
    start, size = headers.ehdr.phoff, len(headers.phdr_bytes)
    holding = [p for p in headers.loads if p.offset <= start and start + size <= p.file_end]
    if not holding:
        yield "the program headers lie in no PT_LOAD"
        return
    address = start - holding[0].offset + holding[0].vaddr
    for segment in headers.phdrs:
        if segment.type == elf.PT_PHDR and (
            (segment.offset, segment.vaddr) != (start, address) or segment.memsz < size
        ):
            yield "PT_PHDR does not describe the program headers"
    first = headers.loads[0]
    if headers.interp_segment and address != first.vaddr - first.offset + start:
        # Linux before 5.18 tells a program load_addr + e_phoff (fs/binfmt_elf.c, create_elf_tables).
        yield "the program headers are not where kernels before 5.18 say they are"


def load_violations(old: Side, new: Side) -> Iterator[str]:
    """See to what the kernel and ld.so ask of PT_LOADs; every old one is there, new ones are data."""
    loads = new.headers.loads
    addresses = [p.vaddr for p in loads]
    if addresses != sorted(addresses):
        yield "PT_LOADs are not in ascending order"
    if any(one.memory_end > other.vaddr for one, other in itertools.pairwise(loads)):
        yield "PT_LOADs overlap"
    known: set[int] = set()
    for load in old.headers.loads:
        same = [p for p in loads if p.vaddr == load.vaddr]
        known.update(p.vaddr for p in same)
        if len(same) != 1 or not _grown(load, same[0]):
            yield f"the PT_LOAD at {load.vaddr:#x} is gone or no longer what it was"
    page = elf.largest_page(new.headers.ehdr.machine)
    for load in loads:
        if load.vaddr not in known and load.flags & elf.PF_X:
            yield f"the new PT_LOAD at {load.vaddr:#x} is executable"
        if load.align > 1 and (load.offset - load.vaddr) % load.align:
            yield f"the PT_LOAD at {load.vaddr:#x}: offset and address differ modulo its alignment"
        if (load.offset - load.vaddr) % page and load.vaddr not in known:
            yield f"the new PT_LOAD at {load.vaddr:#x} cannot be mapped with the largest pages"
        if load.filesz and load.file_end > new.image.size:
            yield "a PT_LOAD reaches beyond the end of the file"
    yield from _pages(old, new, page)
    dynamic = new.headers.dynamic_segment
    if not any(
        p.flags & elf.PF_W and p.vaddr <= dynamic.vaddr and dynamic.memory_end <= p.memory_end for p in loads
    ):
        yield "PT_DYNAMIC lies in no writable PT_LOAD"


def _grown(before: Phdr, after: Phdr) -> bool:
    """Tell whether a segment is the old one, or the old one with more file behind its bytes."""
    if before.filesz < before.memsz:
        grown = before.filesz <= after.filesz <= after.memsz == before.memsz or (
            after.memsz > before.memsz and after.filesz == after.memsz
        )
    else:
        grown = after.filesz == after.memsz >= before.memsz
    return grown and (before.flags, before.align) == (after.flags, after.align)


def _pages(old: Side, new: Side, page: int) -> Iterator[str]:
    """No two PT_LOADs may share a page, unless they did or it is the same page of the file.

    The later one is mapped over the earlier. Where both map the same page of the file, that changes the
    page's permissions only: harmless for what has been put between the two, not for what the original has.
    """
    loads = new.headers.loads
    old_shared = {old.headers.loads[index].vaddr for index in shared_pages(old.headers)}
    for index in sorted(shared_pages(new.headers)):
        load, previous = loads[index], loads[index - 1]
        if load.vaddr in old_shared:
            continue
        ends = [p.memory_end for p in old.headers.loads if p.vaddr == previous.vaddr]
        apart = ends and (ends[0] - 1) // page < load.vaddr // page
        same_file = previous.offset - previous.vaddr == load.offset - load.vaddr
        if not (apart and same_file and load.flags & elf.PF_R):
            yield f"the PT_LOAD at {load.vaddr:#x} shares a page with the one before it"
