"""Values that describe ELF files: what their headers hold, why a file is skipped, how one is edited."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, TypeAlias

from nixpatch.arch import Arch, arch_of

ELF_MAGIC: Final = b"\x7fELF"
"""first bytes of every ELF file (gABI, e_ident)"""


@dataclass(frozen=True, slots=True, order=True)
class Machine:
    """Header fields that must agree for two ELF files to be loaded into one process (gABI, ELF header)."""

    number: int
    """e_machine"""
    bits: int
    """32 or 64 (EI_CLASS)"""
    byteorder: str
    """``"little"`` or ``"big"`` (EI_DATA)"""

    @property
    def arch(self) -> Arch:
        """Facts of this machine that no header holds."""
        return arch_of(self.number, self.bits, self.byteorder)

    @property
    def name(self) -> str:
        """Name as ``platform.machine()`` spells it, or ``machine <e_machine>`` for one not in ``ARCHES``."""
        return self.arch.name


class Tag(enum.Enum):
    """Dynamic entry that holds a search path. ld.so(8) searches the two in different places."""

    RPATH = "RPATH"
    RUNPATH = "RUNPATH"


ResolutionCache: TypeAlias = tuple[tuple[str, str], ...]
"""(name in DT_NEEDED, places to look for it): ``=`` and a path, or ``?`` and a directory, with colons between

