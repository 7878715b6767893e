"""What an earlier run left unfinished: files that are as they shall be, and are not written down so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from nixpatch.errors import FileRefused
from nixpatch.fs import read_regular
from nixpatch.installed import provenance, record
from nixpatch.installed.dist_records import Ledger, describes, needs_of, original_hash, rows_by_file
from nixpatch.installed.hashing import encode_digest, has_sha256, parse_sha256
from nixpatch.model import ElfFacts, FilePlan, Linkage

_SHA256 = re.compile(rb",sha256=([\w-]{43}),")


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


def _has_all(data: bytes, entries: Iterable[provenance.PatchedFile]) -> bool:
    """Whether RECORD has the digest of every patched file: then nobody need look at its rows one by one.

    RECORD is written once, after all files of its dist: it has all of the digests or none.
    """
    try:
        digests = {parse_sha256(entry.patched) for entry in entries}
    except ValueError:  # somebody wrote into our file
        return False
    known = frozenset(_SHA256.findall(data))
    return provenance.NAME.encode() in data and known >= {
        encode_digest(digest).encode() for digest in digests
    }


def _outdated(where: Ledger, file: FilePlan, facts: ElfFacts, entry: provenance.PatchedFile) -> bool:
    """Whether a patched file, or what serves its needs, is not as its entry has it."""
    linkage = Linkage(entry.search_path, entry.tag, entry.interp, tuple(sorted(entry.renamed.items())))
    return facts.current != linkage or dict(entry.needs) != needs_of(where, file)


def _is(path: str, digest: str) -> bool:
    """Whether a file has a digest, ``sha256=<hex>``."""
    try:
        return has_sha256(path, digest)
    except OSError:
        return False
