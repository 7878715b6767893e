"""The vocabulary: frozen values that every other part speaks in. Imports nothing of ours.

Paths, sonames and search paths are ``str`` made by ``os.fsdecode`` (PEP 383): any bytes survive the way
in and, through ``os.fsencode``, the way out. Paths are absolute unless a field says otherwise.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

# --------------------------------------------------------------------------------------------- ELF


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
    def name(self) -> str:
        """The name people use, such as ``x86_64``; ``machine 190`` for one without a name here."""
        return _MACHINE_NAMES.get((self.number, self.bits, self.byteorder), f"machine {self.number}")


_MACHINE_NAMES = {
    (62, 64, "little"): "x86_64",
    (62, 32, "little"): "x32",
    (3, 32, "little"): "i686",
    (183, 64, "little"): "aarch64",
    (40, 32, "little"): "armv7l",
    (21, 64, "little"): "ppc64le",
    (21, 64, "big"): "ppc64",
    (22, 64, "big"): "s390x",
    (243, 64, "little"): "riscv64",
    (258, 64, "little"): "loongarch64",
    (8, 32, "little"): "mipsel",
    (8, 32, "big"): "mips",
    (8, 64, "little"): "mips64el",
}


class Tag(enum.Enum):
    """Which dynamic entry holds a search path; ld.so(8) treats the two differently."""

    RPATH = "RPATH"
    RUNPATH = "RUNPATH"


@dataclass(frozen=True, slots=True)
class Linkage:
    """The two things nixpatch may change in a file."""

    search_path: str | None
    """the string of DT_RUNPATH, else of DT_RPATH, as written; None where there is neither"""
    tag: Tag | None
    """RUNPATH wins where a file has both, as in ld.so(8)"""
    interp: str | None
    """PT_INTERP, None for a file without one"""


@dataclass(frozen=True, slots=True)
class VersionNeed:
    """One verneed record: versions that the file wants from one library (gABI supplement, LSB)."""

    soname: str
    versions: tuple[str, ...]


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


# --------------------------------------------------------------------------------- the environment


class TreeKind(enum.Enum):
    """What the user named."""

    SITE_PACKAGES = "site-packages"
    VENV = "venv"
    PREFIX = "prefix"
    PLAIN = "directory"


@dataclass(frozen=True, slots=True)
class Dist:
    """An installed distribution: its ``.dist-info`` and what its RECORD lists."""

    name: str
    """normalised (PEP 503)"""
    version: str
    site: str
    """directory that RECORD's rows are relative to"""
    info: str
    """the ``.dist-info`` directory"""
    requires: tuple[str, ...] = ()
    """Requires-Dist lines, unparsed"""
    files: frozenset[str] = frozenset()
    """absolute real paths of the RECORD rows that lie inside the tree's prefix"""
    has_record: bool = True


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One regular file that begins with the ELF magic."""

    path: str
    size: int
    mode: int
    links: int
    """st_nlink: above 1 the bytes are shared with another name (uv's cache)"""
    owners: tuple[str, ...] = ()
    """``info`` directories of the dists whose RECORD lists it, sorted"""


@dataclass(frozen=True, slots=True)
class Tree:
    """What is installed under the path that the user named. Holds no file contents."""

    root: str
    """the real path of what was named"""
    prefix: str
    """nothing outside it is written; equal to root unless root is a site-packages inside a prefix"""
    kind: TreeKind
    files: tuple[TreeFile, ...]
    """sorted by path"""
    dists: tuple[Dist, ...] = ()
    """sorted by info"""
    python_version: tuple[int, int] | None = None
    """from ``lib/pythonX.Y``; None where the tree does not say"""
    notes: tuple[str, ...] = ()
    """what was odd: rows that point outside, a RECORD that cannot be read"""
    leftovers: tuple[str, ...] = ()
    """temp files of a run that was killed"""


class Libc(enum.Enum):
    """The two C libraries wheels are tagged for (PEP 600, PEP 656)."""

    GLIBC = "glibc"
    MUSL = "musl"


@dataclass(frozen=True, slots=True)
class Target:
    """The Python whose process will load the tree. Read from its files; it is never run for this."""

    python: str
    """the interpreter as found"""
    found_by: str
    """``pyvenv.cfg``, ``--python``, ``the tree``, ``PATH``"""
    version: tuple[int, int] | None
    machine: Machine
    loader: str
    """its PT_INTERP: what patched executables get"""
    libc: Libc
    libc_version: tuple[int, ...]
    """``(2, 36)`` for glibc 2.36"""
    libc_versions: frozenset[str]
    """every version the libc defines (verdef), such as ``GLIBC_2.36``"""
    libc_dir: str
    """directory of libc.so.6: where ld.so finds libc's own sonames"""


# ---------------------------------------------------------------------------------------- the store


class Source(enum.IntEnum):
    """Where a provider is known from; a lower value is asked first (design, section 5)."""

    LIB = 1
    CLOSURE = 2
    TARGET_CLOSURE = 3
    STORE = 6

    @property
    def text(self) -> str:
        """How reports name it."""
        return {1: "--lib", 2: "--closure", 3: "closure of the target Python", 6: "local store"}[self.value]


@dataclass(frozen=True, slots=True)
class Provider:
    """A shared library that can answer a need: a file in a directory that ld.so could search."""

    name: str
    """file name in ``directory``: what ld.so looks for"""
    directory: str
    """what goes into a search path"""
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
    """the libc it names in DT_NEEDED; None where it names none"""


# ---------------------------------------------------------------------------------------- the plan


class Origin(enum.Enum):
    """How a need is met. The value is the text people read."""

    ABSOLUTE = "absolute path"
    OWN_PATH = "own search path"
    LIBC = "libc"
    OWN_DIST = "own dist"
    DRIVER = "driver"
    OTHER_DIST = "other dist"
    STORE = "store"
    IGNORED = "ignored"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one need of one file comes to."""

    need: str
    origin: Origin
    entry: str | None = None
    """search path entry that serves it, as it will be written"""
    path: str | None = None
    """the file that ld.so will open: absolute; None for libc, drivers, ignored and missing"""
    detail: str = ""
    """source of the provider, rule that ignores it"""
    considered: tuple[str, ...] = ()
    """for a missing one: each place in order and why it does not serve"""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A search path entry that the new path leaves out."""

    entry: str
    why: str
    harmful: bool = True
    """ld.so may find another file because of it; False for what merely repeats"""


@dataclass(frozen=True, slots=True)
class FilePlan:
    """What shall happen to one ELF file."""

    file: TreeFile
    facts: ElfFacts | None
    """None where the file is skipped before its headers could be used"""
    skip: Skip | None = None
    answers: tuple[Answer, ...] = ()
    edit: ElfEdit | None = None
    """None: nothing to do"""
    wished: Linkage | None = None
    """the linkage after the run"""
    dropped: tuple[Dropped, ...] = ()
    unrecorded: bool = False
    """patched by an earlier run that was killed before it wrote RECORD"""

    @property
    def missing(self) -> tuple[Answer, ...]:
        """The needs nobody can meet."""
        return tuple(answer for answer in self.answers if answer.origin is Origin.MISSING)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should know that is not tied to a single need."""

    severity: str
    """``"error"`` makes the exit code 1; ``"note"`` does not"""
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision over a whole tree: printable, comparable, and all that apply needs."""

    tree: Tree
    target: Target | None
    """None: nothing is resolved, everything goes back to what it was"""
    store_dir: str
    files: tuple[FilePlan, ...] = ()
    findings: tuple[Finding, ...] = field(default=())

    @property
    def changes(self) -> tuple[FilePlan, ...]:
        """The files that apply will write."""
        return tuple(file for file in self.files if file.edit is not None)

    @property
    def pending(self) -> bool:
        """Whether a run would write anything at all, RECORD included."""
        return any(file.edit is not None or file.unrecorded for file in self.files)
