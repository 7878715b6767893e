"""RECORD of an installed dist: rows that keep their bytes, so that one changed row changes one row.

The format is PEP 376 and PEP 627, "Recording installed projects": CSV of path, hash and size, as Python's
``csv`` reads it by default. Installers differ in order, quoting and line endings (pip before 23.3 writes
CRLF, uv LF), and another tool may compare the whole file: nothing is rewritten for being written oddly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from nixpatch.environment.digests import (
    DEFAULT_ALGORITHM,
    KEPT_ALGORITHMS,
    KNOWN_ALGORITHMS,
    FileHash,
    encode_digest,
)
from nixpatch.errors import FileRefused

MAX_RECORD_SIZE = 16 << 20
"""bytes; the largest RECORD of a real wheel has about two million"""
_MAX_ROWS = 1 << 17
_MAX_ROW = 1 << 16
"""bytes; PATH_MAX is 4,096. What is longer is only kept: the patterns below take hundred times its size"""

# A field is quoted where it begins with a quote: up to the next single quote, newlines included; what
# stands between that quote and the comma belongs to it too, as in csv without ``strict``. Written so that
# there is one way to match and no need for possessive quantifiers, which CPython got wrong until 3.11.5.
_OPEN = rb'"[^"]*(?:""[^"]*)*'
_FIELD = rb"(?:" + _OPEN + rb'(?:"(?!")|\Z)[^,\r\n]*|(?!")[^,\r\n]*)'
_QUOTE_OR_END = re.compile(rb',"|\r\n|\r|\n')
_THREE = re.compile(rb"(" + _FIELD + rb"),(" + _FIELD + rb"),(" + _FIELD + rb")(\r\n|\r|\n|\Z)")
_QUOTED = re.compile(rb'"([^"]*(?:""[^"]*)*)"(?!")(.*)', re.DOTALL)
_ENDING = re.compile(rb"(?:\r\n|\r|\n)\Z")
_NEEDS_QUOTES = re.compile(rb'[,"\r\n]')
_MAX_SIZE_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One row, with the bytes it came as."""

    raw: bytes
    """line ending included"""
    path: str | None
    """as written, without quotes; None where the row has not three fields and is only kept"""
    algorithm: str | None = None
    """lower case; ``""`` for a hash that names none; None for a row without hash"""
    digest: str | None = None
    """as written"""
    size: int | None = None

    @property
    def check_algorithm(self) -> str | None:
        """The algorithm that tells whether a file agrees with this row; None if there is none to use."""
        return self.algorithm if self.algorithm in KNOWN_ALGORITHMS else None

    @property
    def new_algorithm(self) -> str | None:
        """The algorithm that a new hash of this row is written with; None for a row without hash."""
        if self.algorithm is None:
            return None
        return self.algorithm if self.algorithm in KEPT_ALGORITHMS else DEFAULT_ALGORITHM

    def agrees(self, file: FileHash) -> bool | None:
        """Tell whether the file is the one that the row describes.

        None: nothing speaks against it, but the row has no hash that ``file`` has the digest of.
        """
        if self.size is not None and self.size != file.size:
            return False
        digest = file.digests.get(self.check_algorithm or "")
        if digest is None or self.digest is None:
            return None
        return self.digest.rstrip("=") == encode_digest(digest)


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
                row if row.path is None or row.path not in changes else _updated(row, changes[row.path])
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
        ending = (_ending(self.rows[0].raw) if self.rows else b"") or b"\n"
        value = f"{DEFAULT_ALGORITHM}={encode_digest(file.digests[DEFAULT_ALGORITHM])}".encode("ascii")
        raw = b",".join((_quoted(os.fsencode(path)), value, str(file.size).encode("ascii"))) + ending
        before, last = self.rows[:-1], self.rows[-1:]
        if last and _row_end(last[0].raw, 0)[1]:  # whatever follows would be read as part of it
            return Record((*before, _parse_row(raw), *last))
        if last and not _ending(last[0].raw):
            last = (_parse_row(last[0].raw + ending),)
        return Record((*before, *last, _parse_row(raw)))

    def without(self, path: str) -> Record:
        """Return the record without the rows of ``path``; the same one where there are none."""
        return Record(tuple(row for row in self.rows if row.path != path))


def parse(data: bytes) -> Record:
    """Read the bytes of a RECORD. ``parse(data).data == data`` for any bytes.

    Raises:
        FileRefused: there are more than ``MAX_RECORD_SIZE``, or too many rows.

    """
    return Record(tuple(map(_parse_row, _split(data))))


