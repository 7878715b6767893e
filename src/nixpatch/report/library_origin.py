"""The origin of a library that a trace found: a dist, a store path, the system or libc."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass

from nixpatch.escape import shown
from nixpatch.model.summary import UNOWNED, owner_names
from nixpatch.model.trace import Trace, TracedNeed
from nixpatch.policy import default_policy
from nixpatch.store_paths import is_store_entry, package_of_entry

_SITE = "/site-packages/"


class OriginKind(enum.IntEnum):
    """Kinds of origins, in the order of the report."""

    BUNDLED = 0
    DIST = 1
    STORE = 2
    SYSTEM = 3
    LIBC = 4
    MISSING = 5


@dataclass(frozen=True, slots=True)
class LibraryOrigin:
    """The dist, store path or directory that serves needs."""

    kind: OriginKind
    name: str


class OriginFinder:
    """Finds the origins of the libraries of one trace, and shortens paths."""

    def __init__(self, trace: Trace, store_dir: str) -> None:
        """Index the files of the trace; ``store_dir`` is the store's directory."""
        self._owners = owner_names(trace.tree) if trace.tree else {}
        self._store = store_dir.rstrip("/") + "/"
        self._base = _base_of(trace)

    def owner(self, path: str) -> str:
        """Return ``name version`` of the dist of a file."""
        return self._owners.get(path, UNOWNED)

    def origin(self, link: TracedNeed) -> LibraryOrigin:
        """Return the origin of the library that serves a need."""
        if link.path is None:
            return LibraryOrigin(OriginKind.MISSING, "not found")
        if default_policy().libc_of(link.need) is not None:
            return LibraryOrigin(OriginKind.LIBC, "libc")
        path = os.path.normpath(link.path)
        if path in self._owners:
            owner = self._owners[path]
            if owner != self.owner(link.by):
                return LibraryOrigin(OriginKind.DIST, owner)
            return LibraryOrigin(OriginKind.BUNDLED, "bundled")
        package = self.package(path)
        if package:
            return LibraryOrigin(OriginKind.STORE, package)
        if self._base and path.startswith(self._base):
            return LibraryOrigin(OriginKind.BUNDLED, "bundled")
        assert link.how is not None
        return LibraryOrigin(OriginKind.SYSTEM, f"{os.path.dirname(path)} ({link.how.value})")

    def package(self, path: str) -> str:
        """Return the name of the store path that has a file, without its hash; "" outside the store."""
        if not path.startswith(self._store):
            return ""
        return package_of_entry(path.removeprefix(self._store).partition("/")[0])

    def short(self, path: str) -> str:
        """Shorten a path: relative to the tree, or without the hash of its store path."""
        if self._base and path.startswith(self._base):
            return shown(path.removeprefix(self._base))
        entry, slash, rest = path.removeprefix(self._store).partition("/")
        if path.startswith(self._store) and is_store_entry(entry):
            return shown(f"{package_of_entry(entry)}{slash}{rest}")
        return shown(path)


def _base_of(trace: Trace) -> str:
    """Return the directory that paths are relative to: the tree, or the site-packages around the file."""
    if trace.tree is not None:
        return trace.tree.root.rstrip("/") + "/"
    head, site, _ = trace.root.partition(_SITE)
    return head + site if site else ""
