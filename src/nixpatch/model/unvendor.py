"""Vendored libraries, which auditwheel copied from a system into a wheel: their symbols and their plans."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from nixpatch.model.installed import TreeFile
from nixpatch.model.provider import Provider


class SymbolKind(enum.Enum):
    """The type of a symbol, as far as it matters for a reference (gABI, "Symbol Table")."""

    CODE = "function"
    DATA = "object"
    TLS = "thread-local object"
    ANY = "symbol without a type"


@dataclass(frozen=True, slots=True)
class Definition:
    """A symbol that a file exports."""

    version: str | None
    index: int
    """version index (LSB, "Symbol Version Table"); 0 local, 1 base, 2 the first that the file defines"""
    hidden: bool
    """not the default version: only a reference with this version finds it"""
    kind: SymbolKind
    size: int
    """bytes"""
    vague: bool
    """weak or unique: in C++ a process may use any of several equal copies"""


@dataclass(frozen=True, slots=True)
class Reference:
    """A symbol that a file imports."""

    name: str
    version: str | None
    soname: str | None
    """the library that the version was linked from, None without a version"""


@dataclass(frozen=True, slots=True)
class Symbols:
    """The dynamic symbols of one file."""

    defined: Mapping[str, tuple[Definition, ...]]
    wanted: tuple[Reference, ...]
    versioned: bool
    """it has a version table (DT_VERSYM)"""


@dataclass(frozen=True, slots=True)
class VendoredPlan:
    """The plan for one vendored library."""

    file: TreeFile
    unmangled: str
    """its file name without the hash: ``libz.so.1.2.11``"""
    users: tuple[str, ...] = ()
    """files of the tree that need it, sorted"""
    soname: str | None = None
    """the new need of its users; None if it is kept, or has no users left"""
    provider: Provider | None = None
    kept: tuple[str, ...] = ()
    """the reasons to keep it, in the order of the checks; empty: it goes"""
    version: str = ""
    """of the copy; "" if unknown"""
    new_version: str = ""
    """of the store's package"""
    original_sha256: bytes | None = None
    """of the copy before nixpatch patched it; None if it did not"""

    @property
    def goes(self) -> bool:
        """Whether the copy leaves the tree."""
        return not self.kept
