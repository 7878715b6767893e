"""A cache file in which every row names the state of the file or directory that it was read from.

It makes a run quicker and cannot make it wrong: a row counts only for a path that has the very same stamp
now, or for the very same content, and only if its checksum holds. A file that cannot be used is ignored, and
a broken one is deleted.
"""

from __future__ import annotations

import binascii
import enum
import importlib.util
import os
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

_SCHEMA = 1
_APPLICATION = 0x6E697870
_WAIT = 0.5  # seconds for another process that is writing; beyond that, reading the store is quicker
_SETTLED = 2_000_000_000  # ns
_LARGEST = 64 << 20  # bytes; a store of ten thousand paths takes five million
_STAMP = struct.Struct("<QQqqq")
STAMP_SIZE = _STAMP.size
_TABLE = """\
CREATE TABLE entry (kind INTEGER, path BLOB, stamp BLOB, value BLOB, sum INTEGER, PRIMARY KEY (kind, path))
WITHOUT ROWID"""


class RowKind(enum.IntEnum):
    """What the value of a row is."""

    NAMES = 1
    """the library names in a directory"""
    HEADER = 2
    """the headers of an ELF file"""
    STORE = 3
    """the directories of a store that have each library name"""
    LISTINGS = 4
    """the library names in each directory of a store, by the state of the directory"""
    STRINGS = 6
    """the sonames that stand as strings in an ELF file that opens libraries by name"""
    OPENED = 5
    """the names that the sources of a dist open, by a digest over the rows of RECORD that describe these"""
    SOURCES = 7
    """that the sources of a dist have the digests of RECORD, by the states of all of them"""


_BY_CONTENT = {RowKind.OPENED: 3000}
"""kinds whose rows stand for a content and not for a path, and how many of them are kept"""


