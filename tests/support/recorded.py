"""A site-packages with one dist of one library, and plans for it, to test RECORD and provenance."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nixpatch.installed import provenance
from nixpatch.installed.dist_records import DistRecords
from nixpatch.installed.hashing import format_sha256
from nixpatch.installed.provenance import PatchedFile, Provenance, RemovedGraft
from nixpatch.installed.scan import scan
from nixpatch.model import Answer, FileHash, FilePlan, Linkage, Origin, Tag, Tree, TreeFile
from support.installed_trees import ELF, dist, write
from support.resolving import elf

ORIGINAL, PATCHED = ELF + b"original", ELF + b"patched"
LIBRARY = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-z-1/lib/libz.so.1"
TOOL = "nixpatch test"
NAME = "pkg/x.so"


def hashed(data: bytes) -> FileHash:
    return FileHash(len(data), {"sha256": hashlib.sha256(data).digest()})


def sha256(data: bytes) -> str:
    """Return the digest as provenance has it."""
    return format_sha256(hashlib.sha256(data).digest())


ENTRY = PatchedFile(sha256(ORIGINAL), sha256(PATCHED), "/new", Tag.RUNPATH, None, {"libz.so.1": LIBRARY})
"""of the file as ``patched`` leaves it"""


@dataclass(frozen=True)
class Recorded:
    """The dist; its file is the original, and RECORD describes it."""

    site: str
    info: str
    tree: Tree = field(compare=False)

    @property
    def path(self) -> str:
        """The file."""
        return os.path.join(self.site, NAME)

    @property
    def records(self) -> DistRecords:
        """Records that have read nothing yet."""
        return DistRecords(self.tree, self.info)

    @property
    def provenance(self) -> Provenance | None:
        """The provenance on the disk."""
        return provenance.read(os.path.join(self.info, provenance.NAME))

    def read(self, name: str = "RECORD") -> str:
        """Return a file of the dist-info."""
        with open(os.path.join(self.info, name), encoding="utf-8", newline="") as file:
            return file.read()

    def write(self, data: bytes, name: str = "RECORD") -> None:
        """Write a file of the dist-info, as another program would."""
        write(os.path.join(self.info, name), data)

    def row(self, name: str = NAME) -> str | None:
        """Return the row of a file without its line ending; None if it has none."""
        rows = [line for line in self.read().splitlines() if line.startswith(f"{name},")]
        assert len(rows) < 2
        return rows[0] if rows else None

    def write_provenance(
        self, files: Mapping[str, PatchedFile], grafts: Mapping[str, RemovedGraft] | None = None
    ) -> None:
        """Write provenance that RECORD does not list."""
        self.write(provenance.dump(Provenance(TOOL, files, grafts or {})), provenance.NAME)

    def patched(self) -> FilePlan:
        """Return the plan for the file as it is after a run that linked it against ``LIBRARY``."""
        return self.plan(PATCHED)

    def plan(self, contents: bytes) -> FilePlan:
        """Write the file, and return a plan in which it is right as it is."""
        write(self.path, contents)
        facts = elf("libz.so.1", path="/old")
        if contents == ORIGINAL:
            return FilePlan(TreeFile(self.path, len(contents), (self.info,)), facts, after=facts.original)
        now = Linkage("/new", Tag.RUNPATH, None)
        facts = replace(facts, current=now, original_sha256=hashlib.sha256(ORIGINAL).digest())
        answer = Answer("libz.so.1", Origin.STORE, "/new", LIBRARY)
        return FilePlan(TreeFile(self.path, len(contents), (self.info,)), facts, None, (answer,), after=now)


def make(root: str, contents: bytes = ORIGINAL) -> Recorded:
    """Install the dist, with a second file that never changes."""
    site = os.path.join(os.path.realpath(root), "lib/python3.11/site-packages")
    info = dist(site, "pkg", {NAME: contents, "pkg/__init__.py": b"# pkg\n"})
    return Recorded(site, info, scan(site))
