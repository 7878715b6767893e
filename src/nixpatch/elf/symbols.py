"""The dynamic symbols of a file, as ld.so reads them: .dynsym by DT_SYMTAB, versions by DT_VERSYM.

No dynamic entry holds their number. DT_HASH has it, DT_GNU_HASH implies it if it contains any symbol, and
relocations refer to imported symbols. Section headers have it too, but ld.so ignores them, and they may be
gone.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Collection, Iterator
from typing import Final

from nixpatch.elf.dynamic import StringReader, verdef_names, verneed_with_versions
from nixpatch.elf.errors import malformed
from nixpatch.elf.headers import ElfFile
from nixpatch.elf.structs import (
    DT_GNU_HASH,
    DT_HASH,
    DT_JMPREL,
    DT_PLTREL,
    DT_PLTRELSZ,
    DT_REL,
    DT_RELA,
    DT_RELASZ,
    DT_RELSZ,
    DT_SYMTAB,
    DT_VERSYM,
    RELOCATION_LIMIT,
    SYMBOL_LIMIT,
)
from nixpatch.elf.undo import open_views
from nixpatch.model import Definition, Reference, SymbolKind, Symbols

_STRINGS: Final = 32 << 20  # bytes, of the table and of all names together; libtorch_cpu.so has five million
_BUCKETS: Final = 1 << 20
_CHUNK: Final = 1 << 10  # words of a hash table to read at once
_TABLES: Final = ((DT_RELA, DT_RELASZ), (DT_REL, DT_RELSZ))
_SHN_UNDEF, _SHN_ABS = 0, 0xFFF1
_STB_GLOBAL, _STB_WEAK, _STB_GNU_UNIQUE = 1, 2, 10
_STV_INTERNAL, _STV_HIDDEN = 1, 2
_STT_TLS: Final = 6
_KINDS: Final = {
    1: SymbolKind.DATA,
    2: SymbolKind.CODE,
    5: SymbolKind.DATA,  # STT_COMMON
    _STT_TLS: SymbolKind.TLS,
    10: SymbolKind.CODE,  # STT_GNU_IFUNC
}
_HIDDEN, _INDEX = 0x8000, 0x7FFF


def read_symbols(source: str | int) -> Symbols:
    """Read the exported and imported symbols of a file.

    Args:
        source: a path, or a descriptor, which stays open.

    Raises:
        FileRefused: it is not a well-formed dynamic ELF file.
        OSError: it cannot be read.

    """
    with open_views(source) as views:
        return SymbolTable(views.current).read()


class SymbolTable:
    """The .dynsym of one file.

    Its methods raise ``SkippedFile`` if the file contradicts itself, and ``OSError``.
    """

    def __init__(self, file: ElfFile) -> None:
        self.file = file
        self.headers = file.headers
        self.order = file.headers.layout.order

    def read(self) -> Symbols:
        """Return the exported and imported symbols."""
        count, _ = self.count()
        if count == 0:
            return Symbols({}, (), versioned=False)
        defs, needs, name_of = self._definitions(), self._needs(), self.names()
        defined: dict[str, list[Definition]] = {}
        wanted: list[Reference] = []
        for number, fields in zip(self.version_indexes(count), self.entries(count), strict=True):
            name_offset, value, size, info, other, section = fields
            binding, kind = info >> 4, info & 0xF
            if binding not in {_STB_GLOBAL, _STB_WEAK, _STB_GNU_UNIQUE} or name_offset == 0:
                continue
            name = name_of(name_offset)
            index = number & _INDEX
            if section == _SHN_UNDEF:
                soname, version = needs.get(index, (None, None)) if index > 1 else (None, None)
                wanted.append(Reference(name, version, soname))
            elif (other & 3) not in {_STV_INTERNAL, _STV_HIDDEN} and (
                value or section == _SHN_ABS or kind == _STT_TLS
            ):
                defined.setdefault(name, []).append(
                    Definition(
                        defs.get(index) if index > 1 else None,
                        index,
                        bool(number & _HIDDEN),
                        _KINDS.get(kind, SymbolKind.ANY),
                        size,
                        binding != _STB_GLOBAL,
                    )
                )
        exported = {name: tuple(definitions) for name, definitions in defined.items()}
        return Symbols(exported, tuple(wanted), DT_VERSYM in self.headers.values)

    def entries(self, count: int) -> Iterator[tuple[int, int, int, int, int, int]]:
        """Yield name offset, value, size, info, other and section index of the first ``count`` symbols."""
        layout = self.headers.layout
        return layout.symbols_of(self._read(self.headers.values[DT_SYMTAB], count * layout.symbol.size))

    def names(self) -> Callable[[int], str]:
        """Return a function that reads names by offset. It bounds their sum: all may be tails of one."""
        if self.headers.string_size > _STRINGS:
            raise malformed(f"a string table of {self.headers.string_size} bytes")
        strings = self.file.image.read(self.headers.string_offset, self.headers.string_size)
        left = _STRINGS

        def name_of(offset: int) -> str:
            nonlocal left
            name = _string(strings, offset)
            left -= len(name)
            if left < 0:
                raise malformed(f"names of symbols of more than {_STRINGS} bytes")
            return name

        return name_of

    def undefined(self, names: Collection[int]) -> frozenset[int]:
        """Return which of these offsets into the string table are names of symbols that the file imports."""
        count, _ = self.count()
        if self.headers.values.get(DT_SYMTAB) is None or count == 0:
            return frozenset()
        # st_name and st_shndx; what lies between them, and behind, differs by class
        entry = struct.Struct(self.order + ("I2xH16x" if self.headers.layout.bits == 64 else "I10xH"))
        table = self._read(self.headers.values[DT_SYMTAB], count * entry.size)
        return frozenset(
            name for name, section in entry.iter_unpack(table) if section == _SHN_UNDEF and name in names
        )

    def count(self) -> tuple[int, bool]:
        """Return the number of symbols, and whether it is exact or a lower bound."""
        values, is_exact = self.headers.values, True
        if DT_HASH in values:
            wide = self.headers.machine.arch.hash_word == 8
            words = struct.Struct(self.order + ("QQ" if wide else "II"))
            _, count = words.unpack(self._read(values[DT_HASH], words.size))
        else:
            count = self._gnu_count(values[DT_GNU_HASH]) if DT_GNU_HASH in values else None
            # Without a count the file exports nothing, but it may import: for a program without exports, ld
            # writes a table that begins with symbol 1, exported or not.
            is_exact = count is not None
            count = self._relocated() if count is None else count
        if count > SYMBOL_LIMIT:
            raise malformed(f"{count} dynamic symbols")
        return (count, is_exact) if DT_SYMTAB in values else (0, True)

    def _relocated(self) -> int:
        """Return the highest symbol index of all relocations plus one."""
        values, bits = self.headers.values, self.headers.layout.bits
        tables = [(values.get(tag), values.get(size, 0), tag) for tag, size in _TABLES]
        tables.append((values.get(DT_JMPREL), values.get(DT_PLTRELSZ, 0), values.get(DT_PLTREL, DT_RELA)))
        highest = 0
        for address, size, kind in tables:
            if address is None or size == 0:
                continue
            if size > RELOCATION_LIMIT:
                raise malformed(f"{size} bytes of relocations")
            words = "2" if kind == DT_REL else "3"  # offset, info, and the addend of DT_RELA
            entry = struct.Struct(self.order + words + ("Q" if bits == 64 else "I"))
            data = self._read(address, size - size % entry.size)
            shift = 32 if bits == 64 else 8
            highest = max(highest, max((info[1] >> shift for info in entry.iter_unpack(data)), default=0))
        return highest + 1

    def _gnu_count(self, address: int) -> int | None:
        """Walk to the end of the last chain, whose lowest bit is set. Return None if there is no chain."""
        buckets, first, words, _ = struct.unpack(self.order + "4I", self._read(address, 16))
        if buckets > _BUCKETS or words > _BUCKETS:
            raise malformed("an absurd DT_GNU_HASH")
        start = address + 16 + words * (self.headers.layout.bits // 8)
        last = max(self._words(start, buckets), default=0)
        if last < max(first, 1):
            return None
        for word in self._words(start + 4 * (buckets + last - first), SYMBOL_LIMIT):
            last += 1
            if word & 1 or last > SYMBOL_LIMIT:
                return int(last)
        raise malformed("a hash chain without end")

    def _words(self, address: int, count: int) -> Iterator[int]:
        """Yield 32-bit words. Reads a few at a time, because a chain may end where its segment does."""
        step = _CHUNK
        while count > 0:
            step = min(step, count)
            offset = self.headers.file_offset(address, 4 * step)
            if offset is None and step > 1:
                step //= 2
                continue
            data = self._read(address, 4 * step)
            yield from struct.unpack(f"{self.order}{step}I", data)
            address, count = address + 4 * step, count - step

    def version_indexes(self, count: int) -> tuple[int, ...]:
        """Return DT_VERSYM for the first ``count`` symbols; 1, the global version, for each without it."""
        address = self.headers.values.get(DT_VERSYM)
        if address is None:
            return (1,) * count
        return struct.unpack(f"{self.order}{count}H", self._read(address, 2 * count))

    def _definitions(self) -> dict[int, str]:
        """Map version index to name, from verdef."""
        return {index & _INDEX: name for index, name in verdef_names(self.file, with_base=True)}

    def _needs(self) -> dict[int, tuple[str | None, str | None]]:
        """Map version index to library and version name, from verneed."""
        string = StringReader(self.file)
        return {
            aux[2] & _INDEX: (string(fields[2]), string(aux[3]))
            for fields, versions in verneed_with_versions(self.file)
            for aux in versions
        }

    def _read(self, address: int, size: int) -> bytes:
        offset = self.headers.file_offset(address, max(size, 1))
        if offset is None:
            raise malformed(f"symbols or hashes at {address:#x} lie in no PT_LOAD")
        return self.file.image.read(offset, size)


def _string(strings: bytes, offset: int) -> str:
    end = strings.find(b"\0", offset)
    if end < 0 or offset >= len(strings):
        raise malformed(f"string at {offset:#x} has no end")
    return os.fsdecode(strings[offset:end])
