"""Headers of ELF files and names of libraries in directories, each read once per state of the file."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from nixpatch.fs import can_be_path
from nixpatch.model import ElfFacts, Machine, Skip
from nixpatch.store.cache import Cache, RowKind, settled, stamp_of

ElfReader = Callable[[str], ElfFacts | Skip]
"""reads the headers of the file at a path; a parameter, so that the store does not depend on the ELF code"""


@dataclass(frozen=True, slots=True)
class LibraryHeader:
    """The part of :class:`ElfFacts` that matters for a provider and for a closure."""

    machine: Machine
    executable: bool
    soname: str | None
    needed: tuple[str, ...]
    search_path: str
    """``""`` where there is none"""
    interp: str | None
    version_defs: tuple[str, ...]
    libc_needs: tuple[str, ...]
    """glibc's versions among all that it needs; their names begin with ``GLIBC_`` (glibc manual)"""


class CachedHeaders:
    """Reads headers of ELF files, and caches them under the state of the file."""

    def __init__(self, reader: ElfReader, cache: Cache) -> None:
        self._reader = reader
        self._cache = cache
        self._known: dict[str, LibraryHeader | str] = {}

    @property
    def paths(self) -> frozenset[str]:
        """The files whose headers were asked for."""
        return frozenset(self._known)

    def get(self, path: str) -> LibraryHeader | str:
        """Return the header of the regular file ``path`` (no symlink), or why it has none."""
        if path not in self._known:
            self._known[path] = self._read(path)
        return self._known[path]

    def _read(self, path: str) -> LibraryHeader | str:
        try:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                return "not a regular file"
            stamp = stamp_of(status)
            cached = decode(self._cache.get(RowKind.HEADER, path, stamp))
            if cached is not None:
                return cached
            facts = self._reader(path)
        except OSError as error:
            return error.strerror or str(error)
        header = _reason(facts) if isinstance(facts, Skip) else _header(facts)
        if settled(status):
            self._cache.put(RowKind.HEADER, path, stamp, encode(header))
        return header


def _reason(skip: Skip) -> str:
    return f"{skip.reason.value} ({skip.detail})" if skip.detail else skip.reason.value


def _header(facts: ElfFacts) -> LibraryHeader:
    versions = {version for need in facts.version_needs for version in need.versions}
    return LibraryHeader(
        machine=facts.machine,
        executable=facts.executable,
        soname=facts.soname,
        needed=facts.needed,
        search_path=facts.current.search_path or "",
        interp=facts.current.interp,
        version_defs=facts.version_defs,
        libc_needs=tuple(sorted(version for version in versions if version.startswith("GLIBC_"))),
    )


def encode(header: LibraryHeader | str) -> bytes:
    """Return a header, or why there is none, as a value for the cache."""
    if isinstance(header, str):
        return json.dumps(header).encode()
    machine = header.machine
    row = (
        (machine.number, machine.bits, machine.byteorder), header.executable, header.soname, header.needed,
        header.search_path, header.interp, header.version_defs, header.libc_needs,
    )  # fmt: skip
    return json.dumps(row).encode()  # pure ASCII: bytes that are not UTF-8 survive as lone surrogates


def decode(value: bytes | None) -> LibraryHeader | str | None:
    """Return the inverse of :func:`encode`; None for a value that another version of this code wrote."""
    if value is None:
        return None
    try:
        row = json.loads(value)
        if isinstance(row, str):
            return row
        machine, executable, soname, needed, search_path, interp, version_defs, libc_needs = row
        header = LibraryHeader(
            machine=Machine(*machine),
            executable=executable,
            soname=soname,
            needed=tuple(needed),
            search_path=search_path,
            interp=interp,
            version_defs=tuple(version_defs),
            libc_needs=tuple(libc_needs),
        )
    except (ValueError, TypeError, RecursionError):
        return None
    return header if _is_sound(header) else None


def _is_sound(header: LibraryHeader) -> bool:
    """Whether a header from the cache has the right types: a checksum is not a signature."""
    machine = header.machine
    texts = [*header.needed, *header.version_defs, *header.libc_needs, header.search_path, machine.byteorder]
    texts += [header.soname or "", header.interp or ""]
    kinds = [type(value) for value in (header.executable, machine.number, machine.bits)]
    return kinds == [bool, int, int] and {*map(type, texts)} == {str} and all(map(can_be_path, texts))


class CachedListings:
    """Lists the libraries of directories, and caches the names under the state of the directory."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._known: dict[str, bytes | None] = {}

    @property
    def paths(self) -> frozenset[str]:
        """The directories that were listed."""
        return frozenset(self._known)

    def raw_names(self, directory: str) -> bytes | None:
        """Return the file names that contain ``.so``, a NUL after each; None if this is not a directory.

        A symlink is not followed: ``lib64 -> lib`` is no second directory. A directory that cannot be read is
        empty, as it is to ld.so.
        """
        if directory not in self._known:
            self._known[directory] = self._list(directory)
        return self._known[directory]

    def names(self, directory: str) -> tuple[str, ...]:
        """Return the same names as text, sorted."""
        names = (self.raw_names(directory) or b"").split(b"\0")
        return tuple(sorted(os.fsdecode(name) for name in names if name))

    def _list(self, directory: str) -> bytes | None:
        try:
            status = os.lstat(directory)
        except OSError:
            return None
        if not stat.S_ISDIR(status.st_mode):
            return None
        stamp = stamp_of(status)
        names = self._cache.get(RowKind.NAMES, directory, stamp)
        if names is None:
            try:
                listed = os.listdir(os.fsencode(directory))
            except OSError:
                return b""
            names = b"".join([name + b"\0" for name in sorted(listed) if b".so" in name])
            if settled(status):
                self._cache.put(RowKind.NAMES, directory, stamp, names)
        return names
