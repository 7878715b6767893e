"""What ELF headers say, and what may be changed in them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from nixpatch.arch import Arch, arch_of

ELF_MAGIC: Final = b"\x7fELF"
"""the first bytes of every ELF file (gABI, e_ident)"""


@dataclass(frozen=True, slots=True, order=True)
class Machine:
    """What two ELF files must share to live in one process (gABI, ELF header)."""

    number: int
    """e_machine"""
    bits: int
    """32 or 64 (EI_CLASS)"""
    byteorder: str
    """``"little"`` or ``"big"`` (EI_DATA)"""

    @property
    def arch(self) -> Arch:
        """The facts that the headers do not hold."""
        return arch_of(self.number, self.bits, self.byteorder)

    @property
    def name(self) -> str:
        """The name as ``platform.machine()`` spells it; ``machine 190`` for one without a row."""
        return self.arch.name


class Tag(enum.Enum):
    """Which dynamic entry holds a search path; ld.so(8) treats the two differently."""

    RPATH = "RPATH"
    RUNPATH = "RUNPATH"


@dataclass(frozen=True, slots=True)
class Linkage:
    """What nixpatch may change in a file."""

    search_path: str | None
    """the string of DT_RUNPATH, else of DT_RPATH, as written; None where there is neither"""
    tag: Tag | None
    """RUNPATH wins where a file has both, as in ld.so(8)"""
    interp: str | None
    """PT_INTERP, None for a file without one"""
    renamed: tuple[tuple[str, str], ...] = ()
    """needed libraries that go by another name than in the original: (original name, name), sorted"""


@dataclass(frozen=True, slots=True)
class VersionNeed:
    """One verneed record: versions that the file wants from one library (gABI supplement, LSB)."""

    soname: str
    versions: tuple[str, ...]


class DlopenPriority(enum.Enum):
    """How much a program depends on a library that it opens itself (ELF dlopen metadata specification)."""

    REQUIRED = "required"
    RECOMMENDED = "recommended"
    SUGGESTED = "suggested"


@dataclass(frozen=True, slots=True)
class DlopenNeed:
    """A library that the file opens at run time."""

    sonames: tuple[str, ...]
    """alternatives, the best first"""
    priority: DlopenPriority


@dataclass(frozen=True, slots=True)
class ElfFacts:
    """What the headers of one dynamic ELF file say."""

    machine: Machine
    executable: bool
    """ET_EXEC, or ET_DYN with DF_1_PIE"""
    soname: str | None
    needed: tuple[str, ...]
    """DT_NEEDED in file order"""
    current: Linkage
    """as the file is now"""
    original: Linkage
    """as it was before nixpatch; equal to ``current`` where the file holds no intact undo record"""
    original_sha256: bytes | None
    """digest of the whole original, from the undo record"""
    stale_undo: bool = False
    """an undo record is there, but another tool (strip) changed the file after nixpatch"""
    no_default_lib: bool = False
    """DF_1_NODEFLIB: ld.so does not look into its default directories"""
    both_tags: bool = False
    """DT_RPATH and DT_RUNPATH are both there"""
    version_needs: tuple[VersionNeed, ...] = ()
    version_defs: tuple[str, ...] = ()
    """verdef names without the base definition"""
    dlopen_needs: tuple[DlopenNeed, ...] = ()
    """from the note of that purpose, in file order"""
    obstacle: str | None = None
    """why the layout of the file leaves no room for an edit in place, whatever the edit"""


class SkipReason(enum.Enum):
    """Why a file is left alone, byte for byte. The value is the text people read."""

    NOT_ELF = "not an ELF file"
    RELOCATABLE = "relocatable object file (ET_REL)"
    CORE = "core file or unknown ELF type"
    STATIC = "static: no dynamic section, or nothing needed and no interpreter"
    DEBUG_FILE = "separate debug file"
    OTHER_MACHINE = "built for another machine"
    OTHER_OSABI = "built for another operating system"
    OTHER_LIBC = "built for another libc"
    LOADER_OR_LIBC = "the dynamic loader or libc itself"
    PAYLOAD = "has data appended that it may look for by offset"
    MALFORMED = "malformed ELF"
    REFUSED = "cannot be edited safely"
    NOT_WRITABLE = "cannot be written"
    UNOWNED = "belongs to no dist"


@dataclass(frozen=True, slots=True)
class Skip:
    """A file that is left alone."""

    reason: SkipReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ElfEdit:
    """The wish for one file, complete: what its linkage shall be."""

    search_path: str | None
    """the new string; ``""`` takes the entry away; None leaves it as it was originally"""
    tag: Tag | None = None
    """None keeps the tag the file has, or RUNPATH for a file without one"""
    interp: str | None = None
    """None leaves it as it was originally"""
    renames: tuple[tuple[str, str], ...] = ()
    """(name in DT_NEEDED of the original, name that it shall have there and in the version needs)"""
