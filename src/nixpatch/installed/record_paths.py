"""The files that rows of RECORD name: absolute paths inside the tree, or none."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

_PATH_MAX = 4096
_ODD_ENDS = frozenset({"", "/", "."})  # the row has no file name, or perhaps ``.`` or ``..``


class Locator:
    """Resolves the rows of one site directory; remembers the directories that it has resolved.

    Rows are spelled in several ways: ``pkg/x.so``, ``./pkg/x.so``, ``../../../bin/ruff``, absolute, with
    back-slashes (PEP 376 allows both separators). So files are compared by real path. Only the directory is
    resolved: if the last name is a link, the row means the link.
    """

    def __init__(self, site: str, prefix: str) -> None:
        """Take two real paths; rows that lead out of ``prefix`` name no file."""
        self._site = site
        self._inside = prefix.rstrip("/") + "/"
        self._parents: dict[str, str | None] = {}
        self._children: dict[str, str] = {}

    def locate(self, row: str) -> str | None:
        """Return the absolute path of a row; None if it leads out of the prefix or names no file."""
        if "\\" in row and not os.path.lexists(os.path.join(self._site, row)):
            # A back-slash is a separator only where no file has it in its name.
            row = row.replace("\\", "/")
        cut = row.rfind("/") + 1
        head = row[:cut]
        try:
            parent = self._parents[head]
        except KeyError:
            parent = self._parents[head] = self._parent(head)
        name = row[cut:]
        if parent is None or name in {"", ".", ".."} or "\0" in name:
            return None
        return parent + name

    def locate_all(self, rows: Sequence[str]) -> tuple[set[str], list[str]]:
        """Return the paths of many rows, and the rows that name no file, in order."""
        paths: set[str] = set()
        unresolved: list[str] = []
        parents = self._parents
        for row in rows:
            cut = row.rfind("/") + 1
            parent = parents.get(row[:cut])
            if parent is not None and row[-1:] not in _ODD_ENDS and "\\" not in row and "\0" not in row:
                paths.add(parent + row[cut:])  # all but a few, without a call for each
            elif (path := self.locate(row)) is not None:
                paths.add(path)
            else:
                unresolved.append(row)
        return paths, unresolved

    def _parent(self, head: str) -> str | None:
        """Return the real directory that ``head`` names, with a slash at the end; None if it is outside."""
        if "\0" in head or len(head) > _PATH_MAX:
            return None
        real = "" if head.startswith("/") else self._site.rstrip("/")
        gone: str | None = None  # the first directory that does not exist: nothing below it does
        for part in head.split("/"):
            if part == "..":
                real = real.rpartition("/")[0]
                if gone is not None and len(real) < len(gone):
                    gone = None
            elif part not in {"", "."}:
                child = f"{real}/{part}"
                followed = child if gone is not None else self._children.get(child) or _followed(child)
                if followed is None:
                    gone = real = child
                elif gone is not None:
                    real = child
                else:
                    # Only existing directories are remembered: a row can name two thousand others, each path
                    # longer than the one before.
                    real = self._children[child] = followed.rstrip("/")
        real += "/"
        return real if real.startswith(self._inside) else None


def _followed(path: str) -> str | None:
    """Return the path, or the target if it is a link; None if it does not exist.

    One lstat(2): realpath would look at every component.
    """
    try:
        is_link = stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return None
    return os.path.realpath(path) if is_link else path