def stamp_of(status: os.stat_result) -> bytes:
    """Return the state of a file as bytes. Every change of it moves st_ctime, which no call can set."""
    return _STAMP.pack(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def settled(status: os.stat_result, moment: int | None = None) -> bool:
    """Whether a change after a time, in nanoseconds, by default now, is sure to get another time stamp.

    File systems count time in ticks of some milliseconds, and a file that has just changed may change again
    within the same tick. Take the status, or the time, before you read the contents.
    """
    return status.st_ctime_ns < (time.time_ns() if moment is None else moment) - _SETTLED


class Cache:
    """The rows of a cache file in memory. The file is open only while it is loaded or saved."""

    def __init__(self, path: str | None = None, edition: str = "") -> None:
        """Load the file.

        Args:
            path: the file; None caches nothing. :meth:`save` makes its directory.
            edition: version of the program. Rows of another one are not used: it may read files differently.

        """
        if importlib.util.find_spec("_sqlite3") is None:
            path = None  # some builds of Python come without it
        self._path = path
        self._version = binascii.crc32(f"{_SCHEMA} {edition}".encode()) & 0x7FFFFFFF
        self._rows: dict[RowKind, dict[bytes, tuple[bytes, bytes, int]]] = {kind: {} for kind in RowKind}
        self._fresh: dict[tuple[RowKind, bytes], tuple[bytes, bytes, int]] = {}
        self._used: set[tuple[RowKind, bytes]] = set()
        if path is not None and os.path.isfile(path):
            self._load(path)

    def get(self, kind: RowKind, path: str, stamp: bytes) -> bytes | None:
        """Return the value of ``path`` in exactly this state, None if there is none."""
        key = os.fsencode(path)
        row = self._rows[kind].get(key)
        if row is None:
            return None
        self._used.add((kind, key))
        if row[0] != stamp or row[2] != _sum(kind, key, stamp, row[1]):
            return None
        return row[1]

    def put(self, kind: RowKind, path: str, stamp: bytes, value: bytes) -> None:
        """Add a value; :meth:`save` writes it into the file."""
        if self._path is None:
            return
        key = os.fsencode(path)
        row = (stamp, value, _sum(kind, key, stamp, value))
        self._rows[kind][key] = self._fresh[kind, key] = row
        self._used.add((kind, key))

    def save(self) -> None:
        """Write new rows and delete those of paths that are gone. Never fails: the next run reads again."""
        if self._path is None or not self._fresh:
            return
        gone = [
            (kind, key)
            for kind, rows in self._rows.items()
            for key in rows
            if (kind, key) not in self._used
            and (len(rows) > _BY_CONTENT[kind] if kind in _BY_CONTENT else not os.path.lexists(key))
        ]
        rows = [(kind, key, *row) for (kind, key), row in self._fresh.items()]
        try:
            os.makedirs(os.path.dirname(os.path.abspath(self._path)), mode=0o700, exist_ok=True)
        except OSError:
            return
        for _ in range(2):
            with self._discard_broken(self._path) as broken, closing(_connect(self._path)) as database:
                self._prepare(database)
                database.executemany("DELETE FROM entry WHERE kind = ? AND path = ?", gone)
                database.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?)", rows)
                database.commit()
                self._fresh.clear()
            if not broken:
                break

    def _load(self, path: str) -> None:
        try:
            left = os.path.getsize(path)
        except OSError:
            return
        if left == 0:
            return  # another process is about to write its first rows
        with self._discard_broken(path), closing(_connect(path)) as database:
            if left > _LARGEST or not self._is_ours(database):
                raise ValueError("not a cache of this edition")
            for kind, key, stamp, value, checksum in database.execute("SELECT * FROM entry"):
                # Pages of a forged file may form a loop: no file yields more bytes than it has.
                left -= len(key) + len(stamp) + len(value) + 1
                if left < 0 or not all(isinstance(part, bytes) for part in (key, stamp, value)):
                    raise ValueError("not written by us")
                if kind in self._rows:
                    self._rows[kind][key] = (stamp, value, checksum)

    def _is_ours(self, database: sqlite3.Connection) -> bool:
        """Whether numbers and schema are those of this edition: a view of that name might never end."""
        for pragma, number in (("application_id", _APPLICATION), ("user_version", self._version)):
            if database.execute(f"PRAGMA {pragma}").fetchone()[0] != number:
                return False
        schema = database.execute("SELECT type, name, sql FROM sqlite_master").fetchmany(2)
        return schema == [("table", "entry", _TABLE)]

    def _prepare(self, database: sqlite3.Connection) -> None:
        """Begin a transaction; first empty a file of another schema, edition or program."""
        database.execute("PRAGMA synchronous = OFF")  # a torn file is noticed and thrown away
        database.execute("BEGIN IMMEDIATE")
        if self._is_ours(database):
            return
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchmany(99):
            quoted = table.replace('"', '""')
            database.execute(f'DROP TABLE "{quoted}"')
        database.execute(f"PRAGMA application_id = {_APPLICATION}")
        database.execute(f"PRAGMA user_version = {self._version}")
        database.execute(_TABLE)

    @contextmanager
    def _discard_broken(self, path: str) -> Iterator[list[Exception]]:
        """Delete a broken cache file; leave one that is only locked, or not ours to write.

        Yields:
            A list that holds the error afterwards if the file was broken, so that a second try makes sense.

        """
        import sqlite3  # noqa: PLC0415 - 10 ms that a run without a cache need not spend

        codes = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT)
        broken: list[Exception] = []
        try:
            yield broken
        except sqlite3.Error as error:
            # An error of the module itself carries no code; it too means that the file is not ours.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            # A header with a version for writing that SQLite does not know makes a file read-only for ever.
            if code in codes or (code == sqlite3.SQLITE_READONLY and os.access(path, os.W_OK)):
                broken.append(error)
        except (ValueError, TypeError, OverflowError, MemoryError) as error:  # the last: a forged length
            broken.append(error)
        if broken:
            for rows in self._rows.values():
                rows.clear()
            for suffix in ("", "-journal", "-wal", "-shm"):
                try:
                    os.unlink(path + suffix)
                except OSError:
                    continue


def _connect(path: str) -> sqlite3.Connection:
    import sqlite3  # noqa: PLC0415 - see _discard_broken

    return sqlite3.connect(path, timeout=_WAIT, isolation_level=None)


def _sum(kind: RowKind, path: bytes, stamp: bytes, value: bytes) -> int:
    """Return a row's checksum. SQLite does not notice a flipped bit inside a value."""
    return binascii.crc32(value, binascii.crc32(stamp, binascii.crc32(path, kind)))
