"""Libraries that a wheel brings along: what auditwheel grafted into it, and what shall become of each."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from nixpatch.model.installed import TreeFile
from nixpatch.model.provider import Provider


class SymbolKind(enum.Enum):
    """What a symbol stands for, as far as a reference to it cares (gABI, "Symbol Table")."""

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
    """not the default version: only a reference that names the version finds it"""
    kind: SymbolKind
    size: int
    """bytes"""
    vague: bool
    """weak or unique: C++ leaves it open which of several equal copies a process uses"""


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
class GraftPlan:
    """What shall happen to one grafted library, and why."""

    file: TreeFile
    unmangled: str
    """its file name without the hash: ``libz.so.1.2.11``"""
    users: tuple[str, ...] = ()
    """files of the tree that need it, sorted"""
    soname: str | None = None
    """what its users shall need in its stead; None where it is kept, or where nobody is left to need it"""
    provider: Provider | None = None
    kept: tuple[str, ...] = ()
    """why it is kept, the first reason first; empty: it goes"""
    version: str = ""
    """of the copy, as far as somebody tells"""
    new_version: str = ""
    """of the store's package"""

    @property
    def goes(self) -> bool:
        """Whether the copy leaves the tree."""
        return not self.kept
