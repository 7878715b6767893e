"""Find patched files that a killed run did not record, those that no run patched, and stale provenance."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from nixpatch.elf import undo_is_plausible
from nixpatch.errors import FileRefused
from nixpatch.escape import is_machine_error
from nixpatch.installed import provenance
from nixpatch.installed.dist_records import DistRecords, RecordFile
from nixpatch.installed.hashing import (
    DEFAULT_ALGORITHM,
    encode_digest,
    format_sha256,
    has_sha256,
    hash_file,
    parse_sha256,
)
from nixpatch.installed.record import RecordRow
from nixpatch.model import ElfFacts, FileHash, FilePlan, Finding, Origin
from nixpatch.policy import default_policy

_SHA256 = re.compile(rb",sha256=([\w-]{43}),")


def unrecorded(records: DistRecords, files: Sequence[FilePlan]) -> frozenset[str]:
    """Return the files, of those without an edit, whose RECORD row or provenance is stale.

    An earlier run was killed, a need that nothing met is met now without a change of the file, or other needs
    may be missing. No ELF file is read, except those that an earlier run seems to have restored.

    Raises:
        OSError: the disk fails, or the run may open no more files.

    """
    known = records.usable_provenance()
    entries = known.files if known else {}
    ignored = known.ignored if known else {}
    originals: dict[str, FileHash] = {}
    unrecorded_paths: set[str] = set()
    for file in files:
        if file.facts is None:
            continue
        path = file.file.path
        entry = entries.get(records.key(path))
        if file.facts.original_sha256 is not None:
            originals[path] = FileHash(None, {DEFAULT_ALGORITHM: file.facts.original_sha256})
            if entry is None or _is_outdated(records, file, file.facts, entry):
                unrecorded_paths.add(path)
        elif ignored.get(records.key(path), ()) != ruled_needs(file) or (
            entry is not None and entry.writer == provenance.INPLACE and _has_digest(path, entry.original)
        ):
            unrecorded_paths.add(path)
    if unrecorded_paths >= originals.keys():
        return frozenset(unrecorded_paths)
    try:
        record = records.read_record()
        if _has_all(record.data, entries.values()):
            return frozenset(unrecorded_paths)
        for path, rows in record.rows_of(originals).items():
            if any(row.agrees(originals[path]) for row in rows) or not _is_described(
                rows, entries.get(records.key(path))
            ):
                unrecorded_paths.add(path)
        if not record.record.rows_for(records.key(records.provenance_path)):
            unrecorded_paths.update(originals)
    except (OSError, FileRefused):  # reported when RECORD is to be updated; there is none for unowned files
        pass
    return frozenset(unrecorded_paths)


def ruled_needs(file: FilePlan) -> tuple[str, ...]:
    """Return the needs that a rule of the user lets a file miss that is not patched, sorted.

    ``verify`` knows the rules of the package, and finds those of a patched file at its entry.
    """
    if file.facts is None or file.after is None or file.after != file.facts.original:
        return ()
    ignored = {answer.need for answer in file.answers if answer.origin is Origin.IGNORED}
    policy = default_policy()
    needs = ignored.intersection(file.facts.needed)
    return tuple(sorted(need for need in needs if policy.ignored(file.file.path, need) is None))


def is_stale(records: DistRecords) -> bool:
    """Return whether provenance has to be cleared.

    It describes files that are gone or of another dist, or nothing; or RECORD lists it and it is gone. An
    installer was killed or ran at the same time, a file was deleted, or a run was killed.

    Raises:
        OSError: the disk fails, or the run may open no more files.

    """
    is_file = os.path.isfile(records.provenance_path) and not os.path.islink(records.provenance_path)
    if os.path.islink(records.info):
        return False
    try:
        known = records.read_provenance()
    except provenance.ProvenanceError:
        return is_file
    if known is None:
        return records.lists_provenance
    if records.info and not records.has_record:
        return is_file
    return known.is_empty or len(records.patched()) < len(known.files)


def stale_note(records: DistRecords) -> Finding:
    """Return the finding for provenance that :func:`is_stale`."""
    text = "describes no file, or files that are gone or of another dist: that is not believed, and cleared"
    return Finding("note", records.provenance_path, f"{text} by the next run")


def vouches(records: DistRecords, path: str, original: bytes) -> bool:
    """Return whether provenance or RECORD show that nixpatch patched a file with an undo record.

    A wheel can bring a file with an undo record. Provenance names what nixpatch patched. If a run was killed
    before it wrote that, RECORD still has the digest of the original, or already has a row of the provenance
    to come. No RECORD can contradict the undo record of a file that no dist claims.

    Args:
        records: the owner of the file.
        path: the file, which is read only if provenance does not name its original.
        original: the SHA-256 in the undo record.

    Raises:
        OSError: the disk fails, or the run may open no more files.

    """
    known = records.usable_provenance()
    entry = known.files.get(records.key(path)) if known else None
    if entry is not None and entry.original == format_sha256(original):
        return True
    try:
        record = records.read_record()
        rows = record.rows_of({path}).get(path, [])
        installed = FileHash(None, {DEFAULT_ALGORITHM: original})
        if all(row.agrees(installed) is False for row in rows) and not _was_killed(records, record):
            return False
    except OSError as error:  # no RECORD, or none that can be read and updated
        if is_machine_error(error):
            raise
    except FileRefused:  # too many rows
        return False
    try:
        return undo_is_plausible(path)
    except (OSError, FileRefused):
        return False


def _was_killed(records: DistRecords, record: RecordFile) -> bool:
    """Return whether RECORD has a digest that provenance was to have, which is written after it."""
    rows = record.record.rows_for(records.key(records.provenance_path))
    try:
        now = hash_file(records.provenance_path)
    except OSError:
        return bool(rows)
    return any(row.agrees(now) is False for row in rows)


def _has_all(data: bytes, entries: Iterable[provenance.PatchedFile]) -> bool:
    """Return whether RECORD has the digest of every patched file, so that its rows need not be parsed.

    RECORD is written once, after all files of its dist: it has all of the digests or none.
    """
    try:
        digests = {parse_sha256(entry.patched) for entry in entries}
    except ValueError:  # another program edited the file
        return False
    recorded = frozenset(_SHA256.findall(data))
    return provenance.NAME.encode() in data and recorded >= {
        encode_digest(digest).encode() for digest in digests
    }


def _is_described(rows: Sequence[RecordRow], entry: provenance.PatchedFile | None) -> bool:
    """Return whether a row may describe a patched file; if none does, every run reports that."""
    try:
        patched = parse_sha256(entry.patched) if entry is not None else b""
    except ValueError:  # another program edited the file
        return True
    return not patched or any(
        row.agrees(FileHash(None, {DEFAULT_ALGORITHM: patched})) is not False for row in rows
    )


def _is_outdated(
    records: DistRecords, file: FilePlan, facts: ElfFacts, entry: provenance.PatchedFile
) -> bool:
    """Return whether linkage or needs of a patched file differ from its entry."""
    if not entry.patched:  # a run was killed that had to keep the rows of RECORD first
        return True
    return facts.current != entry.linkage or dict(entry.needs) != records.needs_of(file)


def _has_digest(path: str, digest: str) -> bool:
    try:
        return has_sha256(path, digest)
    except OSError:
        return False
