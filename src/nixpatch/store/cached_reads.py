"""What the store needs to know of an ELF file's headers, read at most once per state of the file.

Which library names lie in a directory. Names only: thousands of directories are listed in no time.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from nixpatch.fs import can_be_path
from nixpatch.model import ElfFacts, Machine, Skip
from nixpatch.store.cache import Cache, Kind, settled, stamp_of

Reader = Callable[[str], ElfFacts | Skip]
"""reads the headers of the file at a path; handed in, so that the store knows nothing of ELF"""


@dataclass(frozen=True, slots=True)
class Header:
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


class Headers:
    """Reads headers, and remembers them in the cache under the state of the file."""

    def __init__(self, reader: Reader, cache: Cache) -> None:
        self._reader = reader
        self._cache = cache
        self._known: dict[str, Header | str] = {}

    def get(self, path: str) -> Header | str:
        """Return the header of the regular file ``path`` (no symlink), or why it has none."""
        if path not in self._known:
            self._known[path] = self._look(path)
        return self._known[path]

    def _look(self, path: str) -> Header | str:
        try:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                return "not a regular file"
            stamp = stamp_of(status)
            remembered = decode(self._cache.get(Kind.HEADER, path, stamp))
            if remembered is not None:
                return remembered
            facts = self._reader(path)
        except OSError as error:
            return error.strerror or str(error)
        header = _why(facts) if isinstance(facts, Skip) else _header(facts)
        if settled(status):
            self._cache.put(Kind.HEADER, path, stamp, encode(header))
        return header


def _why(skip: Skip) -> str:
    return f"{skip.reason.value} ({skip.detail})" if skip.detail else skip.reason.value


def _header(facts: ElfFacts) -> Header:
    needs = {version for need in facts.version_needs for version in need.versions}
    return Header(
        machine=facts.machine,
        executable=facts.executable,
        soname=facts.soname,
        needed=facts.needed,
        search_path=facts.current.search_path or "",
        interp=facts.current.interp,
        version_defs=facts.version_defs,
        libc_needs=tuple(sorted(version for version in needs if version.startswith("GLIBC_"))),
    )


def encode(header: Header | str) -> bytes:
    """Return a header, or why there is none, as the cache keeps it."""
    if isinstance(header, str):
        return json.dumps(header).encode()
    machine = header.machine
    row = (
        (machine.number, machine.bits, machine.byteorder), header.executable, header.soname, header.needed,
        header.search_path, header.interp, header.version_defs, header.libc_needs,
    )  # fmt: skip
    return json.dumps(row).encode()  # pure ASCII: bytes that are not UTF-8 survive as lone surrogates


def decode(value: bytes | None) -> Header | str | None:
    """Return the inverse of :func:`encode`; None for what another version of this code wrote."""
    if value is None:
        return None
    try:
        row = json.loads(value)
        if isinstance(row, str):
            return row
        machine, executable, soname, needed, search_path, interp, version_defs, libc_needs = row
        header = Header(
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


def _is_sound(header: Header) -> bool:
    """Whether a header from the cache has the types that ours have: a checksum is no signature."""
    machine = header.machine
    texts = [*header.needed, *header.version_defs, *header.libc_needs, header.search_path, machine.byteorder]
    texts += [header.soname or "", header.interp or ""]
    kinds = [type(value) for value in (header.executable, machine.number, machine.bits)]
    return kinds == [bool, int, int] and {*map(type, texts)} == {str} and all(map(can_be_path, texts))


class Listings:
    """The names of the libraries in directories; each directory is looked at once a run."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._known: dict[str, bytes | None] = {}

    def at(self, directory: str) -> bytes | None:
        """Return the file names that contain ``.so``, a NUL after each; None if this is not a directory.

        A symlink is not followed: ``lib64 -> lib`` is no second directory. A directory that cannot be read is
        empty, as it is to ld.so.
        """
        if directory not in self._known:
            self._known[directory] = self._look(directory)
        return self._known[directory]

    def names(self, directory: str) -> tuple[str, ...]:
        """Return the same as text, sorted."""
        return tuple(sorted(os.fsdecode(name) for name in (self.at(directory) or b"").split(b"\0") if name))

    def _look(self, directory: str) -> bytes | None:
        try:
            status = os.lstat(directory)
        except OSError:
            return None
        if not stat.S_ISDIR(status.st_mode):
            return None
        stamp = stamp_of(status)
        names = self._cache.get(Kind.NAMES, directory, stamp)
        if names is None:
            try:
                found = os.listdir(os.fsencode(directory))
            except OSError:
                return b""
            names = b"".join([name + b"\0" for name in sorted(found) if b".so" in name])
            if settled(status):
                self._cache.put(Kind.NAMES, directory, stamp, names)
        return names
