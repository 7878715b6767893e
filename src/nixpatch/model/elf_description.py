"""Contents of one ELF file in a form that every reader can yield, so that readers can be compared as values.

Names are decoded as UTF-8 with U+FFFD for other bytes, since pyelftools does so. ``None`` for a table means
that the reader cannot read it; it is then not compared.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

BLOCK = 256
"""entries of a table that share a digest: how closely a difference can be located"""
OTHER_BITS = 0xE7
"""of st_other; pyelftools does not keep the others, which no ABI uses"""


class HeaderFields(NamedTuple):
    """ELF header, in the words of the gABI without their prefixes."""

    bits: int
    byteorder: str
    osabi: int
    abiversion: int
    type: int
    machine: int
    version: int
    entry: int
    phoff: int
    shoff: int
    flags: int
    ehsize: int
    phentsize: int
    phnum: int
    shentsize: int
    shnum: int
    shstrndx: int


class SegmentFields(NamedTuple):
    """Program header, in the field order of ELF64."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


class SectionFields(NamedTuple):
    """Section header, with its name looked up."""

    name: str
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    addralign: int
    entsize: int


class SymbolFields(NamedTuple):
    """Entry of .dynsym, as it goes into a digest."""

    name: str
    value: int
    size: int
    info: int
    other: int
    """:data:`OTHER_BITS` of it"""
    shndx: int


class VersionFields(NamedTuple):
    """Vernaux record: a version that the file needs."""

    name: str
    hash: int
    flags: int
    number: int
    """vna_other, by which DT_VERSYM refers to it"""


class NeedFields(NamedTuple):
    """Verneed record."""

    soname: str
    versions: tuple[VersionFields, ...]


class DefinitionFields(NamedTuple):
    """Verdef record; its first name is the version's own, the others are the parents'."""

    names: tuple[str, ...]
    flags: int
    number: int
    """vd_ndx, by which DT_VERSYM refers to it"""
    hash: int


class NoteFields(NamedTuple):
    """ELF note of a PT_NOTE segment. LIEF appends the notes of sections that no PT_NOTE has."""

    owner: str
    type: int
    size: int
    digest: str

    @classmethod
    def of(cls, owner: bytes | str, kind: int, content: bytes) -> Self:
        """Digest the content, padded to a multiple of 4 bytes as LIEF reads it; the owner ends at a NUL."""
        padded = content.ljust(-(-len(content) // 4) * 4, b"\0")
        return cls(text_of(owner).split("\0", 1)[0], kind, len(padded), digest_of(padded))


@dataclass(frozen=True, slots=True)
class TableDigest:
    """Digests of a long table."""

    count: int
    blocks: tuple[str, ...]
    """one digest for each :data:`BLOCK` entries; the table may be digested in part"""
    is_exact: bool = True
    """False: the table has ``count`` entries or more"""

    @classmethod
    def of(
        cls, entries: Iterable[object], count: int, limit: int | None = None, *, is_exact: bool = True
    ) -> Self:
        """Digest the first ``limit`` of ``count`` entries."""
        digested = iter(itertools.islice(entries, count if limit is None else min(count, limit)))
        return cls(count, tuple(_blocks(digested)), is_exact)


def _blocks(entries: Iterator[object]) -> Iterator[str]:
    while block := list(itertools.islice(entries, BLOCK)):
        yield digest_of(repr(block).encode("utf-8", "surrogatepass"))


def digest_of(data: bytes) -> str:
    """Digest bytes for a comparison."""
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def text_of(data: bytes | str) -> str:
    """Decode a name as every reader can."""
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "replace")


def plt_counts_already(values: Mapping[int, int]) -> bool:
    """Return whether DT_JMPREL is a part of DT_RELA or DT_REL, as the gABI allows.

    ``values`` are those of the dynamic entries, by tag.
    """
    plt = values.get(23, -1)
    return any(
        values[tag] <= plt < values[tag] + values.get(size, 0)
        for tag, size in ((7, 8), (17, 18))
        if tag in values
    )


@dataclass(frozen=True, slots=True)
class ElfDescription:
    """Contents of one file as one reader sees them."""

    header: HeaderFields
    segments: tuple[SegmentFields, ...]
    sections: tuple[SectionFields, ...]
    interp: str | None
    dynamic: tuple[tuple[int, int], ...]
    """(tag, value) of the entries before DT_NULL"""
    needed: tuple[str, ...]
    soname: str | None
    rpath: str | None
    runpath: str | None
    symbols: TableDigest | None
    symbol_versions: TableDigest | None
    """DT_VERSYM"""
    version_needs: tuple[NeedFields, ...] | None
    version_definitions: tuple[DefinitionFields, ...] | None
    relocations: int
    """entries of DT_RELA, DT_REL and DT_JMPREL; those that lie in two of them count once"""
    relative_relocations: int
    """relocations that DT_RELR comes to"""
    notes: tuple[NoteFields, ...]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Build the value again from ``dataclasses.asdict`` that went through JSON.

        Raises:
            ValueError: it is another document.

        """
        try:
            bits, byteorder, *numbers = document["header"]
            fields: dict[str, Any] = {name: _rows(make, document[name]) for name, make in _ROWS.items()}
            fields |= {name: _text(document[name]) for name in ("interp", "soname", "rpath", "runpath")}
            fields |= {name: int(document[name]) for name in ("relocations", "relative_relocations")}
            return cls(HeaderFields(int(bits), str(byteorder), *map(int, numbers)), **fields)
        except (LookupError, TypeError, OverflowError) as error:
            raise ValueError(repr(error)) from None


def _rows(make: Callable[[Any], Any], rows: Any) -> Any:
    if isinstance(rows, dict):
        return TableDigest(int(rows["count"]), tuple(map(str, rows["blocks"])), bool(rows["is_exact"]))
    return None if rows is None else tuple(map(make, rows))


def _text(text: object) -> str | None:
    return None if text is None else str(text)


_ROWS: dict[str, Callable[[Any], Any]] = {
    "segments": lambda row: SegmentFields(*map(int, row)),
    "sections": lambda row: SectionFields(str(row[0]), *map(int, row[1:])),
    "dynamic": lambda row: (int(row[0]), int(row[1])),
    "needed": str,
    "symbols": str,
    "symbol_versions": str,
    "version_needs": lambda row: NeedFields(
        str(row[0]), tuple(VersionFields(str(version[0]), *map(int, version[1:])) for version in row[1])
    ),
    "version_definitions": lambda row: DefinitionFields(tuple(map(str, row[0])), *map(int, row[1:])),
    "notes": lambda row: NoteFields(str(row[0]), int(row[1]), int(row[2]), str(row[3])),
}
"""makes a row of each table"""
