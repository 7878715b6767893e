"""RECORD and ``nixpatch.json`` of each dist of a tree, read once a run."""

from __future__ import annotations

import functools
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from nixpatch.errors import FileRefused
from nixpatch.escape import is_machine_error
from nixpatch.fs import Identity, identity, read_identified, remove, replace_bytes, replacement, write_all
from nixpatch.installed import provenance
from nixpatch.installed.hashing import DEFAULT_ALGORITHM
from nixpatch.installed.provenance import PatchedFile, Provenance, ProvenanceError
from nixpatch.installed.record import MAX_RECORD_SIZE, Record, RecordRow, parse
from nixpatch.installed.record_paths import Locator
from nixpatch.model import Answer, FilePlan, Origin, Tree

_OTHER_ALGORITHM = re.compile(rb",(?!sha256=)\w+=")
# A path in which there is nothing to normalise.
_PLAIN = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[^/]+)+", re.DOTALL)


@dataclass(frozen=True)
class RecordFile:
    """RECORD of a dist in one state; another state is another value."""

    data: bytes
    identity: Identity
    locator: Locator

    @functools.cached_property
    def record(self) -> Record:
        """The rows.

        Raises:
            FileRefused: there are too many.

        """
        return parse(self.data)

    def rows_of(self, paths: Collection[str]) -> dict[str, list[RecordRow]]:
        """Return the rows of some files by real path: ``./x``, absolute and linked spellings are one file.

        Raises:
            FileRefused: there are too many rows.

        """
        names = {os.path.basename(path) for path in paths}
        rows: dict[str, list[RecordRow]] = {}
        for row in self.record.rows:
            # Either separator, as PEP 376 allows; the locator knows which one is meant.
            if row.path is None or names.isdisjoint(
                (row.path.rpartition("/")[2], row.path.replace("\\", "/").rpartition("/")[2])
            ):
                continue
            path = self.locator.locate(row.path)
            if path is not None and path in paths:
                rows.setdefault(path, []).append(row)
        return rows


