"""Differences between two plans or two lockfiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FileState:
    """The linkage of one file after the run."""

    status: str = ""
    """``skipped``, else empty"""
    search_path: str | None = None
    tag: str | None = None
    interpreter: str | None = None


@dataclass(frozen=True, slots=True)
class DiffSide:
    """The compared parts of one plan or one lockfile."""

    kind: str
    """``plan`` or ``lock``"""
    target: Mapping[str, str] = field(default_factory=dict)
    """machine, loader and libc of the target Python, by name"""
    libraries: Mapping[str, str] = field(default_factory=dict)
    """soname -> path; "" where nothing provides it"""
    users: Mapping[str, int] = field(default_factory=dict)
    """soname -> number of files that need it; empty for a lockfile"""
    files: Mapping[str, FileState] = field(default_factory=dict)
    """by path in the tree"""
    findings: frozenset[tuple[str, str]] = frozenset()
    """(path in the tree, text)"""


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One changed value; None where a side does not have it."""

    what: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class LibraryChange:
    """A soname served by another file; None where a side does not need it, "" where nothing provides it."""

    soname: str
    before: str | None
    after: str | None
    users: int
    """number of files that need it on the later side, else on the earlier side"""


@dataclass(frozen=True, slots=True)
class Difference:
    """All differences between two sides."""

    kind: str
    """``plan`` or ``lock``"""
    target: tuple[FieldChange, ...] = ()
    libraries: tuple[LibraryChange, ...] = ()
    """sorted by soname"""
    files: tuple[tuple[str, tuple[FieldChange, ...]], ...] = ()
    """sorted by path"""
    gained: tuple[tuple[str, str], ...] = ()
    """findings of the later side only"""
    lost: tuple[tuple[str, str], ...] = ()
    """findings of the earlier side only"""

    @property
    def same(self) -> bool:
        """Whether the two sides are equal."""
        return not (self.target or self.libraries or self.files or self.gained or self.lost)
