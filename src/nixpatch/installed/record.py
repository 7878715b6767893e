"""RECORD of an installed dist, as rows that keep their bytes: changing one row leaves the others alone.

The format is that of PEP 376 and PEP 627, "Recording installed projects": CSV of path, hash and size, as
Python's ``csv`` reads it by default. Installers differ in order, quoting and line endings (pip before 23.3
writes CRLF, uv LF), and another tool may compare the whole file, so no row is rewritten for its style.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from nixpatch.errors import FileRefused
from nixpatch.installed.hashing import DEFAULT_ALGORITHM, KEPT_ALGORITHMS, KNOWN_ALGORITHMS, encode_digest
from nixpatch.model import FileHash

MAX_RECORD_SIZE = 16 << 20
"""bytes; the largest RECORD of a real wheel has about two million"""
_MAX_ROWS = 1 << 17


@dataclass(frozen=True, slots=True)
class Record:
    """All rows in file order. Joined, their bytes are the file."""

    rows: tuple[RecordRow, ...]

    @property
    def data(self) -> bytes:
        """The bytes of the file."""
        return b"".join(row.raw for row in self.rows)

    def rows_for(self, path: str) -> tuple[RecordRow, ...]:
        """Return the rows with exactly this path; some tools list a file twice."""
        return tuple(row for row in self.rows if row.path == path)

    def algorithms(self, paths: Iterable[str]) -> frozenset[str]:
        """Return the hash algorithms that it takes to check and rewrite the rows of these paths."""
        wanted = frozenset(paths)
        names = (
            name
            for row in self.rows
            if row.path in wanted
            for name in (row.check_algorithm, row.new_algorithm)
        )
        return frozenset(name for name in names if name is not None)

    def with_changes(self, changes: Mapping[str, FileHash]) -> Record:
        """Return the record with new hashes and sizes in every row of these paths.

        An empty field stays empty. md5, sha1, unknown algorithms, and those that ``FileHash`` has no digest
        of (see :meth:`algorithms`) become sha256.

        Raises:
            KeyError: no row has the path, or ``FileHash`` has no SHA-256.

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

    def with_rows(self, changes: Iterable[tuple[RecordRow, RecordRow]]) -> Record:
        """Return the record with other rows in the places of some.

        ``changes`` are in the order of the record: two rows may be equal now that were not when installed.
        """
        new_rows: dict[RecordRow, list[RecordRow]] = {}
        for old, new in changes:
            new_rows.setdefault(old, []).append(new)
        return Record(tuple(new_rows[row].pop(0) if new_rows.get(row) else row for row in self.rows))

    def without_hashes(self, files: Mapping[str, FileHash]) -> Record:
        """Return the record with sizes and no hashes in the rows of these paths."""
        return Record(
            tuple(
                row.without_hash(files[row.path]) if row.path is not None and row.path in files else row
                for row in self.rows
            )
        )

    def with_row(self, path: str, file: FileHash) -> Record:
        """Return the record with the rows of ``path`` updated, or with a new row for it.

        A new row has the line ending of the first row. It stands before a last row without one, which stays
        as it is: without the new row, the bytes are those of before.

        Raises:
            KeyError: ``FileHash`` has no SHA-256.

        """
        if self.rows_for(path):
            return self.with_changes({path: file})
        return self._with_new(new_row(path, file, self._ending))

    def with_announced(self, path: str) -> Record:
        """Return the record with a row without hash for ``path``, unless it has one."""
        return self if self.rows_for(path) else self._with_new(announced_row(path, self._ending))

    def with_contents(self, path: str, contents: bytes | None) -> Record:
        """Return the record with a row for a file of these contents; without one for None."""
        if contents is None:
            return self.without(path)
        file = FileHash(len(contents), {DEFAULT_ALGORITHM: hashlib.sha256(contents).digest()})
        announced = announced_row(path, self._ending)
        rows = (new_row(path, file, self._ending) if row == announced else row for row in self.rows)
        return Record(tuple(rows)).with_row(path, file)

    @property
    def _ending(self) -> bytes:
        return (self.rows[0].ending if self.rows else b"") or b"\n"

    def _with_new(self, row: RecordRow) -> Record:
        """Add a row at the end; rows of nixpatch are sorted there, so that history does not show."""
        end = len(self.rows)
        if end and (self.rows[-1].is_open or not self.rows[-1].ending):
            end -= 1
        while end and (last := self.rows[end - 1].path) and _is_of_nixpatch(last) and last > (row.path or ""):
            end -= 1
        return Record((*self.rows[:end], row, *self.rows[end:]))

    def with_one_row(self, paths: Collection[str], row: RecordRow) -> Record:
        """Return the record with ``row`` in the place of the first row of some paths, without the others."""
        first = next((number for number, old in enumerate(self.rows) if old.path in paths), None)
        rows = enumerate(self.rows)
        return Record(
            tuple(
                row if number == first else old
                for number, old in rows
                if number == first or old.path not in paths
            )
        )

    def without(self, path: str) -> Record:
        """Return the record without the rows of ``path``."""
        return Record(tuple(row for row in self.rows if row.path != path))