def paths(data: bytes) -> Iterator[str]:
    """Give the paths of the rows that have three fields: all that a scan of 50,000 rows wants to know.

    Raises:
        FileRefused: there are more than ``MAX_RECORD_SIZE`` bytes, or too many rows.

    """
    return _paths(_split(data))


def _paths(rows: list[bytes]) -> Iterator[str]:
    for raw in rows:
        if len(raw) > _MAX_ROW:
            continue
        if b'"' not in raw:
            path, _, rest = raw.partition(b",")
            if rest.count(b",") == 1:
                yield os.fsdecode(path)
        elif fields := _fields(raw):
            yield os.fsdecode(_unquoted(fields[0]))


def _split(data: bytes) -> list[bytes]:
    if len(data) > MAX_RECORD_SIZE:
        raise FileRefused(f"RECORD has {len(data)} bytes, more than {MAX_RECORD_SIZE}")
    rows = data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
    if rows > _MAX_ROWS:
        raise FileRefused(f"RECORD has {rows} rows, more than {_MAX_ROWS}")
    if b'"' not in data:
        return data.splitlines(keepends=True)
    found: list[bytes] = []
    start = 0
    while start < len(data):
        end, _ = _row_end(data, start)
        found.append(data[start:end])
        start = end
    return found


def _row_end(data: bytes, at: int) -> tuple[int, bool]:
    """Where the row that begins at ``at`` ends, and whether its last field lacks the closing quote.

    By hand: a pattern that repeats a field keeps a hundred bytes for each repetition.
    """
    if data.startswith(b'"', at):
        at = _behind_quote(data, at + 1)
    while at >= 0 and (found := _QUOTE_OR_END.search(data, at)):
        if found[0] != b',"':
            return found.end(), False
        at = _behind_quote(data, found.end())
    return len(data), at < 0


def _behind_quote(data: bytes, at: int) -> int:
    """Where a quoted field goes on behind its closing quote, -1 if it has none. Two quotes stand for one."""
    while at := data.find(b'"', at) + 1:
        if not data.startswith(b'"', at):
            return at
        at += 1
    return -1


def _parse_row(raw: bytes) -> Row:
    fields = _fields(raw)
    if fields is None:
        return Row(raw, None)
    path, value, size = (_unquoted(field) for field in fields[:3])
    algorithm = digest = None
    if value:
        name, equals, text = os.fsdecode(value).partition("=")
        algorithm, digest = (name.lower(), text) if equals else ("", name)
    return Row(
        raw,
        os.fsdecode(path),
        algorithm,
        digest,
        int(size) if size.isdigit() and len(size) <= _MAX_SIZE_DIGITS else None,
    )


def _fields(raw: bytes) -> tuple[bytes, bytes, bytes, bytes] | None:
    """Path, hash and size as written, and the line ending; None if the row is not of that form."""
    found = _THREE.fullmatch(raw) if len(raw) <= _MAX_ROW else None
    if found is None:
        return None
    path, value, size, ending = found.groups()
    if b'"' in raw and _row_end(raw, 0)[1]:  # only the last field can lack its closing quote
        return None
    return path, value, size, ending


def _updated(row: Row, file: FileHash) -> Row:
    fields = _fields(row.raw)
    assert fields is not None  # a row with a path has them
    path, value, size, ending = fields
    algorithm = row.new_algorithm
    if algorithm is not None:
        algorithm = algorithm if algorithm in file.digests else DEFAULT_ALGORITHM
        value = _in_the_style_of(value, f"{algorithm}={encode_digest(file.digests[algorithm])}")
    if _unquoted(size):
        size = _in_the_style_of(size, str(file.size))
    return _parse_row(b",".join((path, value, size)) + ending)


def _in_the_style_of(old: bytes, new: str) -> bytes:
    """Quoted where the old one was; neither digests nor numbers need it."""
    text = new.encode("ascii")
    return b'"' + text + b'"' if old.startswith(b'"') else text


def _ending(raw: bytes) -> bytes:
    found = _ENDING.search(raw)
    return found.group() if found else b""


def _quoted(field: bytes) -> bytes:
    return b'"' + field.replace(b'"', b'""') + b'"' if _NEEDS_QUOTES.search(field) else field


def _unquoted(field: bytes) -> bytes:
    found = _QUOTED.fullmatch(field)
    if found is None:
        return field
    quoted, rest = found.groups()
    return bytes(quoted.replace(b'""', b'"') + rest)
