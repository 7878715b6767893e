"""What is written down after the ELF files of a dist are in place: RECORD, then ``nixpatch.json``, last.

RECORD's rule is: only rows whose file changed, everything else byte for byte, and never launder: a row that
did not describe its file before the patch is not made to describe it after.

The order is what a killed run is finished by. Until everything else is done, provenance is that of the run
before: a file that it does not describe as it is tells the next run that there is something to finish, and
its digests tell which rows of RECORD were ours. (The other way round, a RECORD that was not written would
hold digests of an earlier patch that nobody knows any more.)
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nixpatch.environment import provenance, record
from nixpatch.environment.digests import DEFAULT_ALGORITHM, FileHash, encode_digest, hash_file
from nixpatch.environment.locate import Locator
from nixpatch.environment.regular import read_identified, read_regular
from nixpatch.environment.words import of_the_machine
from nixpatch.errors import FileRefused
from nixpatch.files import Identity, remove, replace_bytes
from nixpatch.model import Answer, ElfFacts, FilePlan, Finding, Linkage, Origin, Tree

_UNKNOWN_SIZE = -1
_OTHER_ALGORITHM = re.compile(rb",(?!sha256=)\w+=")
_PLAIN = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[^/]+)+", re.DOTALL)  # a path that has nothing to be normalised
_SHA256 = re.compile(rb",sha256=([\w-]{43}),")

# PEP 815 withdrew both; a signature over the old RECORD is wrong from now on.
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")


@dataclass(frozen=True, slots=True)
class Change:
    """One file of a dist that is no longer as RECORD has it."""

    before: FileHash
    """as it was when the run began; of the original where an earlier run was killed before it wrote RECORD"""
    after: FileHash
    entry: provenance.PatchedFile | None
    """None: the file is as it was installed again"""


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


def write_down(
    where: Ledger,
    changes: Mapping[str, Change],
    *,
    tool: str,
    accept_modified: bool = False,
    durable: bool = False,
) -> tuple[Finding, ...]:
    """Bring provenance and RECORD of one dist up to date; ``changes`` by absolute path.

    Raises:
        OSError: a file cannot be written. What was there before is still there.

    """
    findings: list[Finding] = []
    try:
        rows = _rows_of(where)
    except FileNotFoundError:
        # Somebody uninstalled it; a file of ours would keep its directory from going.
        return (Finding("error", where.info, "vanished during the run, so nothing was written down in it"),)
    except (OSError, FileRefused) as error:
        findings.append(
            Finding("error", where.info, f"RECORD cannot be read, so it was not updated: {error}")
        )
        rows = None
    try:
        old = provenance.read(where.provenance)
    except provenance.ProvenanceError as error:
        findings.append(Finding("note", where.provenance, f"was unreadable ({error}) and is written anew"))
        old = None
    before = old.files if old else {}
    entries = dict(before)
    for path, change in changes.items():
        if change.entry is None:
            entries.pop(where.key(path), None)
        else:
            entries[where.key(path)] = change.entry
    gone = [key for key in entries if not os.path.lexists(os.path.join(where.base, key))]
    for key in gone:
        del entries[key]
    removed = old.unvendored if old else {}
    data = provenance.dump(provenance.Provenance(tool, entries, removed)) if entries or removed else None
    if rows is not None:
        findings += _update_record(
            where, rows, changes, before, data, accept_modified=accept_modified, durable=durable
        )
    if data is None:
        remove(where.provenance)
    else:
        replace_bytes(where.provenance, data, durable=durable)
    return tuple(findings)


@dataclass(frozen=True, slots=True)
class _Rows:
    """RECORD as it was read."""

    path: str
    record: record.Record
    identity: Identity


def _rows_of(where: Ledger) -> _Rows | None:
    if where.record is None:
        return None
    data, identity = read_identified(where.record, record.MAX_RECORD_SIZE)
    return _Rows(where.record, record.parse(data), identity)


def _update_record(
    where: Ledger,
    read: _Rows,
    changes: Mapping[str, Change],
    before: Mapping[str, provenance.PatchedFile],
    data: bytes | None,
    *,
    accept_modified: bool,
    durable: bool,
) -> list[Finding]:
    rows = read.record
    findings: list[Finding] = []
    updates: dict[str, FileHash] = {}
    for path, spelled in rows_by_file(where, rows, changes).items():
        change = changes[path]
        for row in spelled:
            assert row.path is not None
            if (
                accept_modified
                or describes(row, change.before) is not False
                or _is_ours(row, change, before.get(where.key(path)))
            ):
                updates[row.path] = change.after
            elif row.agrees(change.after) is not True:
                text = (
                    "RECORD did not describe this file before the patch either, so its row was left as it is"
                )
                findings.append(Finding("error", path, f"{text} (--accept-modified updates it)"))
    updated = rows.with_changes(updates)
    own = where.key(where.provenance)
    if data is None:
        updated = updated.without(own)
    else:
        updated = updated.with_row(
            own, FileHash(len(data), {DEFAULT_ALGORITHM: hashlib.sha256(data).digest()})
        )
    for name in _SIGNATURES:
        signature = os.path.join(where.info, name)
        if os.path.lexists(signature):
            findings.append(Finding("note", signature, "signed the old RECORD and was removed"))
            updated = updated.without(where.key(signature))
            remove(signature)
    if updated.data != rows.data:
        replace_bytes(read.path, updated.data, durable=durable, expected=read.identity)
    return findings


def _is_ours(row: record.Row, change: Change, entry: provenance.PatchedFile | None) -> bool:
    """Whether a row is the one that an earlier run left, and a later one was killed before it changed it.

    The file then is, or was until now, the very original that provenance names.
    """
    if entry is None or row.check_algorithm != DEFAULT_ALGORITHM or row.digest is None:
        return False
    originals = {f"sha256={file.digests[DEFAULT_ALGORITHM].hex()}" for file in (change.before, change.after)}
    try:
        patched = bytes.fromhex(entry.patched.removeprefix("sha256="))
    except ValueError:  # somebody wrote into our file
        return False
    return entry.original in originals and row.digest.rstrip("=") == encode_digest(patched)


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


def _has_all(data: bytes, entries: Iterable[provenance.PatchedFile]) -> bool:
    """Whether RECORD has the digest of every patched file: then nobody need look at its rows one by one.

    RECORD is written once, after all files of its dist: it has all of the digests or none.
    """
    try:
        digests = {bytes.fromhex(entry.patched.removeprefix("sha256=")) for entry in entries}
    except ValueError:  # somebody wrote into our file
        return False
    known = frozenset(_SHA256.findall(data))
    return provenance.NAME.encode() in data and known >= {
        encode_digest(digest).encode() for digest in digests
    }


def original_hash(sha256: bytes) -> FileHash:
    """Return what an undo record knows of the original file: its digest, not its size."""
    return FileHash(_UNKNOWN_SIZE, {DEFAULT_ALGORITHM: sha256})


def describes(row: record.Row, file: FileHash) -> bool | None:
    """Tell whether a row is right about a file; the size of an original may be unknown."""
    return (replace(row, size=None) if file.size == _UNKNOWN_SIZE else row).agrees(file)


def rows_by_file(
    where: Ledger, rows: record.Record, paths: Mapping[str, object]
) -> dict[str, list[record.Row]]:
    """Find the rows of some files by real path: ``./x``, absolute and linked spellings are the same file."""
    names = {os.path.basename(path) for path in paths}
    locator = Locator(where.base, where.prefix)
    found: dict[str, list[record.Row]] = {}
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


def unrecorded(where: Ledger, files: Sequence[FilePlan]) -> frozenset[str]:
    """Return those of some files without an edit that provenance and RECORD do not describe as they are.

    An earlier run was killed, or a need that nothing met is met now without a change of the file. Reads no
    ELF file but those that an earlier run seems to have taken the patch back from.
    """
    try:
        known = provenance.read(where.provenance)
    except provenance.ProvenanceError:
        known = None
    entries = known.files if known else {}
    patched: dict[str, bytes] = {}
    late: set[str] = set()
    for file in files:
        if file.facts is None:
            continue
        entry = entries.get(where.key(file.file.path))
        if file.facts.original_sha256 is not None:
            patched[file.file.path] = file.facts.original_sha256
            if entry is None or _outdated(where, file, file.facts, entry):
                late.add(file.file.path)
        elif entry is not None and entry.writer == provenance.INPLACE and _is(file.file.path, entry.original):
            late.add(file.file.path)
    if where.record is None or late >= patched.keys():
        return frozenset(late)
    try:
        data = read_regular(where.record, record.MAX_RECORD_SIZE)
        if _has_all(data, entries.values()):
            return frozenset(late)
        rows = record.parse(data)
    except (OSError, FileRefused):
        return frozenset(late)
    for path, spelled in rows_by_file(where, rows, patched).items():
        original = original_hash(patched[path])
        if any(describes(row, original) for row in spelled):
            late.add(path)
    if not rows.rows_for(where.key(where.provenance)):
        late.update(patched)
    return frozenset(late)


def _outdated(where: Ledger, file: FilePlan, facts: ElfFacts, entry: provenance.PatchedFile) -> bool:
    """Whether a patched file, or what serves its needs, is not as its entry has it."""
    linkage = Linkage(entry.search_path, entry.tag, entry.interp)
    return facts.current != linkage or dict(entry.needs) != needs_of(where, file)


def _is(path: str, digest: str) -> bool:
    """Whether a file has a digest, ``sha256=<hex>``."""
    try:
        return f"sha256={hash_file(path).digests[DEFAULT_ALGORITHM].hex()}" == digest
    except OSError:
        return False
