"""RECORD of an installed dist: rows that keep their bytes, so that one changed row changes one row.

The format is PEP 376 and PEP 627, "Recording installed projects": CSV of path, hash and size, as Python's
``csv`` reads it by default. Installers differ in order, quoting and line endings (pip before 23.3 writes
CRLF, uv LF), and another tool may compare the whole file: nothing is rewritten for being written oddly.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nixpatch.errors import FileRefused
from nixpatch.installed.record_row import Row, is_plain, new_row, row_end
from nixpatch.model import FileHash

MAX_RECORD_SIZE = 16 << 20
"""bytes; the largest RECORD of a real wheel has about two million"""
_MAX_ROWS = 1 << 17


@dataclass(frozen=True, slots=True)
class Record:
    """All rows in file order. Joined, their bytes are the file."""

    rows: tuple[Row, ...]

    @property
    def data(self) -> bytes:
        """The file's bytes."""
        return b"".join(row.raw for row in self.rows)

    def rows_for(self, path: str) -> tuple[Row, ...]:
        """Return the rows that spell their path exactly so; some tools list a file twice."""
        return tuple(row for row in self.rows if row.path == path)

    def algorithms(self, paths: Iterable[str]) -> frozenset[str]:
        """Every algorithm that checking and rewriting the rows of these paths takes."""
        wanted = frozenset(paths)
        names = (
            name
            for row in self.rows
            if row.path in wanted
            for name in (row.check_algorithm, row.new_algorithm)
        )
        return frozenset(name for name in names if name is not None)

    def with_changes(self, changes: Mapping[str, FileHash]) -> Record:
        """Return the record with new hashes and sizes for these paths, in every row that names them.

        A field that was empty stays empty. md5, sha1, unknown algorithms, and those that ``FileHash`` lacks
        a digest for become sha256: see ``algorithms``.

        Raises:
            KeyError: no row has the path, or ``FileHash`` lacks sha256 where it is written.

        """
        missing = changes.keys() - {row.path for row in self.rows}
        if missing:
            raise KeyError(f"no row for {min(missing)!a}")
        return Record(
            tuple(
                row if row.path is None or row.path not in changes else row.updated(changes[row.path])
                for row in self.rows
            )
        )

    def with_row(self, path: str, file: FileHash) -> Record:
        """Return the record with a row for ``path``: the present ones updated, else one appended.

        The new row ends as the file's first row does.

        Raises:
            KeyError: ``FileHash`` lacks sha256 where it is written.

        """
        if self.rows_for(path):
            return self.with_changes({path: file})
        new = new_row(path, file, (self.rows[0].ending if self.rows else b"") or b"\n")
        before, last = self.rows[:-1], self.rows[-1:]
        if last and last[0].is_open:
            return Record((*before, new, *last))
        if last and not last[0].ending:
            last = (Row.parse(last[0].raw + new.ending),)
        return Record((*before, *last, new))

    def with_moved(self, path: str, to: str) -> Record:
        """Return the record with the rows of ``path``, in their place, for a file that is now at ``to``."""
        return Record(tuple(row.moved(to) if row.path == path else row for row in self.rows))

    def with_raw(self, path: str, raw: bytes) -> Record:
        """Return the record with other bytes, as some row had them once, in the place of ``path``'s rows."""
        return Record(tuple(Row.parse(raw) if row.path == path else row for row in self.rows))

    def without(self, path: str) -> Record:
        """Return the record without the rows of ``path``; the same one where there are none."""
        return Record(tuple(row for row in self.rows if row.path != path))


def parse(data: bytes) -> Record:
    """Read the bytes of a RECORD. ``parse(data).data == data`` for any bytes.

    Raises:
        FileRefused: there are more than ``MAX_RECORD_SIZE``, or too many rows.

    """
    read = Row.parse if b'"' in data else Row.plain
    return Record(tuple(map(read, _split(data))))


def paths(data: bytes) -> list[str]:
    """Return the paths of the rows that have three fields: all that a scan of 50,000 rows wants to know.

    Raises:
        FileRefused: there are more than ``MAX_RECORD_SIZE`` bytes, or too many rows.

    """
    lines = _split(data)
    if b'"' in data:
        return [row.path for row in map(Row.parse, lines) if row.path is not None]
    found = [line.partition(b",")[0] for line in lines if is_plain(line)]
    # Decoded in one go: no character of any encoding of the file system runs through a line feed.
    return os.fsdecode(b"\n".join(found)).split("\n") if found else []


def _must_be_bounded(data: bytes) -> None:
    if len(data) > MAX_RECORD_SIZE:
        raise FileRefused(f"RECORD has {len(data)} bytes, more than {MAX_RECORD_SIZE}")
    rows = data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
    if rows > _MAX_ROWS:
        raise FileRefused(f"RECORD has {rows} rows, more than {_MAX_ROWS}")


def _split(data: bytes) -> list[bytes]:
    _must_be_bounded(data)
    if b'"' not in data:
        return data.splitlines(keepends=True)
    found: list[bytes] = []
    start = 0
    while start < len(data):
        end, _ = row_end(data, start)
        found.append(data[start:end])
        start = end
    return found
