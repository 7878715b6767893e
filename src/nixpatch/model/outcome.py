"""How a plan is carried out and what became of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from nixpatch.model.installed import Target, Tree
from nixpatch.model.plan import FilePlan, Finding, Plan


class Writer(enum.Enum):
    """The ways to make an edit. The value is the word on the command line and in provenance."""

    INPLACE = "inplace"
    """grows the last PT_LOAD; leaves an undo record"""
    LIEF = "lief"
    """LIEF lays the file out anew; no undo record"""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a plan is carried out, apart from what is in it."""

    workers: int = 0
    """processes; 0 means one per core for large work"""
    writer: Writer = Writer.INPLACE
    durable: bool = False
    """on the disk before a name leads to it: for power failures, not only for killed runs"""
    accept_modified: bool = False
    """update RECORD rows that were wrong before, too"""
    keep_grafts: bool = True
    """move removed grafts aside, so that restore can bring them back; False deletes them"""


@dataclass(frozen=True, slots=True)
class FileHash:
    """What RECORD says of one file's contents."""

    size: int
    digests: Mapping[str, bytes]
    """algorithm as hashlib names it -> raw digest"""


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one file of the plan."""

    plan: FilePlan
    before: FileHash | None = None
    after: FileHash | None = None
    error: str | None = None
    """why the file is still as it was"""
    writer: Writer = Writer.INPLACE
    declined: str | None = None
    """why the in-place edit would not, where LIEF wrote in its stead"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a plan."""

    plan: Plan
    files: tuple[FileOutcome, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def failed(self) -> tuple[FileOutcome, ...]:
        """The files that should have been changed and were not."""
        return tuple(file for file in self.files if file.error is not None)


@dataclass(frozen=True, slots=True)
class Reread:
    """Who read the patched files again, for ``verify --deep``."""

    readers: tuple[str, ...]
    """nixpatch, then the others with their versions"""
    files: int
    originals: int
    """files that were compared with their original, too"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verify looked at and what it found wrong."""

    tree: Tree
    target: Target
    patched: int = 0
    """files that provenance describes"""
    needs: int = 0
    """needs of those files that were looked up"""
    rows: int = 0
    """RECORD rows whose file was hashed"""
    libraries: tuple[str, ...] = ()
    """files outside the tree that serve a need or as interpreter, sorted"""
    loaded: int = 0
    """files that the real loader opened"""
    reread: Reread | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> int:
        """How many findings say that something is wrong."""
        return sum(finding.severity == "error" for finding in self.findings)
