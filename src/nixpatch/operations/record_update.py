"""Bring RECORD and ``nixpatch.json`` of a dist up to date after its ELF files, ``nixpatch.json`` last.

Only the rows of changed files change in RECORD, and a row that was wrong before the patch is not made right.

A killed run is finished by this order. As long as provenance does not describe a file, the next run knows
that there is something to finish, and its digests identify the rows of RECORD that nixpatch wrote. The other
way round, RECORD could hold digests of an earlier patch that no file describes any more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from nixpatch.errors import FileRefused
from nixpatch.escape import reason
from nixpatch.installed import provenance
from nixpatch.installed.dist_records import DistRecords, RecordFile, TreeRecords
from nixpatch.installed.hashing import (
    DEFAULT_ALGORITHM,
    encode_digest,
    format_sha256,
    hash_file,
    parse_sha256,
)
from nixpatch.installed.record import Record, RecordRow
from nixpatch.model import FileHash, Finding, Tree

# PEP 815 withdrew both.
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")


@dataclass(frozen=True, slots=True)
class UnrecordedChange:
    """A file of a dist that differs from its row in RECORD."""

    before: FileHash
    """at the start of the run; of the original if an earlier run was killed before it wrote RECORD"""
    after: FileHash
    entry: provenance.PatchedFile | None
    """its new provenance; None if the file is the original again"""


def update_records(
    records: DistRecords,
    changes: Mapping[str, UnrecordedChange],
    *,
    tool: str,
    accept_modified: bool = False,
    durable: bool = False,
) -> tuple[Finding, ...]:
    """Update provenance and RECORD of one dist.

    Args:
        records: the dist.
        changes: by absolute path.
        tool: name and version for the provenance.
        accept_modified: update rows that were wrong before, too.
        durable: survive a power failure.

    Raises:
        OSError: a file cannot be written. The old one is unchanged.

    """
    findings: list[Finding] = []
    old_record: RecordFile | None = None
    old_rows = Record(())
    try:
        if records.record_path is not None:
            old_record = records.read_record()
            old_rows = old_record.record
    except FileNotFoundError:
        # The dist was uninstalled; a file of ours would keep its directory.
        return (Finding("error", records.info, "vanished during the run, so nothing was written down in it"),)
    except (OSError, FileRefused) as error:
        findings.append(
            Finding("error", records.info, f"RECORD cannot be read, so it was not updated: {error}")
        )
        old_record = None
    try:
        old = records.read_provenance()
    except provenance.ProvenanceError as error:
        findings.append(
            Finding("note", records.provenance_path, f"was unreadable ({error}) and is written anew")
        )
        old = None
    old_entries = old.files if old else {}
    entries = {**old_entries, **{records.key(path): change.entry for path, change in changes.items()}}
    files = {
        key: entry
        for key, entry in entries.items()
        if entry is not None and os.path.lexists(os.path.join(records.base, key))
    }
    new = replace(old or provenance.Provenance(tool, {}), tool=tool, files=files)
    data = None if new.is_empty else provenance.dump(new)
    if old_record is not None:
        updates = {}
        for path, rows in old_record.rows_of(changes).items():
            change, old_entry = changes[path], old_entries.get(records.key(path))
            for row in rows:
                assert row.path is not None
                was_right = row.agrees(change.before) is not False
                if accept_modified or was_right or _is_ours(row, change, old_entry):
                    updates[row.path] = change.after
                elif row.agrees(change.after) is not True:
                    text = "RECORD did not describe this file before the patch either, "
                    text += "so its row was left as it is"
                    findings.append(Finding("error", path, f"{text} (--accept-modified updates it)"))
        new_rows = old_rows.with_changes(updates).with_contents(records.key(records.provenance_path), data)
        if data is not None and new_rows.data != old_record.data:
            findings += signature_notes(records)
        records.replace_record(old_record, new_rows, durable=durable)
    records.replace_provenance(data, durable=durable)
    return tuple(findings)


def refresh_tree(tree: Tree, records: TreeRecords, *, durable: bool = False) -> tuple[Finding, ...]:
    """Make every RECORD of a tree describe the files as they are now: see :func:`refresh_rows`."""
    findings: list[Finding] = []
    for dist in tree.dists:
        if dist.has_record:
            try:
                findings += refresh_rows(records.of(tree, dist.info), durable=durable)
            except (OSError, FileRefused) as error:
                findings.append(Finding("error", dist.info, f"RECORD cannot be updated: {reason(error)}"))
    return tuple(findings)


def refresh_rows(records: DistRecords, *, durable: bool = False) -> tuple[Finding, ...]:
    """Update the rows that do not describe their files, and drop those of files that are gone.

    For a build whose other steps (strip, patch-shebangs, moves into other outputs) changed installed files.

    Raises:
        FileRefused: RECORD has too many rows.
        OSError: RECORD cannot be read or written. The old one is unchanged.

    """
    old = records.read_record()
    changed: dict[str, FileHash] = {}
    absent: set[str] = set()
    for row in old.record.rows:
        path = None if row.path is None else records.locator.locate(row.path)
        if path is None or row.path is None:
            continue
        if not os.path.lexists(path):
            absent.add(row.path)
        elif row.check_algorithm is not None:
            now = hash_file(os.path.realpath(path), {row.check_algorithm, DEFAULT_ALGORITHM})
            if row.agrees(now) is False:
                changed[row.path] = now
    if not changed and not absent:
        return ()
    rows = Record(tuple(row for row in old.record.rows if row.path not in absent)).with_changes(changed)
    records.replace_record(old, rows, durable=durable)
    text = f"RECORD: {len(changed)} rows of changed files updated, {len(absent)} of absent files removed"
    return (Finding("note", records.info, text),)


def signature_notes(records: DistRecords) -> Iterator[Finding]:
    """Report the signatures of RECORD as it was installed; they stay, and fit again after a restore."""
    for name in _SIGNATURES:
        signature = os.path.join(records.info, name)
        if os.path.lexists(signature):
            text = "signs RECORD as it was installed: it fits again after nixpatch restore"
            yield Finding("note", signature, text)


def _is_ours(row: RecordRow, change: UnrecordedChange, entry: provenance.PatchedFile | None) -> bool:
    """Return whether an earlier run wrote a row, and a later one was killed before it updated it.

    Then the file is, or was at the start of this run, the original that provenance names.
    """
    if entry is None or row.check_algorithm != DEFAULT_ALGORITHM or row.digest is None:
        return False
    try:
        patched = parse_sha256(entry.patched)
    except ValueError:  # another program edited the file
        return False
    originals = {format_sha256(file.digests[DEFAULT_ALGORITHM]) for file in (change.before, change.after)}
    return entry.original in originals and row.digest.rstrip("=") == encode_digest(patched)