def parse(data: bytes) -> Record:
    """Parse the bytes of a RECORD; ``parse(data).data == data`` for any bytes.

    Raises:
        FileRefused: there are more than ``MAX_RECORD_SIZE``, or too many rows.

    """
    read = RecordRow.parse if b'"' in data else RecordRow.plain
    return Record(tuple(map(read, _split(data))))


def paths(data: bytes) -> list[str]:
    """Return the paths of the rows that have three fields, quicker than :func:`parse`: a scan needs no more.

    Raises:
        FileRefused: there are more than ``MAX_RECORD_SIZE`` bytes, or too many rows.

    """
    lines = _split(data)
    if b'"' in data:
        return [row.path for row in map(RecordRow.parse, lines) if row.path is not None]
    names = [line.partition(b",")[0] for line in lines if is_plain(line)]
    # Decoded in one go: no character of any encoding of the file system runs through a line feed.
    return os.fsdecode(b"\n".join(names)).split("\n") if names else []


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
    rows: list[bytes] = []
    start = 0
    while start < len(data):
        end, _ = row_end(data, start)
        rows.append(data[start:end])
        start = end
    return rows


_MAX_ROW = 1 << 16
"""bytes; PATH_MAX is 4,096. A longer row is kept unread: the patterns below take a hundred times its size"""

# A quoted field begins with a quote and goes on to the next single quote, newlines included; text between
# that quote and the comma belongs to it too, as in csv without ``strict``. The patterns can match in one way
# only, so that they need no possessive quantifiers, which CPython got wrong until 3.11.5.
_OPEN = rb'"[^"]*(?:""[^"]*)*'
_FIELD = rb"(?:" + _OPEN + rb'(?:"(?!")|\Z)[^,\r\n]*|(?!")[^,\r\n]*)'
_QUOTE_OR_END = re.compile(rb',"|\r\n|\r|\n')
_THREE = re.compile(rb"(" + _FIELD + rb"),(" + _FIELD + rb"),(" + _FIELD + rb")(\r\n|\r|\n|\Z)")
_QUOTED = re.compile(rb'"([^"]*(?:""[^"]*)*)"(?!")(.*)', re.DOTALL)
_ENDING = re.compile(rb"(?:\r\n|\r|\n)\Z")
_NEEDS_QUOTES = re.compile(rb'[,"\r\n]')
_MAX_SIZE_DIGITS = 20


@dataclass(frozen=True)
class RecordRow:
    """One row as bytes and path; hash and size are parsed on demand."""

    raw: bytes
    """with the line ending"""
    path: str | None
    """as written, without quotes; None if the row does not have three fields, and is only kept"""

    @classmethod
    def parse(cls, raw: bytes) -> RecordRow:
        """Parse a row of any form."""
        fields = _fields(raw)
        return cls(raw, None if fields is None else os.fsdecode(_unquoted(fields[0])))

    @classmethod
    def plain(cls, raw: bytes) -> RecordRow:
        """Parse a row that is one line without a quote, as :meth:`parse` does but quicker."""
        return cls(raw, os.fsdecode(raw.partition(b",")[0]) if is_plain(raw) else None)

    @functools.cached_property
    def _hash_and_size(self) -> tuple[str | None, str | None, int | None]:
        fields = _fields(self.raw)
        if fields is None:
            return None, None, None
        value, size = _unquoted(fields[1]), _unquoted(fields[2])
        algorithm = digest = None
        if value:
            name, equals, text = os.fsdecode(value).partition("=")
            algorithm, digest = (name.lower(), text) if equals else ("", name)
        is_number = size.isdigit() and len(size) <= _MAX_SIZE_DIGITS
        return algorithm, digest, int(size) if is_number else None

    @property
    def algorithm(self) -> str | None:
        """The hash algorithm in lower case; ``""`` for a hash without one, None for a row without hash."""
        return self._hash_and_size[0]

    @property
    def digest(self) -> str | None:
        """The hash as written, without the algorithm."""
        return self._hash_and_size[1]

    @property
    def size(self) -> int | None:
        """The size in bytes."""
        return self._hash_and_size[2]

    @property
    def check_algorithm(self) -> str | None:
        """The algorithm to compare a file with this row; None if there is none."""
        return self.algorithm if self.algorithm in KNOWN_ALGORITHMS else None

    @property
    def new_algorithm(self) -> str | None:
        """The algorithm for a new hash in this row; None for a row without hash."""
        if self.algorithm is None:
            return None
        return self.algorithm if self.algorithm in KEPT_ALGORITHMS else DEFAULT_ALGORITHM

    @property
    def ending(self) -> bytes:
        """The line ending; empty for a last row that has none."""
        match = _ENDING.search(self.raw)
        return match.group() if match else b""

    @property
    def is_open(self) -> bool:
        """Return whether the last field has no closing quote: a row behind it would become part of it."""
        return row_end(self.raw, 0)[1]

    @property
    def is_announced(self) -> bool:
        """Whether the row has a path and nothing else, as :func:`announced_row` makes it."""
        return self.path is not None and self._hash_and_size == (None, None, None)

    def agrees(self, file: FileHash) -> bool | None:
        """Return whether the row describes the file; None if there is no digest to compare."""
        if self.size is not None and file.size is not None and self.size != file.size:
            return False
        digest = file.digests.get(self.check_algorithm or "")
        if digest is None or self.digest is None:
            return None
        return self.digest.rstrip("=") == encode_digest(digest)

    def updated(self, file: FileHash) -> RecordRow:
        """Return the row with the hash and size of a file; it must have a path.

        Raises:
            KeyError: ``FileHash`` has no SHA-256.

        """
        fields = _fields(self.raw)
        assert fields is not None  # a row with a path has them
        path, value, size, ending = fields
        algorithm = self.new_algorithm
        if algorithm is not None:
            algorithm = algorithm if algorithm in file.digests else DEFAULT_ALGORITHM
            value = _quoted_like(value, f"{algorithm}={encode_digest(file.digests[algorithm])}")
        if _unquoted(size):
            size = _quoted_like(size, str(file.size))
        return RecordRow.parse(b",".join((path, value, size)) + ending)

    def without_hash(self, file: FileHash) -> RecordRow:
        """Return the row with the size of a file and no hash, as RECORD has it for files that may change."""
        fields = _fields(self.raw)
        assert fields is not None  # a row with a path has them
        return RecordRow.parse(b",".join((fields[0], b"", str(file.size).encode())) + fields[3])

    def moved(self, to: str) -> RecordRow:
        """Return the row with another path; it must have one."""
        fields = _fields(self.raw)
        assert fields is not None  # a row with a path has them
        return RecordRow.parse(b",".join((quoted(os.fsencode(to)), *fields[1:3])) + fields[3])


