"""Check the start-up files and scripts of a patched tree against its provenance; for ``--load``, use them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping

from nixpatch.fs import read_regular
from nixpatch.installed.dist_records import DistRecords, TreeRecords
from nixpatch.installed.hashing import format_sha256
from nixpatch.installed.provenance import PatchedText
from nixpatch.installed.startup_file import startup_tables
from nixpatch.model import Finding, TextKind, Tree
from nixpatch.operations.text_plan import MAX_SCRIPT
from nixpatch.policy import default_policy

_ADVICE = "run nixpatch again"
_Texts = Mapping[str, tuple[DistRecords, PatchedText]]


def patched_texts(tree: Tree, records: TreeRecords) -> dict[str, tuple[DistRecords, PatchedText]]:
    """Return the text files that the provenance of a tree describes, by path."""
    texts: dict[str, tuple[DistRecords, PatchedText]] = {}
    for dist in records.of_all(tree):
        known = dist.usable_provenance()
        for key, entry in known.texts.items() if known is not None else ():
            path = dist.locator.locate(key)
            if path is not None:
                texts[path] = (dist, entry)
    return texts


def check_texts(texts: _Texts, reported: Collection[str]) -> Iterator[Finding]:
    """Report text files that are gone or changed, and files that they name and that are gone.

    Args:
        texts: by path.
        reported: files that RECORD does not describe: the first kind is reported already.

    """
    drivers = default_policy().driver_directory.rstrip("/") + "/"  # not every machine has each of them
    for path, (_, entry) in sorted(texts.items()):
        try:
            digest = format_sha256(hashlib.sha256(read_regular(path, MAX_SCRIPT)).digest())
        except OSError as error:
            if path not in reported:
                text = f"{entry.kind.value} of nixpatch, cannot be read ({error.strerror}): {_ADVICE}"
                yield Finding("error", path, text)
            continue
        if digest != entry.sha256 and path not in reported:
            yield Finding("error", path, f"{entry.kind.value} that was changed after nixpatch: {_ADVICE}")
        use = "is run by" if entry.kind is TextKind.SCRIPT else "opens"
        for library in entry.uses:
            if not library.startswith(drivers) and not os.path.exists(library):
                text = f"{use} {library}, which is gone (garbage collected?): {_ADVICE}"
                yield Finding("error", path, text)


def startup_names(texts: _Texts) -> Iterator[tuple[str, str, str, bool]]:
    """Yield what start-up files answer: the file, the name, the library, whether ``find_library`` is asked.

    Drivers that the machine lacks are left out.
    """
    drivers = default_policy().driver_directory.rstrip("/") + "/"
    for path, (_, entry) in sorted(texts.items()):
        if entry.kind is not TextKind.STARTUP:
            continue
        try:
            libraries, answers = startup_tables(read_regular(path, MAX_SCRIPT))
        except OSError:
            continue
        for finds, table in ((False, libraries), (True, answers)):
            for name, library in sorted(table.items()):
                if not library.startswith(drivers) or os.path.exists(library):
                    yield path, name, library, finds
