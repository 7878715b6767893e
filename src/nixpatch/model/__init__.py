"""The vocabulary: frozen values that every other part speaks in. Imports nothing of ours.

Paths, sonames and search paths are ``str`` made by ``os.fsdecode`` (PEP 383): any bytes survive the way
in and, through ``os.fsencode``, the way out. Paths are absolute unless a field says otherwise.
"""

from nixpatch.model.elf import (
    DlopenNeed,
    DlopenPriority,
    ElfEdit,
    ElfFacts,
    Linkage,
    Machine,
    Skip,
    SkipReason,
    Tag,
    VersionNeed,
)
from nixpatch.model.installed import BuiltIn, Dist, Libc, Target, Tree, TreeFile, TreeKind
from nixpatch.model.outcome import FileHash, FileOutcome, Manner, Outcome, Verdict, Writer
from nixpatch.model.plan import Answer, Dropped, FilePlan, Finding, Origin, Plan
from nixpatch.model.provider import Provider, Source
from nixpatch.model.unvendor import Definition, GraftPlan, Reference, SymbolKind, Symbols

__all__ = [
    "Answer",
    "BuiltIn",
    "Definition",
    "Dist",
    "DlopenNeed",
    "DlopenPriority",
    "Dropped",
    "ElfEdit",
    "ElfFacts",
    "FileHash",
    "FileOutcome",
    "FilePlan",
    "Finding",
    "GraftPlan",
    "Libc",
    "Linkage",
    "Machine",
    "Manner",
    "Origin",
    "Outcome",
    "Plan",
    "Provider",
    "Reference",
    "Skip",
    "SkipReason",
    "Source",
    "SymbolKind",
    "Symbols",
    "Tag",
    "Target",
    "Tree",
    "TreeFile",
    "TreeKind",
    "Verdict",
    "VersionNeed",
    "Writer",
]
