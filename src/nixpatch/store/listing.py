"""Which library names lie in a directory. Names only: thousands of directories are listed in no time."""

from __future__ import annotations

import os
import stat

from nixpatch.store.cache import Cache, Kind, settled, stamp_of


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
