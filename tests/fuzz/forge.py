"""Small ELF files put together field by field, so that one field can be what no linker would write."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 1, 2, 3, 4
DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_SONAME, DT_RUNPATH = 1, 5, 10, 14, 29
DT_VERDEF, DT_VERDEFNUM, DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
STRINGS = b"\0libself.so.1\0libneed.so.2\0$ORIGIN/../lib\0GLIBC_2.2.5\0"
SELF, NEED, PATH, VERSION = 1, 14, 27, 42
BASE = 0x10000
"""address of the first byte of the file; everything is in one PT_LOAD that begins there"""


@dataclass
class Forged:
    """A library of one segment; what is given lies in it one after the other, in the order of the fields."""

    strings: bytes = STRINGS
    dynamic: list[tuple[int, int]] = field(
        default_factory=lambda: [(DT_SONAME, SELF), (DT_NEEDED, NEED), (DT_RUNPATH, PATH)]
    )
    """entries besides DT_STRTAB, DT_STRSZ and those for versions"""
    spare: int = 4
    """DT_NULL entries"""
    verneed: bytes = b""
    verneed_count: int = 1
    verdef: bytes = b""
    verdef_count: int = 1
    notes: Sequence[bytes] = ()
    """contents of segments of notes"""
    interp: bytes = b""
    more_phdrs: Sequence[tuple[int, ...]] = ()
    """(type, flags, offset, vaddr, paddr, filesz, memsz, align)"""
    sections: Sequence[tuple[int, ...]] = ()
    """(name, type, flags, addr, offset, size, link, info, addralign, entsize)"""
    bss: int = 64
    bits: int = 64
    order: str = "<"
    machine: int = 62
    string_size: int | None = None
    """DT_STRSZ where it is not the truth"""

    def data(self) -> bytes:
        """Give the bytes of the file."""
        wide = self.bits == 64
        ehdr_size, phdr_size, shdr_size, width = (64, 56, 64, 16) if wide else (52, 32, 40, 8)
        count = 2 + len(self.notes) + bool(self.interp) + len(self.more_phdrs)
        at = ehdr_size + count * phdr_size
        parts: list[bytes] = []

        def put(content: bytes) -> int:
            nonlocal at
            pad = -at % 8
            parts.append(bytes(pad) + content)
            start = at + pad
            at = start + len(content)
            return start

        interp = put(self.interp) if self.interp else 0
        verneed = put(self.verneed) if self.verneed else 0
        verdef = put(self.verdef) if self.verdef else 0
        notes = [put(note) for note in self.notes]
        strings = put(self.strings)
        entries = list(self.dynamic)
        if verneed:
            entries += [(DT_VERNEED, BASE + verneed), (DT_VERNEEDNUM, self.verneed_count)]
        if verdef:
            entries += [(DT_VERDEF, BASE + verdef), (DT_VERDEFNUM, self.verdef_count)]
        size = len(self.strings) if self.string_size is None else self.string_size
        entries += [(DT_STRTAB, BASE + strings), (DT_STRSZ, size)]
        entries += [(0, 0)] * self.spare
        pair = self.order + ("QQ" if wide else "II")
        dynamic = put(b"".join(struct.pack(pair, *entry) for entry in entries))
        length = len(entries) * width
        end = at
        phdrs: list[tuple[int, ...]] = [(PT_LOAD, 6, 0, BASE, BASE, end, end + self.bss, 0x1000)]
        phdrs.append((PT_DYNAMIC, 6, dynamic, BASE + dynamic, BASE + dynamic, length, length, 8))
        if self.interp:
            phdrs.append((PT_INTERP, 4, interp, BASE + interp, BASE + interp, *[len(self.interp)] * 2, 1))
        for start, note in zip(notes, self.notes, strict=True):
            phdrs.append((PT_NOTE, 4, start, BASE + start, BASE + start, *[len(note)] * 2, 4))
        phdrs += [tuple(header) for header in self.more_phdrs]
        shoff = put(b"") if self.sections else 0
        table = b"".join(self._shdr(section) for section in self.sections)
        head = struct.pack(
            self.order + ("16sHHIQQQIHHHHHH" if wide else "16sHHIIIIIHHHHHH"),
            bytes([0x7F, 0x45, 0x4C, 0x46, 2 if wide else 1, 1 if self.order == "<" else 2, 1]),
            *(3, self.machine, 1, 0, ehdr_size, shoff, 0, ehdr_size, phdr_size, len(phdrs)),
            *(shdr_size if self.sections else 0, len(self.sections), 0),
        )
        return head + b"".join(map(self._phdr, phdrs)) + b"".join(parts) + table

    def _phdr(self, header: tuple[int, ...]) -> bytes:
        if self.bits == 64:
            return struct.pack(self.order + "IIQQQQQQ", *header)
        kind, flags, *middle, align = header
        return struct.pack(self.order + "IIIIIIII", kind, *middle, flags, align)

    def _shdr(self, header: tuple[int, ...]) -> bytes:
        return struct.pack(self.order + ("IIQQQQIIQQ" if self.bits == 64 else "IIIIIIIIII"), *header)


def dlopen_note(description: bytes) -> bytes:
    """Give one note of the ELF dlopen metadata specification."""
    head = struct.pack("<III", 4, len(description), 0x407C0C0A) + b"FDO\0"
    return head + description + bytes(-len(description) % 4)


def verneed(name: int = NEED, versions: Sequence[int] = (VERSION,), order: str = "<") -> bytes:
    """Give one verneed record with its versions (LSB, "Symbol Version Requirements")."""
    out = struct.pack(order + "HHIII", 1, len(versions), name, 16, 0)
    for number, version in enumerate(versions, 1):
        out += struct.pack(order + "IHHII", 0, 0, number, version, 16 if number < len(versions) else 0)
    return out


def verdef(names: Sequence[int] = (SELF, VERSION), order: str = "<") -> bytes:
    """Give verdef records, the first of them the base definition."""
    out = b""
    for number, name in enumerate(names):
        last = number == len(names) - 1
        out += struct.pack(order + "HHHHIII", 1, number == 0, number + 1, 1, 0, 20, 0 if last else 28)
        out += struct.pack(order + "II", name, 0)
    return out


def samples() -> dict[str, bytes]:
    """Give a few whole files, one for each road through the reader and the editor."""
    interp = b"/lib64/ld-linux-x86-64.so.2\0"
    note = dlopen_note(b'[{"soname":["libz.so.1","libz.so"],"priority":"recommended"}]\0')
    rich = {"verneed": verneed(), "verdef": verdef(), "verdef_count": 2, "notes": (note,)}
    return {
        "plain": Forged().data(),
        "full": Forged(spare=1, dynamic=[(DT_NEEDED, NEED)]).data(),
        "rich": Forged(**rich).data(),  # type: ignore[arg-type]
        "program": Forged(interp=interp, **rich).data(),  # type: ignore[arg-type]
        "narrow": Forged(bits=32, machine=3, interp=b"/lib/ld-linux.so.2\0", verneed=verneed()).data(),
        "big_endian": Forged(order=">", machine=22, verneed=verneed(order=">")).data(),
        "sections": Forged(
            sections=[
                (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
                (1, 8, 3, BASE + 0x400, 0x400, 64, 0, 0, 8, 0),
                (2, 1, 0, 0, 64, 32, 0, 0, 1, 0),
            ]
        ).data(),
    }
