"""Find the patched files that a killed run did not record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from nixpatch.errors import FileRefused
from nixpatch.installed import provenance
from nixpatch.installed.dist_records import DistRecords
from nixpatch.installed.hashing import DEFAULT_ALGORITHM, encode_digest, has_sha256, parse_sha256
from nixpatch.model import ElfFacts, FileHash, FilePlan, Linkage

_SHA256 = re.compile(rb",sha256=([\w-]{43}),")


def unrecorded(records: DistRecords, files: Sequence[FilePlan]) -> frozenset[str]:
    """Return the files, of those without an edit, whose RECORD row or provenance is stale.

    An earlier run was killed, or a need that nothing met is met now without a change of the file. No ELF file
    is read, except those that an earlier run seems to have restored.

    Raises:
        OSError: the disk fails, or the run may open no more files.

    """
    known = records.usable_provenance()
    entries = known.files if known else {}
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
        elif entry is not None and entry.writer == provenance.INPLACE and _has_digest(path, entry.original):
            unrecorded_paths.add(path)
    if unrecorded_paths >= originals.keys():
        return frozenset(unrecorded_paths)
    try:
        record = records.read_record()
        if _has_all(record.data, entries.values()):
            return frozenset(unrecorded_paths)
        for path, rows in record.rows_of(originals).items():
            if any(row.agrees(originals[path]) for row in rows):
                unrecorded_paths.add(path)
        if not record.record.rows_for(records.key(records.provenance_path)):
            unrecorded_paths.update(originals)
    except (OSError, FileRefused):  # reported when RECORD is to be updated; there is none for unowned files
        pass
    return frozenset(unrecorded_paths)


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


def _is_outdated(
    records: DistRecords, file: FilePlan, facts: ElfFacts, entry: provenance.PatchedFile
) -> bool:
    """Return whether linkage or needs of a patched file differ from its entry."""
    linkage = Linkage(entry.search_path, entry.tag, entry.interp, tuple(sorted(entry.renamed.items())))
    return facts.current != linkage or dict(entry.needs) != records.needs_of(file)


def _has_digest(path: str, digest: str) -> bool:
    try:
        return has_sha256(path, digest)
    except OSError:
        return False
