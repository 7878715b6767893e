"""The results of apply and verify."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from nixpatch.model.installed import Target, Tree
from nixpatch.model.plan import FilePlan, Finding, Plan


class Writer(enum.Enum):
    """The code that writes an edited file. The value is the word on the command line and in provenance."""

    INPLACE = "inplace"
    """grows the last PT_LOAD; leaves an undo record"""
    LIEF = "lief"
    """LIEF lays the file out anew; leaves no undo record"""


@dataclass(frozen=True, slots=True)
class FileHash:
    """Size and digests of one file's contents, as RECORD has them."""

    size: int | None
    """bytes; None for an original of which only the digest is known"""
    digests: Mapping[str, bytes]
    """algorithm as hashlib names it -> raw digest"""


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """The result of apply for one file of the plan."""

    plan: FilePlan
    before: FileHash | None = None
    after: FileHash | None = None
    error: str | None = None
    """why the file is unchanged"""
    writer: Writer = Writer.INPLACE
    declined: str | None = None
    """why the in-place writer declined, where LIEF wrote instead"""
    dropped: tuple[str, ...] = ()
    """privileges and signatures of the old contents that the new file does not have"""
    original: FileHash | None = None
    """of a file that was patched before, if it is not that of ``before`` or ``after``"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of applying a plan."""

    plan: Plan
    files: tuple[FileOutcome, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def failed(self) -> tuple[FileOutcome, ...]:
        """The files that could not be changed."""
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
    """What verify checked in a tree, and its findings."""

    tree: Tree
    target: Target | None
    """None if the Python of the venv is gone"""
    patched: int = 0
    """files that provenance describes"""
    needs: int = 0
    """needs of those files"""
    texts: int = 0
    """start-up files and scripts that provenance describes"""
    rows: int = 0
    """RECORD rows whose file was hashed"""
    libraries: tuple[str, ...] = ()
    """files outside the tree that serve a need, or as interpreter, or a text file names; sorted"""
    loaded: int = 0
    """files, and names of libraries, that the target Python opened"""
    reread: Reread | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)
