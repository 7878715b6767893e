"""The plan for a tree: what a run will change, and why."""

from __future__ import annotations

import enum
import os
import re
from dataclasses import dataclass, field, replace

from nixpatch.model.elf import ElfEdit, ElfFacts, Linkage, Skip
from nixpatch.model.installed import Target, Tree, TreeFile
from nixpatch.model.provider import Provider
from nixpatch.model.text import TextKind, TextPlan
from nixpatch.model.unvendor import VendoredPlan


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
    """How one need of one file is met."""

    need: str
    origin: Origin
    entry: str | None = None
    """the search path entry that leads to ``path``, as it will be written"""
    path: str | None = None
    """the file that ld.so will open: absolute; None for libc, drivers, ignored and missing"""
    detail: str = ""
    """source of the provider, or the rule that ignores the need"""
    considered: tuple[str, ...] = ()
    """for a missing need: each searched place in order, and why it does not serve"""
    opener: str | None = None
    """the file whose code opens it by name, a source with its line; None for a need that the header names"""

    @property
    def is_optional(self) -> bool:
        """Whether the library is opened by name and not there; False where a rule ignores it."""
        return self.opener is not None and self.origin is Origin.IGNORED and bool(self.considered)


@dataclass(frozen=True, slots=True)
class DroppedEntry:
    """A search path entry that the new path leaves out."""

    entry: str
    why: str
    harmful: bool = True
    """ld.so may find another file because of it; False for a mere repetition"""


@dataclass(frozen=True, slots=True)
class FilePlan:
    """The plan for one ELF file."""

    file: TreeFile
    facts: ElfFacts | None
    """None for a file that is skipped before its headers can be used"""
    skip: Skip | None = None
    answers: tuple[Answer, ...] = ()
    edit: ElfEdit | None = None
    """None: nothing to write"""
    after: Linkage | None = None
    """the linkage after the run"""
    dropped: tuple[DroppedEntry, ...] = ()
    stops: tuple[str, ...] = ()
    """modules, programs and files named in code that do not load without ``missing``; none: it is optional"""
    unrecorded: bool = False
    """patched, but RECORD or provenance is stale: a run was killed, or another file serves a need now"""

    @property
    def dists(self) -> tuple[str, ...]:
        """The normalised names of the dists that own the file, sorted (PEP 503)."""
        names = (os.path.basename(info).partition("-")[0] for info in self.file.owners)
        return tuple(sorted({re.sub("[-_.]+", "-", name).lower() for name in names}))

    @property
    def missing(self) -> tuple[Answer, ...]:
        """The needs that nothing meets."""
        return tuple(answer for answer in self.answers if answer.origin is Origin.MISSING)

    @property
    def blocking(self) -> tuple[Answer, ...]:
        """Those of ``missing`` that stop an import or a program: errors."""
        return self.missing if self.stops else ()

    @property
    def dispensable(self) -> tuple[Answer, ...]:
        """Those of ``missing`` that only an optional part has: no errors."""
        return () if self.stops else self.missing


@dataclass(frozen=True, slots=True)
class OpenedUnmet:
    """A library that code opens by name and nothing provides: the code may or may not do without it."""

    soname: str
    """of several versions that a dist opens, the newest"""
    openers: tuple[tuple[str, str], ...]
    """file whose code opens it, a source with its line; ``.dist-info`` of its dist, "" for none; sorted"""


OPTIONAL_PARTS = "optional parts that do not load"
"""topic of findings on them"""


@dataclass(frozen=True, slots=True)
class Finding:
    """A message for the user that is not about a single need."""

    severity: str
    """``"error"`` makes the exit code 1; ``"note"`` does not"""
    path: str
    text: str
    topic: str = ""
    """a short report counts findings of one topic in one line"""


