"""Checks of dynamic symbols that an edit renamed: looked up as ld.so does, referred to as before."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence

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
    new_names, unversioned = dict(manual.renamed_symbols), frozenset(manual.unversioned_symbols)
    expected = [
        (new_names.get(name, name) if name else name, 1 if name in unversioned else version, rest)
        for name, version, rest in _symbols(before)
    ]
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
    yield from _hash_violations(old, new, before, after, [name for name, _, _ in expected])


def _symbols(tables: SymbolTables) -> Iterator[_Symbol]:
    size = tables.layout.symbol.size
    versions = tables.version_indexes() or (1,) * len(tables.names)
    for index, (name, version) in enumerate(zip(tables.names, versions, strict=True)):
        yield name, version, tables.symbols.data[index * size + 4 : (index + 1) * size]


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


def _hash_violations(
    old: ElfFile, new: ElfFile, before: SymbolTables, after: SymbolTables, expected: Sequence[str]
) -> Iterator[str]:
    """Look symbols up in the hash tables. ``expected`` are the new names in the order of the original.

    In the original, too: an undo record may bring any.
    """
    if before.gnu_hash is not None and after.gnu_hash is not None:
        first = before.gnu_hash.first
        if tuple(expected[first:]) == before.names[first:]:
            if before.gnu_hash.table.data != after.gnu_hash.table.data:
                yield "DT_GNU_HASH changed, but no symbol in it"
        elif sorted(expected[first:]) != sorted(after.names[first:]):
            yield "DT_GNU_HASH has other symbols"
        else:
            yield from _gnu_violations(old, before.names)
            yield from _gnu_violations(new, after.names)
    elif before.gnu_hash is not after.gnu_hash:
        yield "DT_GNU_HASH is no longer one"
    if before.sysv_hash is not None and after.sysv_hash is not None:
        counts = [len(lists) for lists in (_sysv_lists(before), _sysv_lists(after))]
        if counts[0] != counts[1] or before.sysv_hash.buckets != after.sysv_hash.buckets:
            yield "DT_HASH has other symbols"
        yield from _sysv_violations(before)
        yield from _sysv_violations(after)


def _gnu_violations(file: ElfFile, names: Sequence[str]) -> Iterator[str]:
    """Check that do_lookup_x in elf/dl-lookup.c of glibc finds each symbol by its name."""
    table = _GnuTable(file, len(names))
    reached = table.reached()
    for index, name in enumerate(names[table.first :], table.first):
        value = gnu_hash_of(name)
        is_listed = reached.get(index) == value % len(table.buckets)
        if not (is_listed and table.passes(value) and table.chains[index - table.first] | 1 == value | 1):
            yield f"DT_GNU_HASH does not lead to the symbol {name}"
            return


def _sysv_violations(tables: SymbolTables) -> Iterator[str]:
    buckets = tables.sysv_hash.buckets if tables.sysv_hash else 1
    for index, bucket in _sysv_lists(tables).items():
        if sysv_hash_of(tables.names[index]) % buckets != bucket:
            yield f"DT_HASH does not lead to the symbol {tables.names[index]}"
            return


class _GnuTable:
    """DT_GNU_HASH, read anew."""

    def __init__(self, file: ElfFile, symbols: int) -> None:
        address = file.headers.values[elf.DT_GNU_HASH]
        order, self.bits = file.headers.layout.order, file.headers.layout.bits
        count, self.first, words, self.shift = self._read(file, address, f"{order}4I")
        address += 16
        self.filter = self._read(file, address, f"{order}{words}{'Q' if self.bits == 64 else 'I'}")
        address += words * self.bits // 8
        self.buckets = self._read(file, address, f"{order}{count}I")
        self.chains = self._read(file, address + 4 * count, f"{order}{max(symbols - self.first, 0)}I")

    @staticmethod
    def _read(file: ElfFile, address: int, form: str) -> tuple[int, ...]:
        data = file.memory(address, struct.calcsize(form))
        if data is None:
            raise malformed("DT_GNU_HASH lies in no PT_LOAD")
        return struct.unpack(form, data)

    def passes(self, value: int) -> bool:
        """Whether the Bloom filter lets a hash pass."""
        word = self.filter[value // self.bits % len(self.filter)]
        return bool(word >> value % self.bits & word >> (value >> self.shift) % self.bits & 1)

    def reached(self) -> dict[int, int]:
        """Return the bucket of each symbol that a search reaches. Buckets do not overlap."""
        bucket_of: dict[int, int] = {}
        for bucket, start in enumerate(self.buckets):
            for index in range(start, self.first + len(self.chains)) if start >= self.first else ():
                if index in bucket_of:
                    raise malformed("buckets of DT_GNU_HASH overlap")
                bucket_of[index] = bucket
                if self.chains[index - self.first] & 1:
                    break
        return bucket_of


def _sysv_lists(tables: SymbolTables) -> dict[int, int]:
    """Return the bucket of each symbol in DT_HASH."""
    hashed = tables.sysv_hash
    if hashed is None:
        return {}
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
    return reached
