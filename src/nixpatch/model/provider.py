"""Libraries that come from outside the tree, and where they come from."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nixpatch.model.elf import Machine
from nixpatch.model.installed import Libc


class Source(enum.IntEnum):
    """A source of providers; a lower value is asked first."""

    LOCK = 0
    LIB = 1
    CLOSURE = 2
    TARGET_CLOSURE = 3
    NIXPKGS = 5
    STORE = 6

    @property
    def text(self) -> str:
        """Its name in reports."""
        return _SOURCES[self]


_SOURCES = {
    Source.LOCK: "lock",
    Source.LIB: "--lib",
    Source.CLOSURE: "--closure",
    Source.TARGET_CLOSURE: "closure of the target Python",
    Source.NIXPKGS: "--nixpkgs",
    Source.STORE: "local store",
}


@dataclass(frozen=True, slots=True)
class Provider:
    """A shared library that can serve a need: a file in a directory that ld.so could search."""

    name: str
    """file name in ``directory``: the name that ld.so looks for"""
    directory: str
    """the directory for a search path"""
    real: str
    """the regular file behind it"""
    machine: Machine
    soname: str | None
    source: Source
    package: str
    """store path name without hash (``zlib-1.3.1``); "" outside a store"""
    in_target_closure: bool
    version_defs: frozenset[str]
    libc_needs: frozenset[str]
    """versions that it wants from libc (``GLIBC_2.34``)"""
    beside_libc: bool = False
    """its directory also holds a libc"""
    libc: Libc | None = None
    """the libc in its DT_NEEDED; None if there is none"""


@dataclass(frozen=True, slots=True)
class ProviderChoice:
    """The provider of a soname, and why the other candidates cannot serve."""

    provider: Provider | None
    rejected: tuple[str, ...] = ()
    """one line for each candidate that cannot serve"""
