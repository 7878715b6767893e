"""What shall happen to a tree, and why."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from nixpatch.model.elf import ElfEdit, ElfFacts, Linkage, Skip
from nixpatch.model.installed import Target, Tree, TreeFile
from nixpatch.model.provider import Provider
from nixpatch.model.unvendor import GraftPlan


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
    """patched before, but not written down as it is: that run was killed, or a need is met otherwise now"""

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
    providers: tuple[Provider, ...] = ()
    """the libraries that serve the needs which no file of the tree meets: one for each name, sorted by it"""
    grafts: tuple[GraftPlan, ...] = ()
    """the grafted libraries that were asked about, sorted by path; those that go are not among ``files``"""
    unsettled: tuple[str, ...] = ()
    """``.info`` of the dists in which a killed run left grafts or RECORD other than provenance has them"""
    returning: tuple[str, ...] = ()
    """``.info`` of the dists that get their grafts back"""
    keeps_originals: bool = True
    """un-vendored libraries are moved aside, so that restore can bring them back; False deletes them"""

    @property
    def changes(self) -> tuple[FilePlan, ...]:
        """The files that apply will write."""
        return tuple(file for file in self.files if file.edit is not None)

    @property
    def pending(self) -> bool:
        """Whether a run would write anything at all, RECORD included."""
        if any(graft.goes for graft in self.grafts) or self.unsettled or self.returning:
            return True
        return any(file.edit is not None or file.unrecorded for file in self.files)
