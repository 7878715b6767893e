"""Bring RECORD and ``nixpatch.json`` of a dist up to date after its ELF files, ``nixpatch.json`` last.

Only the rows of changed files change in RECORD, and a row that was wrong before the patch is not made right.

A killed run is finished by this order. As long as provenance does not describe a file, the next run knows
that there is something to finish, and its digests identify the rows of RECORD that nixpatch wrote. The other
way round, RECORD could hold digests of an earlier patch that no file describes any more.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from nixpatch.errors import FileRefused
from nixpatch.escape import reason
from nixpatch.fs import open_regular, remove_directory, replace_link
from nixpatch.installed import provenance
from nixpatch.installed.dist_records import DistRecords, RecordFile, TreeRecords
from nixpatch.installed.hashing import DEFAULT_ALGORITHM, format_sha256, has_sha256, hash_file, parse_sha256
from nixpatch.installed.record import Record, RecordRow, parse
from nixpatch.model import FileHash, Finding, Tree

# PEP 815 withdrew both.
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")
_BLOCK = 1 << 20

WRONG_ROW = (
    "RECORD did not describe this file before the patch either, so its row was left as it is: install the "
    "dist again; if its wheel was published so, --accept-modified updates the row"
)
"""a finding of every run, so that the exit code does not depend on which run it is"""


@dataclass(frozen=True, slots=True)
class UnrecordedChange:
    """A file of a dist that differs from its row in RECORD."""

    before: FileHash
    """at the start of the run; of the original if an earlier run was killed before it wrote RECORD"""
    after: FileHash
    entry: provenance.PatchedFile | None
    """its new provenance; None if the file is the original again"""
    original: FileHash | None = None
    """of a file that was patched before, if it is not that of ``before`` or ``after``"""


def update_records(
    records: DistRecords,
    changes: Mapping[str, UnrecordedChange],
    *,
    tool: str,
    ignored: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    accept_modified: bool = False,
    durable: bool = False,
) -> tuple[Finding, ...]:
    """Update provenance and RECORD of one dist.

    Args:
        records: the dist.
        changes: by absolute path.
        tool: name and version for the provenance.
        ignored: for :attr:`Provenance.ignored`, by absolute path; () takes a file out.
        accept_modified: update rows that were wrong before, too.
        durable: survive a power failure.

    Raises:
        OSError: a file cannot be written. The old one is unchanged.

    """
    findings: list[Finding] = []
    old_record: RecordFile | None = None
    try:
        if records.record_path is not None:
            old_record = records.read_record()
            _ = old_record.record  # which may have too many rows
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
    updates: list[tuple[RecordRow, RecordRow]] = []
    for path, rows in old_record.rows_of(changes).items() if old_record is not None else ():
        key = records.key(path)
        states, known = _states(changes[path], old_entries.get(key))
        update = update_rows(rows, states, known, accept_modified=accept_modified)
        updates += update.changes
        findings += update.findings(path)
        if (entry := entries[key]) is not None:
            entries[key] = replace(entry, rows=update.installed)
    stale = {key for key in old_entries if records.described_by(key) is None}
    files = {
        key: entry
        for key, entry in entries.items()
        if entry is not None and key not in stale and os.path.lexists(os.path.join(records.base, key))
    }
    new = replace(
        old or provenance.Provenance(tool, {}),
        tool=tool,
        files=files,
        ignored=_ignored(records, old, ignored),
    )
    data = None if new.is_empty else provenance.dump(new)
    kept_first = {
        key: replace(old_entries.get(key) or replace(entry, patched=""), rows=entry.rows)
        for key, entry in files.items()
        if entry.rows and (key not in old_entries or old_entries[key].rows != entry.rows)
    }
    if kept_first:  # nothing else has these rows once RECORD is written
        first = replace(new, files={**old_entries, **kept_first})
        if old_record is not None:
            records.announce([records.provenance_path], durable=durable)
            old_record = records.read_record()
        records.replace_provenance(provenance.dump(first), durable=durable)
    if old_record is not None:
        new_rows = old_record.record.with_rows(updates).with_contents(
            records.key(records.provenance_path), data
        )
        if data is not None and new_rows.data != old_record.data:
            findings += signature_notes(records)
        records.replace_record(old_record, new_rows, durable=durable)
    records.replace_provenance(data, durable=durable)
    return tuple(findings)


def refresh_tree(
    tree: Tree, records: TreeRecords, *, own_hash: str = "", durable: bool = False
) -> tuple[Finding, ...]:
    """Make every RECORD of a tree describe the files as they are now: see :func:`refresh_rows`."""
    findings: list[Finding] = []
    for dist in tree.dists:
        if dist.has_record:
            try:
                findings += refresh_rows(records.of(tree, dist.info), own_hash=own_hash, durable=durable)
            except (OSError, FileRefused) as error:
                findings.append(Finding("error", dist.info, f"RECORD cannot be updated: {reason(error)}"))
    return tuple(findings)


def refresh_rows(records: DistRecords, *, own_hash: str = "", durable: bool = False) -> tuple[Finding, ...]:
    """Update the rows that do not describe their files, and drop those of files that are gone.

    For a build whose other steps (strip, patch-shebangs, moves into other outputs) changed installed files.

    Args:
        records: the dist.
        own_hash: the hash in the name of the store path that is being built. Nix builds a path that exists
            under another name and then replaces the hash in all files (``nix-build --check``), so files with
            this hash get a row without digest: it would be wrong afterwards.
        durable: survive a power failure.

    Raises:
        FileRefused: RECORD has too many rows.
        OSError: RECORD cannot be read or written. The old one is unchanged.

    """
    old = records.read_record()
    changed: dict[str, FileHash] = {}
    absent: set[str] = set()
    rewritten: set[str] = set()
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
                if own_hash and _contains(os.path.realpath(path), own_hash.encode()):
                    rewritten.add(row.path)
    if not changed and not absent:
        return ()
    rows = Record(tuple(row for row in old.record.rows if row.path not in absent)).with_changes(changed)
    rows = rows.without_hashes({path: changed[path] for path in rewritten})
    records.replace_record(old, rows, durable=durable)
    text = f"RECORD: {len(changed)} rows of changed files updated, {len(absent)} of absent files removed"
    return (Finding("note", records.info, text),)


def _contains(path: str, text: bytes) -> bool:
    """Whether a file has some bytes in it."""
    descriptor = open_regular(path)
    tail = b""
    try:
        while block := os.read(descriptor, _BLOCK):
            if text in tail + block:
                return True
            tail = block[-len(text) :]
    finally:
        os.close(descriptor)
    return False


def clear_stale(records: DistRecords, *, tool: str, durable: bool = False) -> tuple[Finding, ...]:
    """Remove from provenance what describes no file of the dist; see :func:`resume.is_stale`.

    Raises:
        OSError: a file cannot be written or removed. The old one is unchanged.

    """
    if records.has_record or not records.info:
        return update_records(records, {}, tool=tool, durable=durable)
    records.replace_provenance(None, durable=durable)
    remove_directory(records.info)
    return ()


def _ignored(
    records: DistRecords, old: provenance.Provenance | None, ignored: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    known = {key: needs for key, needs in (old.ignored if old else {}).items() if records.described_by(key)}
    known.update((records.key(path), needs) for path, needs in ignored.items())
    return {key: needs for key, needs in known.items() if needs}


def relink(path: str, link: str, original: str) -> None:
    """Make a restored file the link again that it was installed as, if that still leads to these contents.

    Args:
        path: the file.
        link: the text of the link; "" for a file that was installed as one.
        original: ``sha256=<hex>`` of the file as it was installed.

    Raises:
        OSError: the link cannot be made; the file is whole.

    """
    real = os.path.realpath(os.path.join(os.path.dirname(path), link))
    if not link or os.path.islink(path) or real == path:
        return
    try:
        is_same = has_sha256(real, original)
    except OSError:  # the cache is gone
        return
    if is_same:
        replace_link(path, link)


def signature_notes(records: DistRecords) -> Iterator[Finding]:
    """Report the signatures of RECORD as it was installed; they stay, and fit again after a restore."""
    for name in _SIGNATURES:
        signature = os.path.join(records.info, name)
        if os.path.lexists(signature):
            text = "signs RECORD as it was installed: it fits again after nixpatch restore"
            yield Finding("note", signature, text)


@dataclass(frozen=True, slots=True)
class RowStates:
    """The contents of a file that its rows in RECORD may describe."""

    original: FileHash
    """as installed; its size and all digests may be unknown"""
    described: tuple[FileHash, ...]
    """as the file was at the start of the run or before: a row of these was right"""
    written: tuple[FileHash, ...]
    """as nixpatch left or leaves the file: a row of these is not as it was installed"""
    after: FileHash


@dataclass(frozen=True, slots=True)
class RowUpdate:
    """New rows for one file, and what provenance keeps of the old ones."""

    changes: tuple[tuple[RecordRow, RecordRow], ...]
    """old and new rows"""
    installed: tuple[str, ...]
    """for :attr:`PatchedFile.rows`"""
    wrong: int
    """rows that describe no state of the file and were left as they are"""
    rows: int
    is_restored: bool

    def findings(self, path: str) -> Iterator[Finding]:
        """Report wrong rows; an error where no other row describes the file."""
        if not self.wrong:
            return
        if self.is_restored:
            text = "RECORD does not describe this file, as when it was installed: its row is as it was"
            yield Finding("note", path, text)
        elif self.wrong < self.rows:
            text = "RECORD has another row for this file, which does not describe it and was left as it is"
            yield Finding("note", path, text)
        else:
            yield Finding("error", path, WRONG_ROW)


def update_rows(
    rows: Sequence[RecordRow], states: RowStates, known: Sequence[str], *, accept_modified: bool
) -> RowUpdate:
    """Make new rows for one file. A row that was wrong stays as it is unless ``accept_modified``.

    Args:
        rows: of the file, in the order of RECORD; their paths may be spelled in several ways.
        states: contents of the file.
        known: rows as they were installed, as provenance has them.
        accept_modified: update rows that were wrong, too.

    """
    is_restored = _digest_of(states.after) == _digest_of(states.original)
    changes: list[tuple[RecordRow, RecordRow]] = []
    installed: list[str] = []
    wrong = 0
    for row, known_row in zip(rows, _fitting(rows, known), strict=True):
        agreements = [row.agrees(state) for state in states.written]
        is_written = True in agreements or (None in agreements and bool(known_row))
        new = row
        if is_written and is_restored and known_row:
            new = RecordRow.parse(os.fsencode(known_row))
        elif (
            is_written or accept_modified or any(row.agrees(state) is not False for state in states.described)
        ):
            new = row.updated(states.after)
        elif row.agrees(states.after) is False:
            wrong += 1
        changes.append((row, new))
        if is_written:
            installed.append(known_row)
        else:
            # A size alone does not show who wrote it: such a row is known only by its old one.
            is_apart = row.agrees(states.after) is False or row.updated(states.after) == row
            can_be_computed = (new == row and is_apart) or (
                bool(row.digest) and states.original.size is not None and new.updated(states.original) == row
            )
            installed.append("" if can_be_computed else os.fsdecode(row.raw))
    kept = tuple(installed) if any(installed) else ()
    return RowUpdate(tuple(changes), kept, wrong, len(rows), is_restored)


def _fitting(rows: Sequence[RecordRow], known: Sequence[str]) -> list[str]:
    """Return the old rows that provenance has for some rows, "" for each where it has none for this path."""
    if len(known) != len(rows):
        return [""] * len(rows)
    fitting: list[str] = []
    for row, text in zip(rows, known, strict=True):
        old = parse(os.fsencode(text)).rows
        fitting.append(
            text if len(old) == 1 and (old[0].path, old[0].ending) == (row.path, row.ending) else ""
        )
    return fitting


def _states(
    change: UnrecordedChange, entry: provenance.PatchedFile | None
) -> tuple[RowStates, tuple[str, ...]]:
    """Return the states of a file, and its rows as an earlier run found them."""
    original = change.before
    digest = _digest_of(change.after)
    if change.entry is not None:
        try:
            digest = parse_sha256(change.entry.original)
        except ValueError:
            digest = _digest_of(change.before)
    if _digest_of(change.before) != digest:
        original = change.after if _digest_of(change.after) == digest else _only_sha256(digest)
    original = change.original or original
    written = [change.after]
    if _digest_of(change.before) != digest:
        written.append(change.before)
    known: tuple[str, ...] = ()
    if entry is not None and entry.original == format_sha256(digest):
        known = entry.rows
        if entry.patched not in {format_sha256(_digest_of(state)) for state in written}:
            with contextlib.suppress(ValueError):  # another program edited provenance
                # A run wrote it, and a later one was killed before it updated the row.
                written.append(_only_sha256(parse_sha256(entry.patched)))
    # A row of the original, if the run that patched it was killed or did not know the dist yet.
    described = (change.before, *filter(None, [change.original]))
    return RowStates(original, described, tuple(written), change.after), known


def _only_sha256(digest: bytes) -> FileHash:
    return FileHash(None, {DEFAULT_ALGORITHM: digest})


def _digest_of(file: FileHash) -> bytes:
    return file.digests[DEFAULT_ALGORITHM]
