"""Checks of dynamic symbols that an edit renamed: looked up as ld.so does, referred to as before."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from nixpatch.elf import structs as elf
from nixpatch.elf.errors import malformed
from nixpatch.elf.headers import ElfFile
from nixpatch.elf.symbol_tables import (
    SymbolTables,
    gnu_hash_of,
    read_symbol_tables,
    relocation_symbols,
    sysv_hash_of,
)
from nixpatch.model import ManualEdit

_Symbol = tuple[str, int, bytes]
"""name, version index, and the entry without its name"""


def symbol_violations(old: ElfFile, new: ElfFile, manual: ManualEdit) -> Iterator[str]:
    """Check that the symbols are those of the original with new names and versions.

    Every relocation has to refer to the symbol that it had, and every symbol to be found by its name.
    """
    before, after = read_symbol_tables(old), read_symbol_tables(new)
    expected = [_edited(symbol, manual) for symbol in _symbols(before)]
    symbols = list(_symbols(after))
    if before.versions is None:
        expected = [(name, 1, rest) for name, _, rest in expected]
    if Counter(expected) != Counter(symbols):
        yield "the symbols are not those of the original with the new names and versions"
        return
    pairs = zip(
        relocation_symbols(before.layout, before.relocations),
        relocation_symbols(after.layout, after.relocations),
        strict=False,
    )
    if len(before.relocations) != len(after.relocations) or any(
        len(first.table.data) != len(second.table.data)
        for first, second in zip(before.relocations, after.relocations, strict=True)
    ):
        yield "the number of relocations changed"
        return
    for (_, first, kind), (_, second, other_kind) in pairs:
        if max(first, second) >= len(symbols):  # _relocated: no table has their number
            if first != second:
                yield "a relocation refers to another symbol"
                return
        elif kind != other_kind or expected[first] != symbols[second]:
            yield "a relocation refers to another symbol"
            return
    if not _other_bytes_same(before, after):
        yield "a relocation changed in more than its symbol"
    yield from _lookup_violations(new, before, after, expected)


def _symbols(tables: SymbolTables) -> Iterator[_Symbol]:
    size = tables.layout.symbol.size
    versions = tables.version_indexes() or (1,) * len(tables.names)
    for index, (name, version) in enumerate(zip(tables.names, versions, strict=True)):
        yield name, version, tables.symbols.data[index * size + 4 : (index + 1) * size]


def _edited(symbol: _Symbol, manual: ManualEdit) -> _Symbol:
    name, version, rest = symbol
    new = dict(manual.renamed_symbols).get(name, name) if name else name
    return new, 1 if name in manual.unversioned_symbols else version, rest


def _other_bytes_same(before: SymbolTables, after: SymbolTables) -> bool:
    """Compare offsets and addends of relocations."""
    word = before.layout.bits // 8
    for first, second in zip(before.relocations, after.relocations, strict=True):
        for start in (0, 2 * word):
            if start >= first.entry:
                continue
            width = struct.Struct(f"{start}x{word}s{first.entry - start - word}x")
            if list(width.iter_unpack(first.table.data)) != list(width.iter_unpack(second.table.data)):
                return False
    return True


def _lookup_violations(
    new: ElfFile, before: SymbolTables, after: SymbolTables, expected: list[_Symbol]
) -> Iterator[str]:
    """Look every symbol up that a hash table of the original has."""
    if before.gnu_hash is not None:
        lookup = _GnuLookup(new)
        names = after.names[before.gnu_hash.first :]
        if sorted(names) != sorted(name for name, _, _ in expected[before.gnu_hash.first :]):
            yield "DT_GNU_HASH has other symbols"
        for index, name in enumerate(names, before.gnu_hash.first):
            if index not in lookup.indexes(name):
                yield f"DT_GNU_HASH does not lead to the symbol {name}"
                return
    if before.sysv_hash is not None and after.sysv_hash is not None:
        old, buckets = _sysv_lists(before)
        reached, new_buckets = _sysv_lists(after)
        if len(old) != len(reached) or buckets != new_buckets:
            yield "DT_HASH has other symbols"
        for index, bucket in reached.items():
            if sysv_hash_of(after.names[index]) % buckets != bucket:
                yield f"DT_HASH does not lead to the symbol {after.names[index]}"
                return


class _GnuLookup:
    """Looks names up by DT_GNU_HASH as do_lookup_x in elf/dl-lookup.c of glibc does."""

    def __init__(self, file: ElfFile) -> None:
        address = file.headers.values[elf.DT_GNU_HASH]
        order, self.bits = file.headers.layout.order, file.headers.layout.bits
        head = file.memory(address, 16)
        if head is None:
            raise malformed("DT_GNU_HASH lies in no PT_LOAD")
        self.count, self.first, words, self.shift = struct.unpack(f"{order}4I", head)
        kind = "Q" if self.bits == 64 else "I"
        address += 16
        self.filter = self._read(file, address, f"{order}{words}{kind}")
        address += words * self.bits // 8
        self.buckets = self._read(file, address, f"{order}{self.count}I")
        table = read_symbol_tables(file)
        self.chains = self._read(file, address + 4 * self.count, f"{order}{len(table.names) - self.first}I")

    @staticmethod
    def _read(file: ElfFile, address: int, form: str) -> tuple[int, ...]:
        data = file.memory(address, struct.calcsize(form))
        if data is None:
            raise malformed("DT_GNU_HASH lies in no PT_LOAD")
        return struct.unpack(form, data)

    def indexes(self, name: str) -> Iterator[int]:
        """Yield the indexes of symbols that a search for a name compares."""
        value = gnu_hash_of(name)
        word = self.filter[value // self.bits % len(self.filter)]
        if not (word >> value % self.bits & word >> (value >> self.shift) % self.bits & 1):
            return
        index = self.buckets[value % self.count]
        if index < self.first:
            return
        for chain in islice(self.chains, index - self.first, None):
            if chain | 1 == value | 1:
                yield index
            if chain & 1:
                return
            index += 1


def _sysv_lists(tables: SymbolTables) -> tuple[dict[int, int], int]:
    """Return the bucket of each symbol in DT_HASH, and the number of buckets."""
    hashed = tables.sysv_hash
    if hashed is None:
        return {}, 0
    kind = "Q" if hashed.word == 8 else "I"
    form = f"{tables.layout.order}{2 + hashed.buckets + hashed.chains}{kind}"
    _, _, *numbers = struct.unpack(form, hashed.table.data)
    heads, chains = numbers[: hashed.buckets], numbers[hashed.buckets :]
    reached: dict[int, int] = {}
    for bucket, index in enumerate(heads):
        while index and index not in reached:
            if index >= len(chains):
                raise malformed("DT_HASH refers to a symbol that is not there")
            reached[index] = bucket
            index = chains[index]  # noqa: PLW2901
    return reached, hashed.buckets
