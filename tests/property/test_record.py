"""RECORD keeps its bytes, and is read as Python's csv reads it."""

from __future__ import annotations

import csv
import hashlib
import io

from hypothesis import given
from hypothesis import strategies as st

from nixpatch.installed import record
from nixpatch.installed.record import RecordRow, parse
from nixpatch.model import FileHash

NEW = FileHash(
    7,
    {
        name: hashlib.new(name, b"patched").digest()
        for name in hashlib.algorithms_guaranteed - {"shake_128", "shake_256"}
    },
)

# Any bytes at all, and texts made of what matters to the reader.
pieces = st.sampled_from(
    [
        b",",
        b'"',
        b'""',
        b"\n",
        b"\r\n",
        b"\r",
        b"a.so",
        b"b",
        b"sha256=xyz",
        b"sha512=",
        b"12",
        b"\xff",
        b"=",
        b" ",
    ]
)
awkward = st.lists(pieces, max_size=30).map(b"".join)
any_bytes = st.one_of(st.binary(max_size=200), awkward)


@given(any_bytes)
def test_reading_and_writing_gives_the_same_bytes(data: bytes) -> None:
    assert parse(data).data == data


@given(any_bytes)
def test_no_changes_change_nothing(data: bytes) -> None:
    assert parse(data).with_changes({}).data == data
    assert parse(data).without("no such row") == parse(data)


@given(any_bytes)
def test_a_line_without_quotes_is_read_the_same_in_less_time(data: bytes) -> None:
    for line in data.replace(b'"', b"").splitlines(keepends=True):
        assert RecordRow.plain(line) == RecordRow.parse(line)


@given(any_bytes, st.data())
def test_a_change_touches_the_rows_of_that_path_alone(data: bytes, draw: st.DataObject) -> None:
    before = parse(data)
    names = sorted({row.path for row in before.rows if row.path is not None})
    if not names:
        return
    name = draw.draw(st.sampled_from(names))

    after = parse(before.with_changes({name: NEW}).data)

    assert len(after.rows) == len(before.rows)
    for old, new in zip(before.rows, after.rows, strict=True):
        if old.path != name:
            assert new == old
            continue
        assert new.path == name
        assert (new.algorithm is None) == (old.algorithm is None)
        assert new.agrees(NEW) is not False
        assert new.raw.endswith(b"\n") == old.raw.endswith(b"\n")
    assert after.with_changes({name: NEW}) == after


@given(any_bytes, any_bytes.map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_an_added_row_is_there_and_the_others_stay(data: bytes, name: str) -> None:
    before = parse(data)

    after = parse(before.with_row(name, NEW).data)

    assert after.rows_for(name)
    assert [row.path for row in after.rows if row.path != name] == [
        row.path for row in before.rows if row.path != name
    ]
    assert after.with_row(name, NEW) == after


@given(any_bytes)
def test_the_quick_reader_agrees_with_the_full_one(data: bytes) -> None:
    assert list(record.paths(data)) == [row.path for row in parse(data).rows if row.path is not None]


@given(any_bytes)
def test_rows_are_those_of_the_csv_module(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    # csv drops what stands after the last quote of a file that ends inside one; we only keep such a row.
    expected = [row for row in csv.reader(io.StringIO(text, newline="")) if len(row) == 3]

    found = [row.path for row in parse(data).rows if row.path is not None]

    open_ended = bool(parse(data).rows) and parse(data).rows[-1].path is None
    assert found == [row[0] for row in expected][: len(found)]
    assert len(found) == len(expected) or (open_ended and len(found) == len(expected) - 1)
