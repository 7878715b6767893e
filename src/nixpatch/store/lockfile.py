"""``nixpatch.lock``: which store path serves which soname, so that a run elsewhere decides the same.

The format is JSON, like flake.lock: the standard library writes it, and Nix reads it
(``builtins.fromJSON``), so that an expression can turn it into inputs. Keys are sorted; no clock, no host and
no path of the tree is in it. A library is pinned by the sha256 of its file rather than by the NAR hash of its
store path. That needs no Nix (a sandbox has none), and it checks the bytes that the loader will see, not
those that Nix once had in its database.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nixpatch import bounded_json
from nixpatch.errors import MachineError, RequestError
from nixpatch.fs import can_be_path
from nixpatch.model import Libc, Provider, Target
from nixpatch.model.missing import AttributeKind
from nixpatch.store.catalog import lookup
from nixpatch.store.nix_store import Store

NAME = "nixpatch.lock"
"""default name of the file, in the current directory"""
_VERSION = 1
_LIMIT = 4 << 20  # bytes; a thousand libraries take less than half a megabyte
_NAMED = 3


@dataclass(frozen=True, slots=True)
class LockedLibrary:
    """The file that serves one soname, and the source that it came from."""

    store_path: str
    file: str
    """relative to the store path; its last part is the soname, which is what ld.so looks for"""
    sha256: str
    """of the library behind it, in hex"""
    source: str
    """the source that had it when it was locked, by its name in reports"""
    package: str
    """name of the store path without hash"""
    attribute: str | None
    """Nix for the package with ``pkgs`` in scope, where the catalog knows the soname"""

    @property
    def path(self) -> str:
        """The file that ld.so will open."""
        return f"{self.store_path}/{self.file}"


@dataclass(frozen=True, slots=True)
class Lockfile:
    """The contents of the file: the target that it was made for, and the libraries by soname."""

    machine: str
    loader: str
    """PT_INTERP of the target: it is written into programs, so another one would mean other bytes"""
    libc: Libc
    libc_version: tuple[int, ...]
    libraries: Mapping[str, LockedLibrary] = field(default_factory=dict)

    def directories(self) -> dict[str, frozenset[str]]:
        """Return the library directories, sorted, each with the names that may be taken from it."""
        names: dict[str, set[str]] = {}
        for soname, library in self.libraries.items():
            names.setdefault(os.path.dirname(library.path), set()).add(soname)
        return {directory: frozenset(names[directory]) for directory in sorted(names)}


class LockfileError(ValueError):
    """The file is not a lockfile, or it is damaged. The message names the place."""


def make_lockfile(
    store: Store, target: Target, providers: Iterable[Provider]
) -> tuple[Lockfile, tuple[str, ...]]:
    """Return the lockfile for the providers of a tree, and a line on each library that cannot be locked.

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
        attribute = lookup(provider.name)
        has_package = attribute is not None and attribute.kind is AttributeKind.PACKAGE
        libraries[provider.name] = LockedLibrary(
            store_path=store_path,
            file=os.path.relpath(path, store_path),
            sha256=digest,
            source=provider.source.text,
            package=provider.package,
            attribute=attribute.expression if attribute is not None and has_package else None,
        )
    made = Lockfile(target.machine.name, target.loader, target.libc, target.libc_version, libraries)
    return made, tuple(left_out)


def dump(lockfile: Lockfile) -> bytes:
    """Return the bytes of the file: sorted keys, one line feed at the end, ASCII only."""
    document = {
        "version": _VERSION,
        "machine": lockfile.machine,
        "loader": lockfile.loader,
        "libc": {"name": lockfile.libc.value, "version": _dotted(lockfile.libc_version)},
        "libraries": {soname: entry(library) for soname, library in lockfile.libraries.items()},
    }
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode("ascii")


def entry(library: LockedLibrary) -> dict[str, str | None]:
    """Return a library as a row of the file and of the report."""
    return {
        "store_path": library.store_path,
        "file": library.file,
        "sha256": library.sha256,
        "source": library.source,
        "package": library.package,
        "attribute": library.attribute,
    }


