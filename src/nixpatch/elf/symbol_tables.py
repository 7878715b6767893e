"""The tables that hold, or refer to, the entries of .dynsym: names, versions, hash tables, relocations.

Sources: gABI, "Symbol Table", "Hash Table" and "Relocation"; LSB, "Symbol Versioning"; for DT_GNU_HASH
https://flapenguin.me/elf-dt-gnu-hash and do_lookup_x in elf/dl-lookup.c of glibc.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nixpatch.elf import structs as elf
from nixpatch.elf.dynamic import verneed_with_versions
from nixpatch.elf.errors import malformed
from nixpatch.elf.headers import ElfFile
from nixpatch.elf.structs import Layout
from nixpatch.elf.symbols import SymbolTable

_HASH = 16 << 20  # bytes of a hash table
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ImageTable:
    """A table and its place in the image."""

    offset: int
    data: bytes
    name: str

    @property
    def range(self) -> tuple[int, int, str]:
        """Offset, length and name."""
        return self.offset, len(self.data), self.name


@dataclass(frozen=True, slots=True)
class GnuHash:
    """DT_GNU_HASH: a Bloom filter, buckets, and chains of the symbols from ``first`` on, in their order."""

    table: ImageTable
    buckets: int
    first: int
    """index of the first symbol that is in it"""
    words: int
    """of the Bloom filter, which have the size of an address"""
    shift: int


@dataclass(frozen=True, slots=True)
class SysvHash:
    """DT_HASH: a bucket is a list, linked by symbol indexes. 0 ends it."""

    table: ImageTable
    buckets: int
    chains: int
    word: int
    """bytes"""


@dataclass(frozen=True, slots=True)
class RelocationTable:
    """One of DT_REL, DT_RELA and DT_JMPREL."""

    table: ImageTable
    entry: int
    """bytes"""


@dataclass(frozen=True, slots=True)
class SymbolTables:
    """All tables of one file. A table that it does not have is None."""

    layout: Layout
    symbols: ImageTable
    names: tuple[str, ...]
    """by index"""
    versions: ImageTable | None
    gnu_hash: GnuHash | None
    """None also if no symbol is in it"""
    sysv_hash: SysvHash | None
    relocations: tuple[RelocationTable, ...]
    has_packed_relocations: bool
    """there are relocations with symbols in a form that this module does not read"""

    @property
    def ranges(self) -> tuple[tuple[int, int, str], ...]:
        """Offset, length and name of all tables."""
        tables = (
            self.symbols,
            self.versions,
            self.gnu_hash.table if self.gnu_hash else None,
            self.sysv_hash.table if self.sysv_hash else None,
            *(relocations.table for relocations in self.relocations),
        )
        return tuple(table.range for table in tables if table is not None)

    def version_indexes(self) -> tuple[int, ...] | None:
        """Return DT_VERSYM, a number for each symbol."""
        if self.versions is None:
            return None
        return struct.unpack(f"{self.layout.order}{len(self.names)}H", self.versions.data)


def gnu_hash_of(name: str) -> int:
    """Return the hash of a name for DT_GNU_HASH (Bernstein's, 32 bits)."""
    value = 5381
    for byte in os.fsencode(name):
        value = value * 33 + byte & _MASK
    return value


def sysv_hash_of(name: str) -> int:
    """Return the hash of a name for DT_HASH and for versions (gABI, "Hash Table")."""
    value = 0
    for byte in os.fsencode(name):
        value = (value << 4) + byte & _MASK
        value = (value ^ (value & 0xF0000000) >> 24) & ~0xF0000000
    return value


def read_symbol_tables(file: ElfFile) -> SymbolTables:
    """Read the tables.

    Raises:
        SkippedFile: they contradict each other or the file, or are too large.

    """
    reader, values = SymbolTable(file), file.headers.values
    count = symbol_count(file, reader)
    layout = file.headers.layout
    name_of = reader.names()
    names = tuple(name_of(entry[0]) for entry in reader.entries(count)) if count else ()
    symbols = _table(file, values.get(elf.DT_SYMTAB), count * layout.symbol.size, "the symbols")
    return SymbolTables(
        layout,
        symbols or ImageTable(0, b"", "the symbols"),
        names,
        _table(file, values.get(elf.DT_VERSYM), 2 * count, "the versions of the symbols"),
        _gnu_hash(file, count),
        _sysv_hash(file, count),
        tuple(_relocations(file)),
        not elf.PACKED_RELOCATION_TAGS.isdisjoint(values),
    )


def symbol_count(file: ElfFile, reader: SymbolTable) -> int:
    """Return the number of symbols; if no hash table has it, that of the section header."""
    count, is_exact = reader.count()
    address = file.headers.values.get(elf.DT_SYMTAB)
    if is_exact or address is None:
        return count
    sections = (s for s in file.headers.shdrs if s.type == elf.SHT_DYNSYM and s.addr == address)
    size = file.headers.layout.symbol.size
    counts = (
        s.size // size for s in sections if file.headers.file_offset(address, max(s.size, 1)) is not None
    )
    return min(max([count, *counts]), elf.SYMBOL_LIMIT)


def highest_string(file: ElfFile) -> int:
    """Return the highest offset into the string table that a symbol or a version record refers to.

    Raises:
        SkippedFile: the tables contradict each other or the file.

    """
    reader = SymbolTable(file)
    count = symbol_count(file, reader)
    offsets = [entry[0] for entry in reader.entries(count)] if count else []
    for fields, versions in verneed_with_versions(file):
        offsets.append(fields[2])
        offsets += [version[3] for version in versions]
    return max(offsets, default=0)


def _table(file: ElfFile, address: int | None, size: int, name: str) -> ImageTable | None:
    if address is None or size == 0:
        return None
    offset = file.headers.file_offset(address, size)
    if offset is None:
        raise malformed(f"{name} lie in no PT_LOAD")
    return ImageTable(offset, file.image.read(offset, size), name)


def _gnu_hash(file: ElfFile, count: int) -> GnuHash | None:
    layout, address = file.headers.layout, file.headers.values.get(elf.DT_GNU_HASH)
    head = _table(file, address, 16, "DT_GNU_HASH")
    if head is None or address is None:
        return None
    buckets, first, words, shift = struct.unpack(f"{layout.order}4I", head.data)
    start = 16 + words * (layout.bits // 8)
    if buckets == 0 or first > count:  # no symbol is in it
        return None
    if words == 0 or start + 4 * (buckets + count - first) > _HASH:
        raise malformed("an absurd DT_GNU_HASH")
    filled = _table(file, address + start, 4 * buckets, "DT_GNU_HASH")
    if filled is None or not any(filled.data):
        return None
    table = _table(file, address, start + 4 * (buckets + count - first), "DT_GNU_HASH")
    return None if table is None else GnuHash(table, buckets, first, words, shift)


def _sysv_hash(file: ElfFile, count: int) -> SysvHash | None:
    address, word = file.headers.values.get(elf.DT_HASH), file.headers.machine.arch.hash_word
    head = _table(file, address, 2 * word, "DT_HASH")
    if head is None:
        return None
    buckets, chains = struct.unpack(file.headers.layout.order + ("2Q" if word == 8 else "2I"), head.data)
    size = word * (2 + buckets + chains)
    if chains != count or size > _HASH:
        raise malformed("an absurd DT_HASH")
    table = _table(file, address, size, "DT_HASH") if buckets else None
    return None if table is None else SysvHash(table, buckets, chains, word)


def _relocations(file: ElfFile) -> Iterator[RelocationTable]:
    """Yield the tables with symbols. DT_JMPREL may be a part of another one, which then has its entries."""
    values, word = file.headers.values, file.headers.layout.bits // 8
    tables = [
        (elf.DT_RELA, elf.DT_RELASZ, 3 * word),
        (elf.DT_REL, elf.DT_RELSZ, 2 * word),
        (elf.DT_JMPREL, elf.DT_PLTRELSZ, (2 if values.get(elf.DT_PLTREL) == elf.DT_REL else 3) * word),
    ]
    known: list[tuple[int, int]] = []
    left = elf.RELOCATION_LIMIT
    for tag, size_tag, entry in tables:
        size = values.get(size_tag, 0) if tag in values else 0
        left -= size
        if left < 0:
            raise malformed(f"{size} bytes of relocations")
        table = _table(file, values.get(tag), size - size % entry, "the relocations")
        if table is None:
            continue
        start, end = table.offset, table.offset + len(table.data)
        for first, last in known:
            if first <= start < last:
                start = min(last, end)
            elif start < first < end:
                end = first
        if start < end:
            if (start - table.offset) % entry or (end - start) % entry:
                raise malformed("relocation tables overlap within an entry")
            known.append((start, end))
            data = table.data[start - table.offset : end - table.offset]
            yield RelocationTable(ImageTable(start, data, "the relocations"), entry)


def relocation_symbols(
    layout: Layout, relocations: Iterable[RelocationTable]
) -> Iterator[tuple[int, int, int]]:
    """Yield image offset of ``r_info``, symbol index and the rest of ``r_info`` of each relocation."""
    shift = 32 if layout.bits == 64 else 8
    word = layout.bits // 8
    for relocation in relocations:
        kind = "Q" if layout.bits == 64 else "I"
        entry = struct.Struct(f"{layout.order}{relocation.entry // word}{kind}")
        offset = relocation.table.offset + word
        for fields in entry.iter_unpack(relocation.table.data):
            yield offset, fields[1] >> shift, fields[1] & (1 << shift) - 1
            offset += relocation.entry