@dataclass(frozen=True, slots=True)
class LoadConflict:
    """Files that fail to load if another library has been loaded under the soname that they need."""

    soname: str
    files: tuple[str, ...]
    """the files that fail, sorted"""
    serves: str
    """the library that their search paths lead to"""
    other: str
    """the library that does not do; ld.so takes it if it is loaded already"""
    loaded_by: str
    """a file of the tree, or the part of Python, that loads ``other``"""
    lacks: tuple[str, ...]
    """the versions that ``other`` does not define and the files want, sorted"""
    ignored: bool = False
    """a rule lets the files miss the soname"""

    @property
    def finding(self) -> Finding:
        """The same for people, at the first of the files."""
        loader = f"for {self.loaded_by}" if self.loaded_by.startswith("/") else self.loaded_by
        more = f"; so do {len(self.files) - 1} more files" if len(self.files) > 1 else ""
        return Finding(
            "note" if self.ignored else "error",
            self.files[0],
            f"wants {', '.join(self.lacks)} of {self.soname} from {self.serves}, but does not load after "
            f"{self.other}, which lacks it and is loaded {loader}{more}: import this one first, or give both "
            "one library",
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan for a whole tree: printable, comparable, and the complete input of apply."""

    tree: Tree
    target: Target | None
    """None for a restore: nothing is resolved"""
    store_dir: str
    files: tuple[FilePlan, ...] = ()
    findings: tuple[Finding, ...] = field(default=())
    providers: tuple[Provider, ...] = ()
    """the libraries that serve needs from outside the tree: one for each name, sorted by name"""
    vendored: tuple[VendoredPlan, ...] = ()
    """the vendored libraries that ``--unvendor`` matches, by path; those to remove are not in ``files``"""
    unsettled: tuple[str, ...] = ()
    """``info`` of the dists whose vendored libraries or RECORD a killed run left other than provenance has"""
    stale: tuple[str, ...] = ()
    """``info`` of the dists whose provenance describes other files, "" for that of the files of no dist"""
    returning: tuple[str, ...] = ()
    """``info`` of the dists that get their vendored libraries back"""
    texts: tuple[TextPlan, ...] = ()
    """start-up files and scripts, sorted by dist and path"""
    opened_unmet: tuple[OpenedUnmet, ...] = ()
    """libraries that code opens by name and nothing provides, sorted by soname"""
    conflicts: tuple[LoadConflict, ...] = ()
    """what fails in some order of imports; each is in ``findings``, too"""
    asked_nixpkgs: bool = False
    """``--nixpkgs`` was given: what is missing still, it does not have"""
    opened_computed: tuple[str, ...] = ()
    """sources with a line that open a library by a name that the code computes"""
    read_paths: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """files beside those of the tree that the decisions depend on, and places where there was none"""
    keeps_originals: bool = True
    """un-vendored libraries are moved aside, so that restore can bring them back; False deletes them"""

    def only_part(self) -> Plan:
        """Return the plan for the files in the named part of the tree, with their findings and providers.

        The whole tree is planned, since a soname has one provider in it.
        """
        tree = self.tree
        if tree.part is None:
            return self
        files = tuple(file for file in self.files if tree.has(file.file.path))
        conflicts = tuple(item for item in self.conflicts if any(map(tree.has, item.files)))
        of_others = {path for dist in tree.dists for path in dist.files if not tree.has(path)}
        of_others |= {file.file.path for file in self.files if not tree.has(file.file.path)}
        shown = {conflict.finding.path for conflict in conflicts}
        infos = {dist.info for dist in tree.only_part().dists}
        needs = {answer.need for file in files for answer in file.answers}
        return replace(
            self,
            files=files,
            findings=tuple(
                item for item in self.findings if item.path not in of_others or item.path in shown
            ),
            providers=tuple(provider for provider in self.providers if provider.name in needs),
            unsettled=tuple(info for info in self.unsettled if info in infos),
            returning=tuple(info for info in self.returning if info in infos),
            # A start-up file serves the dist wherever its files are.
            texts=tuple(
                text
                for text in self.texts
                if tree.has(text.path) or (text.kind is TextKind.STARTUP and text.info in infos)
            ),
            opened_unmet=tuple(
                unmet
                for unmet in self.opened_unmet
                if any(tree.has(opener.partition(":")[0]) for opener, _ in unmet.openers)
            ),
            conflicts=conflicts,
            opened_computed=tuple(
                opener for opener in self.opened_computed if tree.has(opener.partition(":")[0])
            ),
        )

    @property
    def changes(self) -> tuple[FilePlan, ...]:
        """The files that apply will write."""
        return tuple(file for file in self.files if file.edit is not None)

    @property
    def pending(self) -> bool:
        """Whether a run would write anything at all, RECORD included."""
        if any(library.goes for library in self.vendored) or self.unsettled or self.returning or self.stale:
            return True
        if any(text.pending for text in self.texts):
            return True
        return any(file.edit is not None or file.unrecorded for file in self.files)
