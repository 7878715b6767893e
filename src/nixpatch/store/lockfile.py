"""``nixpatch.lock``: which store path serves which soname, so that a run elsewhere decides the same.

JSON, as flake.lock is: Python writes it without help and Nix reads it (``builtins.fromJSON``), so that an
expression can make its inputs of it. Keys are sorted; no clock, no host and no path of the tree is in it. A
library is held by the sha256 of its file rather than by the NAR hash of its store path: that needs no Nix (a
sandbox has none), and it sees the bytes that the loader will see, where Nix's database tells what they were.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nixpatch.errors import MachineError, RequestError
from nixpatch.fs import can_be_path
from nixpatch.model import Libc, Provider, Target
from nixpatch.store.catalog import Kind, lookup
from nixpatch.store.nix_store import Store

NAME = "nixpatch.lock"
"""what the file is called unless told otherwise, in the current directory"""
_VERSION = 1
_LIMIT = 4 << 20  # bytes; a thousand libraries take less than half a megabyte
_NAMED = 3


@dataclass(frozen=True, slots=True)
class LockedLibrary:
    """Where one soname is to come from, and what chose it."""

    store_path: str
    file: str
    """relative to the store path; its last part is the soname, which is what ld.so looks for"""
    sha256: str
    """of the library behind it, in hex"""
    source: str
    """the source that had it when it was locked, in the words of the reports"""
    package: str
    """name of the store path without hash"""
    attribute: str | None
    """Nix for the package with ``pkgs`` in scope, where the catalog knows the soname"""

    @property
    def path(self) -> str:
        """What ld.so will open."""
        return f"{self.store_path}/{self.file}"


@dataclass(frozen=True, slots=True)
class Lock:
    """A whole lock: what it was made for, and the libraries by soname."""

    machine: str
    loader: str
    """PT_INTERP of the target: it is written into programs, so another one would mean other bytes"""
    libc: Libc
    libc_version: tuple[int, ...]
    libraries: Mapping[str, LockedLibrary] = field(default_factory=dict)

    def directories(self) -> dict[str, frozenset[str]]:
        """Return the library directories, sorted, each with the names that may be taken from it."""
        found: dict[str, set[str]] = {}
        for soname, library in self.libraries.items():
            found.setdefault(os.path.dirname(library.path), set()).add(soname)
        return {directory: frozenset(found[directory]) for directory in sorted(found)}


class LockError(ValueError):
    """The file is no lock, or it is damaged. The message says where."""


def make(store: Store, target: Target, providers: Iterable[Provider]) -> tuple[Lock, tuple[str, ...]]:
    """Return the lock for what serves a tree, and one line for each library that cannot be locked.

    Raises:
        MachineError: a library cannot be read.

    """
    libraries: dict[str, LockedLibrary] = {}
    left_out: list[str] = []
    for provider in providers:
        store_path = store.store_path_of(provider.directory)
        if store_path is None:
            left_out.append(
                f"{provider.name} comes from {provider.directory}, which is not in the store, so no lock can "
                "hold it: name it with --lib again where the lock is used"
            )
            continue
        path = f"{provider.directory}/{provider.name}"
        digest = _digest(path)
        if digest is None:
            raise MachineError(f"{path}: cannot be read, so it cannot be locked")
        known = lookup(provider.name)
        package = known is not None and known.kind is Kind.PACKAGE
        libraries[provider.name] = LockedLibrary(
            store_path=store_path,
            file=os.path.relpath(path, store_path),
            sha256=digest,
            source=provider.source.text,
            package=provider.package,
            attribute=known.expression if known is not None and package else None,
        )
    lock = Lock(target.machine.name, target.loader, target.libc, target.libc_version, libraries)
    return lock, tuple(left_out)


def dump(lock: Lock) -> bytes:
    """Return the bytes of the file: sorted keys, one line feed at the end, ASCII only."""
    document = {
        "version": _VERSION,
        "machine": lock.machine,
        "loader": lock.loader,
        "libc": {"name": lock.libc.value, "version": ".".join(map(str, lock.libc_version))},
        "libraries": {soname: entry(library) for soname, library in lock.libraries.items()},
    }
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode("ascii")


def entry(library: LockedLibrary) -> dict[str, str | None]:
    """Return a library as the file has it, and the report, too."""
    return {
        "store_path": library.store_path,
        "file": library.file,
        "sha256": library.sha256,
        "source": library.source,
        "package": library.package,
        "attribute": library.attribute,
    }


def load(data: bytes) -> Lock:
    """Read the bytes of the file.

    Raises:
        LockError: not JSON, another version, or a field that does not fit.

    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LockError(f"not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise LockError("not a version 1 lock")
    libc, libraries = document.get("libc"), document.get("libraries")
    if not isinstance(libc, dict) or not isinstance(libraries, dict):
        raise LockError("libc or libraries is not a table")
    version = _text(libc, "version")
    try:
        return Lock(
            machine=_text(document, "machine"),
            loader=_text(document, "loader"),
            libc=Libc(_text(libc, "name")),
            libc_version=tuple(map(int, version.split("."))) if version else (),
            libraries={soname: _library(soname, libraries[soname]) for soname in sorted(libraries)},
        )
    except LockError:
        raise
    except ValueError as error:
        raise LockError(f"libc: {error}") from error


def read(path: str, store: Store) -> Lock:
    """Read a lock that is to be used with a store.

    Raises:
        RequestError: there is no such file, it is no lock, or it is for another store.

    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except FileNotFoundError:
        raise RequestError(f"--locked {path}: no such file; nixpatch lock PATH makes it") from None
    except OSError as error:
        raise RequestError(f"--locked {path}: cannot be read: {error.strerror}") from None
    try:
        if len(data) > _LIMIT:
            raise LockError("larger than any that nixpatch writes")
        lock = load(data)
    except LockError as error:
        raise RequestError(f"--locked {path}: {error}; nixpatch lock PATH makes it anew") from None
    for soname, library in lock.libraries.items():
        if store.store_path_of(library.store_path) != library.store_path:
            raise RequestError(
                f"--locked {path}: {soname} comes from {library.store_path}, "
                f"which is no path in the store {store.directory}"
            )
    return lock


def fit(lock: Lock, name: str, target: Target) -> None:
    """Check that a lock is for this target. A newer libc behind the same loader will do.

    Raises:
        RequestError: another machine, libc or loader: other bytes would come of it, or none that work.

    """
    if lock.machine != target.machine.name:
        _refuse(name, lock.machine, f"is {target.machine.name}")
    if lock.libc is not target.libc:
        _refuse(name, lock.libc.value, f"uses {target.libc.value}")
    if lock.loader != target.loader:
        _refuse(name, f"the loader {lock.loader}", f"has {target.loader}")
    if target.libc_version < lock.libc_version:
        _refuse(
            name, f"{lock.libc.value} {_dotted(lock.libc_version)}", f"has {_dotted(target.libc_version)}"
        )


def check(lock: Lock, name: str) -> None:
    """Check that each locked library is there and is what it was.

    Raises:
        MachineError: a store path is gone or a library is another; one line that names them.

    """
    gone = sorted({one.store_path for one in lock.libraries.values() if not os.path.lexists(one.store_path)})
    if gone:
        raise MachineError(
            f"{name}: not in the store (any more): {_some(gone)}; fetch or build what is locked "
            "(nix-store --realise; in a build, make it an input) or run nixpatch lock again"
        )
    digests = {path: _digest(path) for path in {one.path for one in lock.libraries.values()}}
    changed = sorted(one.path for one in lock.libraries.values() if digests[one.path] != one.sha256)
    if changed:
        raise MachineError(
            f"{name}: not what was locked: {_some(changed)}; nix-store --verify-path tells whether the store "
            "is damaged; if it is not, run nixpatch lock again"
        )


def _refuse(name: str, wanted: str, have: str) -> None:
    raise RequestError(
        f"{name}: locked for {wanted}, the target Python {have}: name the right one with --python, "
        "or run nixpatch lock again"
    )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(paths[:_NAMED]) + more


def _digest(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _library(soname: str, row: Any) -> LockedLibrary:
    if not isinstance(row, dict):
        raise LockError(f"{soname!r} is not a table")
    library = LockedLibrary(
        store_path=_text(row, "store_path"),
        file=_text(row, "file"),
        sha256=_text(row, "sha256"),
        source=_text(row, "source"),
        package=_text(row, "package"),
        attribute=None if row.get("attribute") is None else _text(row, "attribute"),
    )
    # It names a place in the store path: a lock from elsewhere must not lead out of it.
    parts = library.file.split("/")
    if not can_be_path(library.path) or parts[-1] != soname or not {"", ".", ".."}.isdisjoint(parts):
        raise LockError(f"file of {soname!r} is {library.file!r}")
    return library


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise LockError(f"{key} is not a string")
    return value
