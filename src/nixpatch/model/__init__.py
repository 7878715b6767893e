"""The values that all other packages exchange, frozen. Imports no other module of nixpatch but ``arch``.

Paths, sonames and search paths are ``str`` made by ``os.fsdecode`` (PEP 383): any bytes survive the way
in and, through ``os.fsencode``, the way out. Paths are absolute unless a field says otherwise.
"""

from nixpatch.model.dlopen import DlopenStrings, OpenedName, OpenedNeed, Opener
from nixpatch.model.elf import (
    DlopenNeed,
    DlopenPriority,
    ElfEdit,
    ElfFacts,
    Linkage,
    Machine,
    ManualEdit,
    ResolutionCache,
    SearchStop,
    Skip,
    SkipReason,
    Tag,
    VersionNeed,
)
from nixpatch.model.installed import (
    Dist,
    LenderSite,
    Libc,
    LoaderDefaults,
    Target,
    TargetLibrary,
    Tree,
    TreeFile,
    TreeKind,
)
from nixpatch.model.outcome import FileHash, FileOutcome, Outcome, Reread, Verdict, Writer
from nixpatch.model.plan import (
    Answer,
    DroppedEntry,
    FilePlan,
    Finding,
    LoadConflict,
    OpenedUnmet,
    Origin,
    Plan,
)
from nixpatch.model.provider import Provider, ProviderChoice, Source
from nixpatch.model.text import TextKind, TextPlan
from nixpatch.model.unvendor import Definition, Reference, SymbolKind, Symbols, VendoredPlan

__all__ = [
    "Answer",
    "Definition",
    "Dist",
    "DlopenNeed",
    "DlopenPriority",
    "DlopenStrings",
    "DroppedEntry",
    "ElfEdit",
    "ElfFacts",
    "FileHash",
    "FileOutcome",
    "FilePlan",
    "Finding",
    "LenderSite",
    "Libc",
    "Linkage",
    "LoadConflict",
    "LoaderDefaults",
    "Machine",
    "ManualEdit",
    "OpenedName",
    "OpenedNeed",
    "OpenedUnmet",
    "Opener",
    "Origin",
    "Outcome",
    "Plan",
    "Provider",
    "ProviderChoice",
    "Reference",
    "Reread",
    "ResolutionCache",
    "SearchStop",
    "Skip",
    "SkipReason",
    "Source",
    "SymbolKind",
    "Symbols",
    "Tag",
    "Target",
    "TargetLibrary",
    "TextKind",
    "TextPlan",
    "Tree",
    "TreeFile",
    "TreeKind",
    "VendoredPlan",
    "Verdict",
    "VersionNeed",
    "Writer",
]