def new_row(path: str, file: FileHash, ending: bytes) -> RecordRow:
    """Return a row for a file, with its SHA-256.

    Raises:
        KeyError: ``FileHash`` lacks sha256.

    """
    value = f"{DEFAULT_ALGORITHM}={encode_digest(file.digests[DEFAULT_ALGORITHM])}".encode("ascii")
    return RecordRow.parse(
        b",".join((quoted(os.fsencode(path)), value, str(file.size).encode("ascii"))) + ending
    )


def announced_row(path: str, ending: bytes) -> RecordRow:
    """Return a row without hash, for a file that is about to be made."""
    return RecordRow.parse(quoted(os.fsencode(path)) + b",," + ending)


def _is_of_nixpatch(path: str) -> bool:
    return any(part.startswith("nixpatch") for part in path.split("/"))


def is_plain(line: bytes) -> bool:
    """Return whether a line without quotes has the three fields of a row."""
    return line.count(b",") == 2 and len(line) <= _MAX_ROW


def _fields(raw: bytes) -> tuple[bytes, bytes, bytes, bytes] | None:
    """Return path, hash and size as written, and the line ending; None for a row of another form."""
    match = _THREE.fullmatch(raw) if len(raw) <= _MAX_ROW else None
    if match is None:
        return None
    path, value, size, ending = match.groups()
    if b'"' in raw and row_end(raw, 0)[1]:  # only the last field can lack its closing quote
        return None
    return path, value, size, ending


def _quoted_like(old: bytes, new: str) -> bytes:
    """Quote the new text if the old one was quoted; digests and numbers do not need it."""
    text = new.encode("ascii")
    return b'"' + text + b'"' if old.startswith(b'"') else text


def row_end(data: bytes, start: int) -> tuple[int, bool]:
    """Return where the row at ``start`` ends, and whether its last field has no closing quote.

    Not by one pattern: a pattern that repeats a field keeps a hundred bytes for each repetition.
    """
    position = start
    if data.startswith(b'"', position):
        position = _after_quote(data, position + 1)
    while position >= 0 and (match := _QUOTE_OR_END.search(data, position)):
        if match[0] != b',"':
            return match.end(), False
        position = _after_quote(data, match.end())
    return len(data), position < 0


def _after_quote(data: bytes, start: int) -> int:
    """Return the offset after the closing quote of a field, -1 if it has none. Two quotes stand for one."""
    position = start
    while position := data.find(b'"', position) + 1:
        if not data.startswith(b'"', position):
            return position
        position += 1
    return -1


def quoted(field: bytes) -> bytes:
    """Return a field of a row, in quotes where it needs them."""
    return b'"' + field.replace(b'"', b'""') + b'"' if _NEEDS_QUOTES.search(field) else field


def _unquoted(field: bytes) -> bytes:
    match = _QUOTED.fullmatch(field)
    if match is None:
        return field
    quoted, rest = match.groups()
    return bytes(quoted.replace(b'""', b'"') + rest)
