"""Where a library that was found comes from, in a word that people know: a dist, a store path, the system."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass

from nixpatch.escape import shown
from nixpatch.model.trace import Trace, TracedNeed
from nixpatch.policy import default_policy
from nixpatch.store.store_paths import is_store_entry, package_of_entry

_SITE = "/site-packages/"


class Kind(enum.IntEnum):
    """Sorts of places, in the order in which they are told."""

    OWN = 0
    DIST = 1
    STORE = 2
    SYSTEM = 3
    LIBC = 4
    MISSING = 5


@dataclass(frozen=True, slots=True)
class Whence:
    """One place that serves needs."""

    kind: Kind
    name: str


class Origins:
    """Tells of the links of one trace where their libraries come from."""

    def __init__(self, trace: Trace, store_dir: str) -> None:
        """``store_dir`` is the store's directory."""
        tree = trace.tree
        names = {dist.info: f"{dist.name} {dist.version}" for dist in tree.dists} if tree else {}
        files = tree.files if tree else ()
        self._owners = {file.path: names.get(next(iter(file.owners), ""), "(no dist)") for file in files}
        self._store = store_dir.rstrip("/") + "/"
        self.base = base_of(trace)

    def owner(self, path: str) -> str:
        """Return ``name version`` of the dist that a file of the tree belongs to."""
        return self._owners.get(path, "(no dist)")

    def of(self, link: TracedNeed) -> Whence:
        """Tell where the library comes from that serves a need."""
        if link.path is None:
            return Whence(Kind.MISSING, "not found")
        if default_policy().libc_of(link.need) is not None:
            return Whence(Kind.LIBC, "libc")
        real = os.path.normpath(link.path)
        if real in self._owners:
            its = self._owners[real]
            return Whence(Kind.OWN, "its own") if its == self.owner(link.by) else Whence(Kind.DIST, its)
        package = self.package(real)
        if package:
            return Whence(Kind.STORE, package)
        if self.base and real.startswith(self.base):
            return Whence(Kind.OWN, "its own")
        assert link.how is not None
        return Whence(Kind.SYSTEM, f"{os.path.dirname(real)} ({link.how.value})")

    def package(self, path: str) -> str:
        """Return the name of the store path that a path lies in, without its hash; "" outside the store."""
        if not path.startswith(self._store):
            return ""
        return package_of_entry(path.removeprefix(self._store).partition("/")[0])

    def short(self, path: str) -> str:
        """Spell a path for a person: relative to the tree, or without the hash of its store path."""
        if self.base and path.startswith(self.base):
            return shown(path.removeprefix(self.base))
        entry, slash, rest = path.removeprefix(self._store).partition("/")
        if path.startswith(self._store) and is_store_entry(entry):
            return shown(f"{package_of_entry(entry)}{slash}{rest}")
        return shown(path)


def base_of(trace: Trace) -> str:
    """Return what is left out of paths: the tree, or the site-packages around the file; "" for neither."""
    if trace.tree is not None:
        return trace.tree.root.rstrip("/") + "/"
    head, found, _ = trace.root.partition(_SITE)
    return head + found if found else ""