The note of owner NixOS that ``patchelf --build-resolution-cache`` writes (patchelf 0.19,
https://github.com/NixOS/patchelf/pull/647) and that a glibc for nixpkgs reads
(https://github.com/NixOS/nixpkgs/pull/535735), after LD_LIBRARY_PATH and before DT_RUNPATH.
"""


@dataclass(frozen=True, slots=True)
class Linkage:
    """The parts of a file that nixpatch edits."""

    search_path: str | None
    """string of DT_RUNPATH, else of DT_RPATH, as written; None without either"""
    tag: Tag | None
    """RUNPATH if the file has both, as in ld.so(8)"""
    interp: str | None
    """PT_INTERP; None for a file without one"""
    renamed: tuple[tuple[str, str], ...] = ()
    """(name in the original, name now) of needed libraries whose names differ, sorted"""
    resolution_cache: ResolutionCache = ()
    """of the note that spares ld.so the search path; () without one"""


@dataclass(frozen=True, slots=True)
class ManualEdit:
    """Differences from the original that only ``nixpatch elf`` makes. Every other edit keeps them."""

    needed: tuple[str, ...] | None = None
    """all of DT_NEEDED in file order, if entries were added or removed; None if not"""
    soname: str | None = None
    """new DT_SONAME"""
    os_abi: int | None = None
    """new EI_OSABI"""
    executable_stack: bool | None = None
    """new PF_X of PT_GNU_STACK"""
    no_default_lib: bool = False
    """DF_1_NODEFLIB was set"""
    debug_tag: bool = False
    """DT_DEBUG was added"""
    renamed_symbols: tuple[tuple[str, str], ...] = ()
    """(name in .dynsym of the original, new name), sorted"""
    unversioned_symbols: tuple[str, ...] = ()
    """names in .dynsym of the original of symbols whose versions were cleared, sorted"""


NO_MANUAL_EDIT: Final = ManualEdit()


@dataclass(frozen=True, slots=True)
class VersionNeed:
    """One verneed record: the versions required of one library (LSB, "Symbol Version Requirements")."""

    soname: str
    versions: tuple[str, ...]


class DlopenPriority(enum.Enum):
    """How much a program depends on a library that it opens by dlopen(3).

    Source: https://uapi-group.org/specifications/specs/elf_dlopen_metadata/
    """

    REQUIRED = "required"
    RECOMMENDED = "recommended"
    SUGGESTED = "suggested"


@dataclass(frozen=True, slots=True)
class DlopenNeed:
    """A library that a note of the file declares for dlopen(3)."""

    sonames: tuple[str, ...]
    """alternatives, the preferred one first"""
    priority: DlopenPriority


@dataclass(frozen=True, slots=True)
class ElfFacts:
    """Contents of the headers of one dynamic ELF file."""

    machine: Machine
    executable: bool
    """ET_EXEC, or ET_DYN with DF_1_PIE"""
    soname: str | None
    needed: tuple[str, ...]
    """DT_NEEDED in file order"""
    current: Linkage
    """linkage of the file as it is"""
    original: Linkage
    """linkage before nixpatch; equal to ``current`` without an intact undo record"""
    original_sha256: bytes | None
    """digest of the whole original, from the undo record"""
    stale_undo: bool = False
    """there is an undo record, but another tool (such as strip) changed the file after nixpatch"""
    foreign_undo: bool = False
    """there is an undo record that nothing vouches for: it is ignored"""
    no_default_lib: bool = False
    """DF_1_NODEFLIB: ld.so skips its default directories"""
    debug_tag: bool = False
    """the file has DT_DEBUG"""
    both_tags: bool = False
    """the file has DT_RPATH and DT_RUNPATH"""
    version_needs: tuple[VersionNeed, ...] = ()
    version_defs: tuple[str, ...] = ()
    """verdef names without the base definition"""
    dlopen_needs: tuple[DlopenNeed, ...] = ()
    """from the ELF dlopen metadata note, in file order"""
    original_needed: tuple[str, ...] = ()
    """DT_NEEDED before nixpatch, with an intact undo record"""
    manual: ManualEdit = NO_MANUAL_EDIT
    """what else ``nixpatch elf`` changed, by an intact undo record"""
    obstacle: str | None = None
    """why the in-place writer would refuse any edit of this file"""
    os_abi: int = 0
    """EI_OSABI"""
    executable_stack: bool | None = None
    """PF_X of PT_GNU_STACK; None without one"""


class SkipReason(enum.Enum):
    """Why a file is left alone, byte for byte. The value is shown to users."""

    # decided in elf/headers, elf/facts, elf/undo and elf/errors, from the file alone
    NOT_ELF = "not an ELF file"
    RELOCATABLE = "relocatable object file (ET_REL)"
    CORE = "core file or unknown ELF type"
    STATIC = "static: no dynamic section, or nothing needed and no interpreter"
    DEBUG_FILE = "separate debug file"
    OTHER_OSABI = "built for another operating system"
    MALFORMED = "malformed ELF"
    UNMAPPABLE = "broken: no loader can map it"
    PAYLOAD = "has data appended that it may look for by offset"
    # decided in resolve/file_plan, against the target
    OTHER_MACHINE = "built for another machine"
    OTHER_LIBC = "built for another libc"
    LOADER_OR_LIBC = "the dynamic loader or libc itself"
    # decided in operations/plan, for --owned-only
    UNOWNED = "belongs to no dist"
    # decided in operations/plan, for venv --copies
    BASE_PYTHON = "copy of the base Python, which starts as it is"


@dataclass(frozen=True, slots=True)
class Skip:
    """A file that is left alone."""

    reason: SkipReason
    detail: str = ""

    @property
    def text(self) -> str:
        """Reason and detail in one line."""
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value


@dataclass(frozen=True, slots=True)
class SearchStop:
    """A file of a needed name that ld.so neither opens nor passes by (dl-load.c of glibc)."""

    why: str
    """what it is, as the end of a sentence about it"""
    is_fatal: bool = True
    """the load fails; False: only this search path ends, and the next step of the search follows"""


@dataclass(frozen=True, slots=True)
class ElfEdit:
    """The linkage that one file is to have."""

    search_path: str | None
    """the new string; ``""`` removes the entry; None keeps the original's"""
    tag: Tag | None = None
    """None keeps the original's tag, or means RUNPATH for a file without one"""
    interp: str | None = None
    """None keeps the original's"""
    renames: tuple[tuple[str, str], ...] = ()
    """(name in DT_NEEDED of the original, new name there and in the version needs)"""
    resolution_cache: ResolutionCache | None = None
    """the cache of the new file, () for none; None keeps the original's, unless the edit makes it stale"""
    manual: ManualEdit = NO_MANUAL_EDIT
