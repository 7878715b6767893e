"""Where the files of one owner are written down, and what stands there: provenance and the rows of RECORD."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nixpatch.errors import FileRefused
from nixpatch.escape import of_the_machine
from nixpatch.fs import read_regular
from nixpatch.installed import provenance, record
from nixpatch.installed.hashing import DEFAULT_ALGORITHM
from nixpatch.installed.record import Row
from nixpatch.installed.record_paths import Locator
from nixpatch.model import Answer, FileHash, FilePlan, Origin, Tree

_UNKNOWN_SIZE = -1
_OTHER_ALGORITHM = re.compile(rb",(?!sha256=)\w+=")
_PLAIN = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[^/]+)+", re.DOTALL)  # a path that has nothing to be normalised


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where the files of one owner are written down."""

    info: str
    """``.dist-info`` directory; "" for the files that no dist claims"""
    base: str
    """directory that paths in provenance and RECORD are relative to"""
    prefix: str
    """nothing outside it is ours"""

    @property
    def provenance(self) -> str:
        """Path of the provenance file."""
        return provenance.place(self.info, self.base)

    @property
    def record(self) -> str | None:
        """Path of RECORD."""
        return os.path.join(self.info, "RECORD") if self.info else None

    def key(self, path: str) -> str:
        """Return the path as RECORD writes it: relative to the site directory."""
        below = self.base.rstrip("/") + "/"
        if path.startswith(below) and _PLAIN.fullmatch(path):
            return path[len(below) :]
        return os.path.relpath(path, self.base)


def ledger(tree: Tree, info: str) -> Ledger:
    """Return where the files of one owner, a ``.dist-info`` or "", are written down."""
    return Ledger(info, os.path.dirname(info) if info else tree.root, tree.prefix)


def original_hash(sha256: bytes) -> FileHash:
    """Return what an undo record knows of the original file: its digest, not its size."""
    return FileHash(_UNKNOWN_SIZE, {DEFAULT_ALGORITHM: sha256})


def describes(row: Row, file: FileHash) -> bool | None:
    """Tell whether a row is right about a file; the size of an original may be unknown."""
    return row.agrees(file, by_size=file.size != _UNKNOWN_SIZE)


def rows_by_file(where: Ledger, rows: record.Record, paths: Mapping[str, object]) -> dict[str, list[Row]]:
    """Find the rows of some files by real path: ``./x``, absolute and linked spellings are the same file."""
    names = {os.path.basename(path) for path in paths}
    locator = Locator(where.base, where.prefix)
    found: dict[str, list[Row]] = {}
    for row in rows.rows:
        # Either separator, as PEP 376 allows; the locator knows which one is meant.
        if row.path is None or names.isdisjoint(
            (row.path.rpartition("/")[2], row.path.replace("\\", "/").rpartition("/")[2])
        ):
            continue
        path = locator.locate(row.path)
        if path is not None and path in paths:
            found.setdefault(path, []).append(row)
    return found


def algorithms(where: Ledger, paths: Sequence[str]) -> frozenset[str]:
    """Return every digest that the rows of these files ask for, sha256 always among them."""
    names = {DEFAULT_ALGORITHM}
    if where.record is not None:
        try:
            data = read_regular(where.record, record.MAX_RECORD_SIZE)
            if _OTHER_ALGORITHM.search(data):  # few dists have one; a hundred thousand rows take a second
                rows = record.parse(data)
                spelled = rows_by_file(where, rows, dict.fromkeys(paths))
                names |= rows.algorithms(row.path for group in spelled.values() for row in group if row.path)
        except FileRefused:
            pass  # told when it is to be updated
        except OSError as error:
            if of_the_machine(error):
                raise
    return frozenset(names)


def without_undo(where: Ledger) -> dict[str, str]:
    """Return the files of one owner that hold no undo record because LIEF wrote them.

    By absolute path: ``sha256=<hex>`` of what LIEF left. Where the file is another one since, it is void.
    """
    try:
        known = provenance.read(where.provenance)
    except provenance.ProvenanceError:
        return {}
    locator = Locator(where.base, where.prefix)
    return {
        path: entry.patched
        for key, entry in (known.files.items() if known else ())
        if entry.writer != provenance.INPLACE
        for path in [locator.locate(key)]
        if path is not None
    }


def needs_of(where: Ledger, file: FilePlan) -> dict[str, str]:
    """Return, for each need of a file, what serves it, as provenance writes it."""
    return {answer.need: _served_by(where, answer) for answer in file.answers}


def _served_by(where: Ledger, answer: Answer) -> str:
    """Write an answer as a store path, ``site:`` and a relative path, or a word."""
    if answer.path is None or answer.origin is Origin.LIBC:
        return answer.origin.value
    if answer.path.startswith(where.prefix.rstrip("/") + "/"):
        return f"site:{where.key(answer.path)}"
    return answer.path