class DistRecords:
    """RECORD and provenance of one dist, or the provenance of the files that no dist claims.

    Both files are read when they are first asked for. From then on an lstat(2) shows whether the file is
    still the one that was read; if this run or another program has written it meanwhile, it is read again.

    Attributes:
        info: the ``.dist-info`` directory; "" for the files that no dist claims.
        base: the directory that paths in both files are relative to.
        prefix: the prefix of the tree, or of the store path that a link of it leads to; nothing outside it is
            written.
        locator: resolves such paths.
        record_path: RECORD; None for the files that no dist claims.
        provenance_path: ``nixpatch.json``.

    """

    def __init__(self, tree: Tree, info: str) -> None:
        """Read nothing yet."""
        self._tree = tree
        self.info = info
        self.base = os.path.dirname(info) if info else tree.prefix
        self.prefix = tree.prefix_of(self.base)
        self.locator = Locator(self.base, self.prefix)
        self.record_path = os.path.join(info, "RECORD") if info else None
        self.provenance_path = os.path.join(info, provenance.NAME) if info else _unowned_path(tree)
        self._record: RecordFile | None = None
        self._provenance: tuple[Identity | None, Provenance | ProvenanceError | None] | None = None

    @functools.cached_property
    def listed(self) -> frozenset[str]:
        """The files that RECORD lists; for the files that no dist claims, those of all RECORDs."""
        dists = self._tree.dists
        return frozenset[str]().union(*(dist.files for dist in dists if self.info in {"", dist.info}))

    @property
    def has_record(self) -> bool:
        """Whether the dist has a RECORD that can be used."""
        return any(dist.has_record for dist in self._tree.dists if dist.info == self.info)

    @property
    def lists_provenance(self) -> bool:
        """Whether RECORD lists the provenance."""
        return bool(self.info) and self.provenance_path in self.listed

    def owns(self, path: str) -> bool:
        """Return whether provenance here may describe a file: RECORD lists it, or with "" no RECORD does.

        Other entries are stale: a dist was installed or removed after its files were patched.
        """
        return (path in self.listed) is bool(self.info)

    def patched(self) -> dict[str, PatchedFile]:
        """Return the entries of patched files by path, without those that are stale.

        Raises:
            ProvenanceError: it cannot be used.
            OSError: the disk fails, or the run may open no more files.

        """
        known = self.read_provenance()
        paths = {key: self.described_by(key) for key in (known.files if known else ())}
        return {
            path: known.files[key]
            for key, path in paths.items()
            if known and path and (self.info or os.path.lexists(path))
        }

    def described_by(self, key: str) -> str | None:
        """Return the file that an entry of provenance describes; None for one that nixpatch did not write.

        nixpatch spells each path in one way: another one would be a second entry for the same file.
        """
        path = self.locator.locate(key)
        return path if path is not None and self.owns(path) and self.key(path) == key else None

    def ignored(self) -> dict[str, tuple[str, ...]]:
        """Return the files that were not patched and may miss some needs, by path.

        Raises:
            OSError: the disk fails, or the run may open no more files.

        """
        known = self.usable_provenance()
        paths = {key: self.described_by(key) for key in (known.ignored if known else ())}
        return {path: known.ignored[key] for key, path in paths.items() if known and path}

    def key(self, path: str) -> str:
        """Return a path as RECORD writes it: relative to the site directory."""
        below = self.base.rstrip("/") + "/"
        if not path.startswith(self.prefix.rstrip("/") + "/"):
            path = os.path.realpath(path)  # a link of the tree to a file of this dist
        if path.startswith(below) and _PLAIN.fullmatch(path):
            return path[len(below) :]
        return os.path.relpath(path, self.base)

    def read_record(self) -> RecordFile:
        """Return RECORD as it is now.

        Raises:
            OSError: it cannot be read; FileNotFoundError also where there is none to read.

        """
        if self.record_path is None:
            raise FileNotFoundError
        if self._record is None or self._record.identity != _identity(self.record_path):
            data, known = read_identified(self.record_path, MAX_RECORD_SIZE)
            self._record = RecordFile(data, known, self.locator)
        return self._record

    def replace_record(self, old: RecordFile, new: Record, *, durable: bool) -> None:
        """Write RECORD if it differs, in the place of the state from which ``new`` was made.

        Raises:
            OSError: it cannot be written, or is not in the ``old`` state any more (EBUSY).

        """
        data = new.data
        if self.record_path is not None and data != old.data:
            with replacement(self.record_path, durable=durable, expected=old.identity) as descriptor:
                write_all(descriptor, data)
        self.forget_record()

    def announce(self, paths: Iterable[str], *, durable: bool) -> None:
        """List files in RECORD before they are made, so that after a kill an uninstall removes them.

        Raises:
            OSError: RECORD cannot be written.
            FileRefused: there are too many rows.

        """
        old = self.read_record()
        new = old.record
        for path in paths:
            new = new.with_announced(self.key(path))
        if new is not old.record:
            self.replace_record(old, new, durable=durable)

    def forget_record(self) -> None:
        """Let go of RECORD, if it will not be needed again: its rows take ten times the size of the file."""
        self._record = None

    def read_provenance(self) -> Provenance | None:
        """Return the provenance as it is now; None if there is none.

        Raises:
            ProvenanceError: it cannot be used.
            OSError: the disk fails, or the run may open no more files.

        """
        now = _identity(self.provenance_path)
        if self._provenance is None or self._provenance[0] != now:
            result: Provenance | ProvenanceError | None
            try:
                result = provenance.read(self.provenance_path)
            except ProvenanceError as error:
                result = error
            self._provenance = (now, result)
        if isinstance(self._provenance[1], ProvenanceError):
            raise self._provenance[1]
        return self._provenance[1]

    def usable_provenance(self) -> Provenance | None:
        """Return the provenance; None if there is none, or none that can be used.

        Raises:
            OSError: the disk fails, or the run may open no more files.

        """
        try:
            return self.read_provenance()
        except ProvenanceError:
            return None

    def replace_provenance(self, data: bytes | None, *, durable: bool) -> None:
        """Write the provenance, or remove it.

        Raises:
            OSError: that is not possible. The old file is unchanged.

        """
        if data is None:
            remove(self.provenance_path)
        else:
            replace_bytes(self.provenance_path, data, durable=durable)

    def algorithms(self, paths: Collection[str]) -> frozenset[str]:
        """Return the hash algorithms that the rows of some files take, sha256 always among them.

        Raises:
            OSError: the disk fails, or the run may open no more files.

        """
        names = {DEFAULT_ALGORITHM}
        try:
            record = self.read_record()
            if _OTHER_ALGORITHM.search(record.data):  # few dists have one, and parsing all rows takes time
                spelled = [row.path for rows in record.rows_of(paths).values() for row in rows if row.path]
                names |= record.record.algorithms(spelled)
        except FileRefused:
            pass  # reported when RECORD is updated
        except OSError as error:
            if is_machine_error(error):
                raise
        return frozenset(names)

    def written_by_lief(self) -> dict[str, str]:
        """Return the files without an undo record, because LIEF wrote them: path -> ``sha256=<hex>``.

        The digest is that of LIEF's output; a file with another digest is not LIEF's output any more.

        Raises:
            OSError: the disk fails, or the run may open no more files.

        """
        try:
            patched = self.patched()
        except ProvenanceError:
            return {}
        return {path: entry.patched for path, entry in patched.items() if entry.writer != provenance.INPLACE}

    def needs_of(self, file: FilePlan) -> dict[str, str]:
        """Return the ``needs`` of a file for its provenance: soname -> what serves it."""
        return {answer.need: self._server(answer) for answer in file.answers}

    def _server(self, answer: Answer) -> str:
        if answer.path is None or answer.origin is Origin.LIBC:
            return answer.origin.value
        if answer.path.startswith(self.prefix.rstrip("/") + "/"):
            return f"site:{self.key(answer.path)}"
        return answer.path


class TreeRecords:
    """The :class:`DistRecords` of a tree, shared by plan and apply so that each file is read once."""

    def __init__(self) -> None:
        """Begin with none."""
        self._known: dict[tuple[str, str], DistRecords] = {}

    def of(self, tree: Tree, info: str) -> DistRecords:
        """Return those of one dist, or with "" those of the files that no dist claims."""
        key = (tree.root, info)
        if key not in self._known:
            self._known[key] = DistRecords(tree, info)
        return self._known[key]

    def of_all(self, tree: Tree) -> Iterator[DistRecords]:
        """Yield those of every dist, and last those of the files that no dist claims."""
        for info in (*(dist.info for dist in tree.dists), ""):
            yield self.of(tree, info)


def _unowned_path(tree: Tree) -> str:
    """Return the path of the provenance of the files that no dist claims: a name that no dist claims."""
    claimed = frozenset[str]().union(*(dist.files for dist in tree.dists))
    name, extension = os.path.splitext(provenance.UNOWNED_NAME)
    names = (f"{name}{number or ''}{extension}" for number in itertools.count())
    return next(path for name in names if (path := os.path.join(tree.prefix, name)) not in claimed)


def _identity(path: str) -> Identity | None:
    """Return the identity of a file; None if it does not exist, or if that cannot be known."""
    try:
        return identity(os.lstat(path))
    except OSError:
        return None
