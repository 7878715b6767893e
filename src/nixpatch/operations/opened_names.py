"""Read which libraries the code of a tree opens by name: strings of ELF files, and the sources of each dist.

Sources take long to follow, and a dist is hardly ever changed after its installation. So the names of a dist
are kept in the cache by the digests that its RECORD has of its sources, for every tree that has this dist. In
each tree the sources are compared with these digests once, and again when the state of one has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from nixpatch.elf.dlopen_strings import DLOPEN, dlopen_strings
from nixpatch.errors import FileRefused
from nixpatch.installed.dist_records import DistRecords, TreeRecords
from nixpatch.installed.hashing import encode_digest
from nixpatch.installed.scan import DistSources
from nixpatch.model import Dist, DlopenStrings, ElfFacts, Machine, OpenedName, Opener, Tree
from nixpatch.policy import Policy
from nixpatch.resolve.python_names import opened_names
from nixpatch.store.cache import Cache, RowKind, settled, stamp_of

_SOURCE_ROW = re.compile(rb"^[^\r\n]*\.py[\"']?,[^\r\n]*", re.MULTILINE)
_HASHED = re.compile(rb",sha(?:256|384|512)=[\w-]{20,},\d*\Z")
_PLAIN_ROW = re.compile(rb"([^,\"']+),sha256=([\w-]{43}),\d*")


@dataclass(frozen=True, slots=True)
class CodeNames:
    """The names in the code of a tree."""

    native: Mapping[str, DlopenStrings]
    """by path of the ELF file"""
    python: Mapping[str, tuple[OpenedName, ...]]
    """by ``.dist-info``; paths of sources are relative to the site directory"""


@dataclass(frozen=True, slots=True)
class DistNames:
    """The names in the sources of a dist."""

    names: tuple[OpenedName, ...]
    as_recorded: bool
    """the sources have the digests of RECORD, so another dist with these has the same names"""


class CodeReader:
    """Reads the names in the code of a tree; those of what has not changed come from the cache."""

    def __init__(self, tree: Tree, policy: Policy, cache: Cache, records: TreeRecords) -> None:
        """Read nothing yet."""
        self.symbols = (*DLOPEN, *(symbol for opener in policy.dlopen.openers for symbol in opener.symbols))
        self._tree = tree
        self.cache = cache
        self._records = records
        self._begun = time.time_ns()
        self._states: dict[str, os.stat_result] = {}
        self._source_states: dict[str, tuple[bytes, bool]] = {}
        self._rows = {dist.info: _source_rows(dist, records.of(tree, dist.info)) for dist in tree.dists}
        self._strings: dict[str, DlopenStrings | None] = {}
        self._names: dict[str, DistNames] = {}

    def unread_files(self) -> Iterator[str]:
        """Yield the ELF files whose strings are not in the cache."""
        for file in self._tree.files:
            try:
                self._state(file.path)
            except OSError:
                continue
            if self._cached_strings(file.path) is None:
                yield file.path

    def unread_dists(self) -> Iterator[Dist]:
        """Yield the dists whose names are not in the cache."""
        return (
            dist
            for dist in self._tree.dists
            if self._rows[dist.info] != [] and self._cached_names(dist) is None
        )

    def take(self, strings: Mapping[str, DlopenStrings | None], names: Mapping[str, DistNames]) -> None:
        """Take what another process has read, after :meth:`unread_files` and :meth:`unread_dists`."""
        self._strings.update(strings)
        self._names.update(names)

    def code_names(self, facts: Mapping[str, ElfFacts], machine: Machine) -> CodeNames:
        """Return the names of ELF files for a machine, and of all dists. Nothing is run."""
        native: dict[str, DlopenStrings] = {}
        for path, file_facts in facts.items():
            if file_facts.machine == machine:
                try:
                    strings = self._strings_of(path)
                except (FileRefused, OSError):  # the plan of the file tells what is wrong with it
                    continue
                if strings is not None:
                    native[path] = strings
        python = {dist.info: names for dist in self._tree.dists if (names := self._names_of(dist))}
        return CodeNames(native, python)

    def _state(self, path: str) -> os.stat_result:
        """Return the state of a file before its contents were read."""
        if path not in self._states:
            self._states[path] = os.stat(path)
        return self._states[path]

    def _cached_strings(self, path: str) -> tuple[DlopenStrings | None] | None:
        value = self.cache.get(RowKind.STRINGS, path, stamp_of(self._state(path)))
        if value is not None:
            try:
                asked, row = json.loads(value)
                if tuple(asked) == self.symbols:
                    return (None if row is None else DlopenStrings(*(tuple(part) for part in row)),)
            except (ValueError, TypeError, RecursionError):  # not a row of this program
                pass
        return None

    def _strings_of(self, path: str) -> DlopenStrings | None:
        status = self._state(path)
        if path not in self._strings:
            known = self._cached_strings(path)
            if known is not None:
                return known[0]
            self._strings[path] = dlopen_strings(path, self.symbols)
        strings = self._strings[path]
        if settled(status, self._begun):
            row = None if strings is None else (strings.symbols, strings.names, strings.in_text)
            text = json.dumps((self.symbols, row))
            self.cache.put(RowKind.STRINGS, path, stamp_of(status), text.encode("ascii"))
        return strings

    def _cached_names(self, dist: Dist) -> tuple[OpenedName, ...] | None:
        state, _ = self._state_of_sources(dist)
        if self._rows[dist.info] is None or self.cache.get(RowKind.SOURCES, dist.info, state) is None:
            return None
        return self._names_by_record(dist)

    def _names_by_record(self, dist: Dist) -> tuple[OpenedName, ...] | None:
        """Return the names of a dist with the digests that RECORD has; None if such a dist is not known."""
        rows = self._rows[dist.info]
        return None if rows is None else _unpacked(self.cache.get(RowKind.OPENED, _key(rows), b""))

    def _state_of_sources(self, dist: Dist) -> tuple[bytes, bool]:
        """Return a digest of the rows and states of the sources of a dist, and whether these are settled."""
        if dist.info not in self._source_states:
            digest = hashlib.blake2b(b"\n".join(self._rows[dist.info] or ()), digest_size=32)
            are_settled = True
            for path in DistSources(dist).paths:
                try:
                    status = os.stat(path)
                except OSError:
                    are_settled = False
                    continue
                digest.update(os.fsencode(path) + b"\0" + stamp_of(status))
                are_settled = are_settled and settled(status, self._begun)
            self._source_states[dist.info] = (digest.digest(), are_settled)
        return self._source_states[dist.info]

    def _names_of(self, dist: Dist) -> tuple[OpenedName, ...]:
        if self._rows[dist.info] == []:
            return ()
        if dist.info not in self._names:
            known = self._cached_names(dist)
            if known is not None:
                return known
            self._names[dist.info] = self.read_names(dist)
        names = self._names[dist.info]
        rows = self._rows[dist.info]
        if rows is not None and names.as_recorded:
            if self._names_by_record(dist) is None:
                self.cache.put(RowKind.OPENED, _key(rows), b"", _packed(names.names))
            state, are_settled = self._state_of_sources(dist)
            if are_settled:
                self.cache.put(RowKind.SOURCES, dist.info, state, b"")
        return names.names

    def read_names(self, dist: Dist) -> DistNames:
        """Read the sources of a dist; those with the digests of a dist that is known are not followed."""
        known = self._names_by_record(dist)
        if known is not None:
            sources = DistSources(dist)
            for name in sources:
                sources.get(name)
            if self._have_recorded_digests(dist, sources):
                return DistNames(known, as_recorded=True)
        sources = DistSources(dist)
        names = opened_names(sources)
        return DistNames(names, self._have_recorded_digests(dist, sources))

    def _have_recorded_digests(self, dist: Dist, sources: DistSources) -> bool:
        """Whether the sources that were read are all that RECORD has, with the digests that it has."""
        recorded = {os.fsdecode(row[0]): row[1] for row in map(_fields, self._rows[dist.info] or ()) if row}
        digests = {name: encode_digest(digest).encode() for name, digest in sources.digests.items()}
        return (
            not sources.are_lost
            and sources.keys() == recorded.keys()
            and all(recorded[name] == digest for name, digest in digests.items())
        )


def _source_rows(dist: Dist, records: DistRecords) -> list[bytes] | None:
    """Return the rows of RECORD that describe sources; None if not every source has one with a digest."""
    try:
        rows = _SOURCE_ROW.findall(records.read_record().data)
    except OSError:
        return None
    count = sum(path.endswith(".py") for path in dist.files)
    return rows if len(rows) == count and all(map(_HASHED.search, rows)) else None


def _fields(row: bytes) -> tuple[bytes, bytes] | None:
    """Return path and SHA-256 of a row; None for one with quotes or another algorithm."""
    match = _PLAIN_ROW.fullmatch(row)
    return (match[1], match[2]) if match else None


def _key(rows: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\n".join(rows)).hexdigest()


def _packed(names: Iterable[OpenedName]) -> bytes:
    rows = [(name.name, name.opener.name, name.path, name.line, name.traced) for name in names]
    return json.dumps(rows).encode("ascii")


def _unpacked(value: bytes | None) -> tuple[OpenedName, ...] | None:
    """Return the names of a row of the cache; None where it is none of ours."""
    if value is None:
        return None
    try:
        return tuple(
            OpenedName(str(name), Opener[opener], str(path), int(line), bool(traced))
            for name, opener, path, line, traced in json.loads(value)
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
