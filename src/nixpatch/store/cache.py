"""A cache file whose every row names the state of the file or directory that it was read from.

It makes a run quicker and cannot make it wrong: a row counts only for a path that has the very same stamp
now, and only if its checksum holds. Whatever is odd about the file itself means to work without it.
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
_WAIT = 0.5  # seconds for another process that is writing; longer than that, and reading the store is quicker
_SETTLED = 2_000_000_000  # ns
_LARGEST = 64 << 20  # bytes; a store of ten thousand paths takes five million
_TABLE = """\
CREATE TABLE entry (kind INTEGER, path BLOB, stamp BLOB, value BLOB, sum INTEGER, PRIMARY KEY (kind, path))
WITHOUT ROWID"""


class Kind(enum.IntEnum):
    """What a row remembers."""

    NAMES = 1
    """the library names in a directory"""
    HEADER = 2
    """what the headers of a file say"""
    STORE = 3
    """which directories of a store have which names"""
    LISTINGS = 4
    """the library names in each directory of a store, by the state of the directory"""


def stamp_of(status: os.stat_result) -> bytes:
    """Return what tells one state of a file from another: every change moves st_ctime, nobody can set it."""
    return struct.pack(
        "<QQqqq", status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def settled(status: os.stat_result) -> bool:
    """Whether a later change is sure to get another time stamp.

    File systems count time in ticks of some milliseconds: what changed just now may change once more within
    the same tick. (The status has to be taken before the contents are read.)
    """
    return status.st_ctime_ns < time.time_ns() - _SETTLED


class Cache:
    """The rows of a cache file in memory. The file is open only while it is loaded or saved."""

    def __init__(self, path: str | None = None, edition: str = "") -> None:
        """Load ``path``; None keeps nothing.

        Args:
            path: the file; its directory is made when there is something to save.
            edition: version of the program. Rows of another one are not used: it may read files differently.

        """
        if importlib.util.find_spec("_sqlite3") is None:
            path = None  # some builds of Python come without it
        self._path = path
        self._version = binascii.crc32(f"{_SCHEMA} {edition}".encode()) & 0x7FFFFFFF
        self._rows: dict[Kind, dict[bytes, tuple[bytes, bytes, int]]] = {kind: {} for kind in Kind}
        self._fresh: dict[tuple[Kind, bytes], tuple[bytes, bytes, int]] = {}
        self._used: set[tuple[Kind, bytes]] = set()
        if path is not None and os.path.isfile(path):
            self._load(path)

    def get(self, kind: Kind, path: str, stamp: bytes) -> bytes | None:
        """Return what was remembered of ``path`` in exactly this state."""
        key = os.fsencode(path)
        row = self._rows[kind].get(key)
        if row is None:
            return None
        self._used.add((kind, key))
        if row[0] != stamp or row[2] != _sum(kind, key, stamp, row[1]):
            return None
        return row[1]

    def put(self, kind: Kind, path: str, stamp: bytes, value: bytes) -> None:
        """Remember a value; it reaches the file with :meth:`save`."""
        if self._path is None:
            return
        key = os.fsencode(path)
        row = (stamp, value, _sum(kind, key, stamp, value))
        self._rows[kind][key] = self._fresh[kind, key] = row
        self._used.add((kind, key))

    def save(self) -> None:
        """Write what is new, forget paths that are gone. Failing is no error: the next run reads again."""
        if self._path is None or not self._fresh:
            return
        gone = [
            (kind, key)
            for kind, rows in self._rows.items()
            for key in rows
            if (kind, key) not in self._used and not os.path.lexists(key)
        ]
        rows = [(kind, key, *row) for (kind, key), row in self._fresh.items()]
        try:
            os.makedirs(os.path.dirname(os.path.abspath(self._path)), mode=0o700, exist_ok=True)
        except OSError:
            return
        for _ in range(2):
            with self._trouble(self._path) as retry, closing(_connect(self._path)) as database:
                self._prepare(database)
                database.executemany("DELETE FROM entry WHERE kind = ? AND path = ?", gone)
                database.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?)", rows)
                database.commit()
                self._fresh.clear()
            if not retry:
                break

    def _load(self, path: str) -> None:
        try:
            left = os.path.getsize(path)
        except OSError:
            return
        if left == 0:
            return  # another process is about to write its first rows
        with self._trouble(path), closing(_connect(path)) as database:
            if left > _LARGEST or not self._is_ours(database):
                raise ValueError("not a cache of this edition")
            for kind, key, stamp, value, checksum in database.execute("SELECT * FROM entry"):
                # Pages of a forged file may lead round in circles: more than the file has is not from it.
                left -= len(key) + len(stamp) + len(value) + 1
                if left < 0 or not all(isinstance(part, bytes) for part in (key, stamp, value)):
                    raise ValueError("not written by us")
                if kind in self._rows:
                    self._rows[kind][key] = (stamp, value, checksum)

    def _is_ours(self, database: sqlite3.Connection) -> bool:
        """Tell by numbers and by schema: a view of that name could go on for ever."""
        found = [
            database.execute(f"PRAGMA {what}").fetchone()[0] for what in ("application_id", "user_version")
        ]
        if found != [_APPLICATION, self._version]:
            return False
        schema = database.execute("SELECT type, name, sql FROM sqlite_master").fetchmany(2)
        return schema == [("table", "entry", _TABLE)]

    def _prepare(self, database: sqlite3.Connection) -> None:
        """Begin to write; a file of another schema, edition or program is emptied first."""
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
    def _trouble(self, path: str) -> Iterator[list[bool]]:
        """Delete a broken cache file; leave one alone that is only locked or not ours to write.

        Yields a list that is not empty afterwards if the file was broken and a second try makes sense.
        """
        retry: list[bool] = []
        import sqlite3  # noqa: PLC0415 - 10 ms that a run without a cache need not spend

        broken = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT)
        try:
            yield retry
        except sqlite3.Error as error:
            # An error of the module itself carries no code; it too means that the file is not ours.
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in broken:
                retry.append(True)
        except (ValueError, TypeError, OverflowError, MemoryError):  # the last: a length that is forged
            retry.append(True)
        if retry:
            for rows in self._rows.values():
                rows.clear()
            for suffix in ("", "-journal", "-wal", "-shm"):
                try:
                    os.unlink(path + suffix)
                except OSError:
                    continue


def _connect(path: str) -> sqlite3.Connection:
    import sqlite3  # noqa: PLC0415 - late, see above

    return sqlite3.connect(path, timeout=_WAIT, isolation_level=None)


def _sum(kind: Kind, path: bytes, stamp: bytes, value: bytes) -> int:
    """Return a row's checksum: a flipped bit inside a row would go unnoticed by the database."""
    return binascii.crc32(value, binascii.crc32(stamp, binascii.crc32(path, kind)))
