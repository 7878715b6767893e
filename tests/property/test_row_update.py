"""Rows of RECORD over patches, killed runs and restore: the bytes come back, and wrong rows stay."""

from __future__ import annotations

import base64
import hashlib

from hypothesis import assume, given
from hypothesis import strategies as st

from nixpatch.installed.hashing import hash_bytes
from nixpatch.installed.provenance import PatchedFile
from nixpatch.installed.record import Record, RecordRow, parse
from nixpatch.model import FileHash
from nixpatch.operations.record_update import RowUpdate, UnrecordedChange, _states, update_rows
from support.recorded import sha256

ORIGINAL, FIRST, SECOND = b"original", b"patched once", b"patched again"
ALGORITHMS = ("sha256", "sha512", "md5", "sha1")


def _value(algorithm: str, data: bytes, padded: bool, capitals: bool) -> str:
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).decode()
    name = algorithm.upper() if capitals else algorithm
    return f"{name}={digest if padded else digest.rstrip('=')}"


values = st.one_of(
    st.just(""),
    st.sampled_from(["sha256=", "abc", "sha256=wrong", "crc32=1", "shake_128=00"]),
    st.builds(
        _value,
        st.sampled_from(ALGORITHMS),
        st.sampled_from([ORIGINAL, ORIGINAL, ORIGINAL, FIRST, b"else"]),
        st.booleans(),
        st.booleans(),
    ),
)
sizes = st.sampled_from(["", "8", "8", "8", "008", "7", "12", "x", "-1"])
rows = st.builds(
    lambda path, value, size, quotes, ending: (
        (f'"{path}","{value}","{size}"' if quotes else f"{path},{value},{size}") + ending
    ),
    st.sampled_from(["pkg/x.so", "./pkg/x.so"]),
    values,
    sizes,
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)


def hashed(data: bytes) -> FileHash:
    return hash_bytes(data, ALGORITHMS)


def step(
    record: Record, before: bytes, after: bytes, old: PatchedFile | None, *, accept: bool
) -> tuple[Record, PatchedFile | None, RowUpdate]:
    """Let one run update all rows."""
    entry = None if after == ORIGINAL else PatchedFile(sha256(ORIGINAL), sha256(after), "/x", None, None)
    states, known = _states(UnrecordedChange(hashed(before), hashed(after), entry), old)
    update = update_rows(record.rows, states, known, accept_modified=accept)
    if entry is not None:
        entry = PatchedFile(entry.original, entry.patched, "/x", None, None, rows=update.installed)
    return record.with_rows(update.changes), entry, update


def _is_right(row: RecordRow) -> bool:
    return row.agrees(hashed(ORIGINAL)) is not False


@given(st.lists(rows, min_size=1, max_size=3), st.lists(st.booleans(), min_size=1, max_size=4), st.booleans())
def test_a_restore_brings_every_row_back(drawn: list[str], accepts: list[bool], killed: bool) -> None:
    """Whatever the rows were, and in whichever run they were accepted, or if the last run was killed."""
    first = record = parse("".join(drawn).encode())
    # A row of the patched file looks like one that a killed run wrote.
    assume(not any(row.agrees(FileHash(None, hashed(FIRST).digests)) for row in first.rows))
    assume(not any(not row.digest and row.size in {len(FIRST), len(SECOND)} for row in first.rows))
    entry: PatchedFile | None = None
    contents = ORIGINAL
    for number, accept in enumerate(accepts):
        after = FIRST if number % 2 == 0 else SECOND
        record, entry, _ = step(record, contents, after, entry, accept=accept)
        contents = after
    if killed:  # the files are restored, and RECORD, but provenance still describes the patch
        record, _, _ = step(record, contents, ORIGINAL, entry, accept=False)
        contents = ORIGINAL

    record, _, _ = step(record, contents, ORIGINAL, entry, accept=False)

    assert record.data == first.data


@given(st.lists(rows, min_size=1, max_size=3), st.integers(1, 3))
def test_no_run_makes_a_wrong_row_right(drawn: list[str], runs: int) -> None:
    before = parse("".join(drawn).encode())
    record, entry, contents, wrong = before, None, ORIGINAL, 0
    for _ in range(runs):
        record, entry, update = step(record, contents, FIRST, entry, accept=False)
        contents, wrong = FIRST, update.wrong
    for old, new in zip(before.rows, record.rows, strict=True):
        if _is_right(old):
            assert new.agrees(hashed(FIRST)) is not False
        elif old.agrees(hashed(FIRST)) is False:  # a row of the patched file is what a killed run left
            assert new == old
            assert wrong
