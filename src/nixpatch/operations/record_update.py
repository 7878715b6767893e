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
from collections.abc import Mapping
from dataclasses import dataclass

from nixpatch.errors import FileRefused
from nixpatch.fs import Identity, read_identified, remove, replace_bytes
from nixpatch.installed import provenance, record
from nixpatch.installed.dist_records import Ledger, describes, rows_by_file
from nixpatch.installed.hashing import DEFAULT_ALGORITHM, encode_digest, format_sha256, parse_sha256
from nixpatch.installed.record import Row
from nixpatch.model import FileHash, Finding

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


def _is_ours(row: Row, change: Change, entry: provenance.PatchedFile | None) -> bool:
    """Whether a row is the one that an earlier run left, and a later one was killed before it changed it.

    The file then is, or was until now, the very original that provenance names.
    """
    if entry is None or row.check_algorithm != DEFAULT_ALGORITHM or row.digest is None:
        return False
    originals = {format_sha256(file.digests[DEFAULT_ALGORITHM]) for file in (change.before, change.after)}
    try:
        patched = parse_sha256(entry.patched)
    except ValueError:  # somebody wrote into our file
        return False
    return entry.original in originals and row.digest.rstrip("=") == encode_digest(patched)
