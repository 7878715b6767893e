"""New names and cleared versions of dynamic symbols, in the tables where they are. Pure.

DT_GNU_HASH wants the symbols of a bucket side by side. A defined symbol with a new name may thus take another
place in .dynsym; symbols in between move, with their versions, and relocations follow. All tables keep their
places and sizes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nixpatch.elf.header_tables import ByteChange, difference
from nixpatch.elf.symbol_tables import (
    GnuHash,
    ImageTable,
    SymbolTables,
    SysvHash,
    gnu_hash_of,
    relocation_symbols,
    sysv_hash_of,
)
from nixpatch.errors import FileRefused
from nixpatch.model import ManualEdit

_GLOBAL = 1  # VER_NDX_GLOBAL: no version
_RUN = 32  # bytes of a table that are compared as one


@dataclass(frozen=True, slots=True)
class ResolvedSymbols:
    """The symbols of one file that an edit changes."""

    tables: SymbolTables
    names: Mapping[int, str]
    """new name by symbol index"""
    unversioned: frozenset[int]
    """indexes of symbols that lose their version"""


def resolve_symbols(tables: SymbolTables, manual: ManualEdit) -> ResolvedSymbols | None:
    """Compare an edit with the symbols of a file. None: it changes none.

    Raises:
        FileRefused: a new name cannot be one, or this file cannot be edited like this.

    """
    new = dict(manual.renamed_symbols)
    for name in new.values():
        if not name or "\0" in name or "@" in name:
            raise FileRefused(f"{name!r} cannot be the name of a symbol")
    names = {
        index: new[name] for index, name in enumerate(tables.names) if name and new.get(name, name) != name
    }
    cleared = set(manual.unversioned_symbols)
    indexes = tables.version_indexes() or ()
    unversioned = frozenset(
        index
        for index, (name, version) in enumerate(zip(tables.names, indexes, strict=False))
        if name in cleared and version != _GLOBAL
    )
    if not names and not unversioned:
        return None
    hashed = tables.gnu_hash
    if hashed is not None and any(index >= hashed.first for index in names):
        if tables.has_packed_relocations:
            raise FileRefused("it has packed relocations, so its symbols cannot change places")
        _refuse_inconsistent(tables, hashed)
    return ResolvedSymbols(tables, names, unversioned)


def symbol_changes(resolved: ResolvedSymbols, offsets: Mapping[bytes, int]) -> Iterator[ByteChange]:
    """Yield the changes of all tables; ``offsets`` has the new names' places in the string table."""
    tables = resolved.tables
    names = [resolved.names.get(index, name) for index, name in enumerate(tables.names)]
    order = new_order(tables, names) if resolved.names else range(len(names))
    size = tables.layout.symbol.size
    symbols = bytearray()
    for index in order:
        entry = tables.symbols.data[index * size : (index + 1) * size]
        if index in resolved.names:
            # st_name is first in both classes.
            offset = offsets[os.fsencode(resolved.names[index])]
            entry = offset.to_bytes(4, tables.layout.byteorder) + entry[4:]
        symbols += entry
    yield from table_changes(tables.symbols, bytes(symbols))
    versions = tables.version_indexes()
    if versions is not None and tables.versions is not None:
        new = [_GLOBAL if index in resolved.unversioned else versions[index] for index in order]
        yield from table_changes(tables.versions, struct.pack(f"{tables.layout.order}{len(new)}H", *new))
    if not resolved.names:
        return
    if tables.sysv_hash is not None:
        hashed = [names[index] for index in order]
        yield from table_changes(tables.sysv_hash.table, _sysv_table(tables, tables.sysv_hash, hashed, order))
    if tables.gnu_hash is not None and any(index >= tables.gnu_hash.first for index in resolved.names):
        yield from _moved(tables, tables.gnu_hash, names, order)