def load(data: bytes) -> Lockfile:
    """Read the bytes of the file.

    Raises:
        LockfileError: not JSON, another version, or a field that does not fit.

    """
    try:
        document = bounded_json.parse(data)
    except ValueError as error:
        raise LockfileError(f"not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise LockfileError("not a version 1 lock")
    libc, libraries = document.get("libc"), document.get("libraries")
    if not isinstance(libc, dict) or not isinstance(libraries, dict):
        raise LockfileError("libc or libraries is not a table")
    version = _text(libc, "version")
    try:
        return Lockfile(
            machine=_text(document, "machine"),
            loader=_text(document, "loader"),
            libc=Libc(_text(libc, "name")),
            libc_version=tuple(map(int, version.split("."))) if version else (),
            libraries={soname: _library(soname, libraries[soname]) for soname in sorted(libraries)},
        )
    except LockfileError:
        raise
    except ValueError as error:
        raise LockfileError(f"libc: {error}") from error


def read(path: str, store: Store) -> Lockfile:
    """Read a lockfile for use with a store.

    Raises:
        RequestError: there is no such file, it is not a lockfile, or it is for another store.

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
            raise LockfileError("larger than any that nixpatch writes")
        lockfile = load(data)
    except LockfileError as error:
        raise RequestError(f"--locked {path}: {error}; nixpatch lock PATH makes it anew") from None
    for soname, library in lockfile.libraries.items():
        if store.store_path_of(library.store_path) != library.store_path:
            raise RequestError(
                f"--locked {path}: {soname} comes from {library.store_path}, "
                f"which is no path in the store {store.directory}"
            )
    return lockfile


def check_target(lockfile: Lockfile, name: str, target: Target) -> None:
    """Check that a lockfile is for this target. A newer libc behind the same loader is fine.

    Raises:
        RequestError: another machine, libc or loader, which means other bytes, or bytes that do not work.

    """
    if lockfile.machine != target.machine.name:
        _refuse(name, lockfile.machine, f"is {target.machine.name}")
    if lockfile.libc is not target.libc:
        _refuse(name, lockfile.libc.value, f"uses {target.libc.value}")
    if lockfile.loader != target.loader:
        _refuse(name, f"the loader {lockfile.loader}", f"has {target.loader}")
    if target.libc_version < lockfile.libc_version:
        wanted = f"{lockfile.libc.value} {_dotted(lockfile.libc_version)}"
        _refuse(name, wanted, f"has {_dotted(target.libc_version)}")


def check_libraries(lockfile: Lockfile, name: str) -> None:
    """Check that each locked library is there and unchanged.

    Raises:
        MachineError: a store path is gone or a library has changed; one line that names them.

    """
    libraries = lockfile.libraries.values()
    gone = sorted({library.store_path for library in libraries if not os.path.lexists(library.store_path)})
    if gone:
        raise MachineError(
            f"{name}: not in the store (any more): {_some(gone)}; fetch or build what is locked "
            "(nix-store --realise; in a build, make it an input) or run nixpatch lock again"
        )
    digests = {path: _digest(path) for path in {library.path for library in libraries}}
    changed = sorted(library.path for library in libraries if digests[library.path] != library.sha256)
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
        raise LockfileError(f"{soname!r} is not a table")
    library = LockedLibrary(
        store_path=_text(row, "store_path"),
        file=_text(row, "file"),
        sha256=_text(row, "sha256"),
        source=_text(row, "source"),
        package=_text(row, "package"),
        attribute=None if row.get("attribute") is None else _text(row, "attribute"),
    )
    # It names a file of the store path: a lockfile from elsewhere must not lead out of it.
    parts = library.file.split("/")
    if not can_be_path(library.path) or parts[-1] != soname or not {"", ".", ".."}.isdisjoint(parts):
        raise LockfileError(f"file of {soname!r} is {library.file!r}")
    return library


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise LockfileError(f"{key} is not a string")
    return value
