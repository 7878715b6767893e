"""The tables that refer to the string table, compared by what they say: versions and dynamic symbols."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from nixpatch.elf import layout as elf
from nixpatch.elf import strings
from nixpatch.elf.headers import Headers
from nixpatch.elf.image import Image
from nixpatch.elf.unfit import malformed

_SYMBOLS: Final = 1 << 24  # what a hostile file can make us read; the largest in a wheel has 300,000
_SHT_DYNSYM: Final = 11
_DT_HASH, _DT_SYMTAB, _DT_GNU_HASH, _DT_VERSYM = 4, 6, 0x6FFFFEF5, 0x6FFFFFF0
_STRINGS: Final = 1 << 28  # bytes; the largest in a wheel has 8.5 MB
_BLOCK: Final = 4096  # symbols


def version_violations(old_image: Image, old: Headers, new_image: Image, new: Headers) -> Iterator[str]:
    """Version needs and definitions: the same records with the same names, flags, hashes and indexes."""
    if list(_needs(old_image, old)) != list(_needs(new_image, new)):
        yield "version needs changed"
    if list(_definitions(old_image, old)) != list(_definitions(new_image, new)):
        yield "version definitions changed"


def symbol_violations(old_image: Image, old: Headers, new_image: Image, new: Headers) -> Iterator[str]:
    """Dynamic symbols: as many, in the same order, with the same names and fields."""
    number = symbol_count(old_image, old)
    if number is None:
        return
    if symbol_count(new_image, new) != number:
        yield "the number of dynamic symbols changed"
        return
    old_names, new_names = _table(old_image, old), _table(new_image, new)
    pairs = zip(_symbols(old_image, old, number), _symbols(new_image, new, number), strict=True)
    for index, (before, after) in enumerate(pairs):
        if before[1:] != after[1:] or _name(old_names, before[0]) != _name(new_names, after[0]):
            yield f"dynamic symbol {index} changed"
            return


def reference_ranges(image: Image, headers: Headers) -> Iterator[tuple[int, int]]:
    """Give the address ranges, ``(start, length)``, of all that holds offsets into the string table."""
    values = headers.values
    if _DT_SYMTAB in values:
        number = symbol_count(image, headers) or 0
        yield values[_DT_SYMTAB], number * _symbol(headers).size
    layout = headers.layout
    for tag, count, record, part in (
        (elf.DT_VERNEED, elf.DT_VERNEEDNUM, layout.verneed, layout.vernaux),
        (elf.DT_VERDEF, elf.DT_VERDEFNUM, layout.verdef, layout.verdaux),
    ):
        aux = 3 if tag == elf.DT_VERNEED else 5
        parts = 1 if tag == elf.DT_VERNEED else 3
        for at, fields in strings.records(image, headers, values.get(tag), values.get(count, 0), record):
            yield at, record.size
            for where, _ in strings.records(image, headers, at + fields[aux], fields[parts], part):
                yield where, part.size


def symbol_count(image: Image, headers: Headers) -> int | None:
    """Count the dynamic symbols; None where nothing tells.

    By DT_HASH (gABI: nchain is their number), else DT_GNU_HASH and its longest chain, else the section
    header. Raises ``Unfit`` for tables that contradict the file.
    """
    word = ">I" if headers.layout.byteorder == "big" else "<I"
    address = headers.values.get(_DT_HASH)
    if address is not None:
        return _bounded(struct.unpack(word, _at(image, headers, address + 4, 4))[0])
    sections = [s for s in headers.shdrs if s.type == _SHT_DYNSYM]
    if sections:
        return _bounded(sections[0].size // _symbol(headers).size)
    address = headers.values.get(_DT_GNU_HASH)
    return None if address is None else _bounded(_gnu_count(image, headers, address, word[0]))


def _gnu_count(image: Image, headers: Headers, address: int, mark: str) -> int:
    buckets, first, bloom, _ = struct.unpack(f"{mark}4I", _at(image, headers, address, 16))
    start = address + 16 + bloom * (headers.layout.bits // 8)
    _bounded(buckets)
    table = struct.unpack(f"{mark}{buckets}I", _at(image, headers, start, 4 * buckets))
    last: int = max(table, default=0)
    if last < first:
        return int(first)
    chains = start + 4 * buckets
    while not struct.unpack(f"{mark}I", _at(image, headers, chains + 4 * (last - first), 4))[0] & 1:
        last += 1
    return last + 1


def _bounded(number: int) -> int:
    if number > _SYMBOLS:
        raise malformed(f"{number} dynamic symbols")
    return number


def _symbol(headers: Headers) -> struct.Struct:
    """Elf64_Sym: name, info, other, shndx, value, size; Elf32_Sym: name, value, size, info, other, shndx."""
    mark = ">" if headers.layout.byteorder == "big" else "<"
    return struct.Struct(mark + ("IBBHQQ" if headers.layout.bits == 64 else "IIIBBH"))


def _symbols(image: Image, headers: Headers, number: int) -> Iterator[tuple[int, ...]]:
    record, address = _symbol(headers), headers.values[_DT_SYMTAB]
    for start in range(0, number, _BLOCK):
        count = min(_BLOCK, number - start)
        yield from record.iter_unpack(_at(image, headers, address + start * record.size, count * record.size))


def _table(image: Image, headers: Headers) -> bytes:
    if headers.string_size > _STRINGS:
        raise malformed(f"string table of {headers.string_size} bytes")
    return image.read(headers.string_offset, headers.string_size)


def _name(table: bytes, offset: int) -> bytes:
    end = table.find(b"\0", offset)
    return table[offset:end] if end >= 0 else b"no name \0 at all"


def _needs(image: Image, headers: Headers) -> Iterator[tuple[object, ...]]:
    layout, values = headers.layout, headers.values
    number = values.get(elf.DT_VERNEEDNUM, 0)
    for at, (version, count, name, aux, _) in strings.records(
        image, headers, values.get(elf.DT_VERNEED), number, layout.verneed
    ):
        parts = [
            (digest, flags, other, strings.string_at(image, headers, text))
            for _, (digest, flags, other, text, _) in strings.records(
                image, headers, at + aux, count, layout.vernaux
            )
        ]
        yield version, strings.string_at(image, headers, name), parts


def _definitions(image: Image, headers: Headers) -> Iterator[tuple[object, ...]]:
    layout, values = headers.layout, headers.values
    number = values.get(elf.DT_VERDEFNUM, 0)
    for at, (version, flags, index, count, digest, aux, _) in strings.records(
        image, headers, values.get(elf.DT_VERDEF), number, layout.verdef
    ):
        names = [
            strings.string_at(image, headers, text)
            for _, (text, _) in strings.records(image, headers, at + aux, count, layout.verdaux)
        ]
        yield version, flags, index, digest, names


def _at(image: Image, headers: Headers, address: int, size: int) -> bytes:
    offset = headers.file_offset(address, max(size, 1))
    if offset is None:
        raise malformed(f"{address:#x} lies in no PT_LOAD")
    return image.read(offset, size)