def new_order(tables: SymbolTables, names: Sequence[str]) -> list[int]:
    """Return the old index of each symbol after the edit: by bucket, and where it was if it can stay there.

    The order in a bucket is free. A symbol that leaves one for another moves the others by one place, but of
    each bucket in between only one symbol has to move.
    """
    hashed = tables.gnu_hash
    if hashed is None or tuple(names[hashed.first :]) == tables.names[hashed.first :]:
        return list(range(len(names)))
    members: dict[int, list[int]] = {}
    for index in range(hashed.first, len(names)):
        members.setdefault(gnu_hash_of(names[index]) % hashed.buckets, []).append(index)
    order = list(range(hashed.first))
    for _, bucket in sorted(members.items()):
        places = range(len(order), len(order) + len(bucket))
        moved = iter([index for index in bucket if index not in places])
        staying = set(bucket).intersection(places)
        order += [place if place in staying else next(moved) for place in places]
    return order


def table_changes(table: ImageTable, new: bytes) -> Iterator[ByteChange]:
    """Yield the runs in which a table changes."""
    for start in range(0, len(new), _RUN):
        yield from difference(
            table.offset + start, table.data[start : start + _RUN], new[start : start + _RUN]
        )


def _moved(
    tables: SymbolTables, hashed: GnuHash, names: Sequence[str], order: Sequence[int]
) -> Iterator[ByteChange]:
    """Yield the changes of DT_GNU_HASH, and of relocations whose symbols have another place."""
    new = _gnu_table(tables, hashed, [names[index] for index in order])
    yield from table_changes(hashed.table, new)
    places = {old: new for new, old in enumerate(order) if old != new}
    bits = tables.layout.bits
    word = struct.Struct(tables.layout.order + ("Q" if bits == 64 else "I"))
    shift = 32 if bits == 64 else 8
    for offset, symbol, rest in relocation_symbols(tables.layout, tables.relocations):
        if symbol in places:
            before, after = symbol << shift | rest, places[symbol] << shift | rest
            yield from difference(offset, word.pack(before), word.pack(after))


def _gnu_table(tables: SymbolTables, hashed: GnuHash, names: Sequence[str]) -> bytes:
    """Build DT_GNU_HASH for names that are in the order of their buckets."""
    bits, order = tables.layout.bits, tables.layout.order
    filter_words, buckets, chains = [0] * hashed.words, [0] * hashed.buckets, []
    hashes = [gnu_hash_of(name) for name in names[hashed.first :]]
    for number, value in enumerate(hashes):
        bucket = value % hashed.buckets
        filter_words[value // bits % hashed.words] |= 1 << value % bits | 1 << (value >> hashed.shift) % bits
        buckets[bucket] = buckets[bucket] or hashed.first + number
        is_last = number + 1 == len(hashes) or hashes[number + 1] % hashed.buckets != bucket
        chains.append(value & ~1 | is_last)
    return b"".join(
        (
            hashed.table.data[:16],
            struct.pack(f"{order}{hashed.words}{'Q' if bits == 64 else 'I'}", *filter_words),
            struct.pack(f"{order}{len(buckets) + len(chains)}I", *buckets, *chains),
        )
    )


def _sysv_table(tables: SymbolTables, hashed: SysvHash, names: Sequence[str], order: Sequence[int]) -> bytes:
    """Build DT_HASH with the symbols that are in it now."""
    kind = "Q" if hashed.word == 8 else "I"
    words = struct.Struct(f"{tables.layout.order}{2 + hashed.buckets + hashed.chains}{kind}")
    _, _, *old = words.unpack(hashed.table.data)
    members = set(old) - {0}
    buckets, chains = [0] * hashed.buckets, [0] * hashed.chains
    for index in reversed(range(1, hashed.chains)):
        if order[index] in members:
            bucket = sysv_hash_of(names[index]) % hashed.buckets
            chains[index], buckets[bucket] = buckets[bucket], index
    return words.pack(hashed.buckets, hashed.chains, *buckets, *chains)


def _refuse_inconsistent(tables: SymbolTables, hashed: GnuHash) -> None:
    """Refuse a table that does not hold what it should: it would be rebuilt from something else."""
    count = len(tables.names) - hashed.first
    chains = struct.unpack(f"{tables.layout.order}{count}I", hashed.table.data[-4 * count :]) if count else ()
    names = tables.names[hashed.first :]
    if any(gnu_hash_of(name) | 1 != chain | 1 for name, chain in zip(names, chains, strict=True)):
        raise FileRefused("its DT_GNU_HASH does not agree with its symbols")
