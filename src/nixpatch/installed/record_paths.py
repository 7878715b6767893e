"""From a row of RECORD to the file it means: absolute, and inside the tree or nowhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

_PATH_MAX = 4096
_ODD_ENDS = frozenset({"", "/", "."})  # no file name, or perhaps ``.`` or ``..``


class Locator:
    """Resolves the rows of one site directory; remembers every directory it has looked at.

    Rows are spelled in several ways (``pkg/x.so``, ``./pkg/x.so``, ``../../../bin/ruff``, absolute ones,
    back-slashes: the specification allows both), so files are told apart by real path. Only the directory
    is resolved: where the last name is a link, the row means the link.
    """

    def __init__(self, site: str, prefix: str) -> None:
        """``site`` and ``prefix`` are real paths; rows that leave ``prefix`` mean nothing."""
        self._site = site
        self._inside = prefix.rstrip("/") + "/"
        self._parents: dict[str, str | None] = {}
        self._children: dict[str, str] = {}

    def locate(self, row: str) -> str | None:
        """Return the absolute path; None where it leaves the prefix or names no file."""
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
        """Return the same for many rows: the paths, and the rows that mean nothing, in order."""
        found: set[str] = set()
        nowhere: list[str] = []
        parents = self._parents
        for row in rows:
            cut = row.rfind("/") + 1
            parent = parents.get(row[:cut])
            if parent is not None and row[-1:] not in _ODD_ENDS and "\\" not in row and "\0" not in row:
                found.add(parent + row[cut:])  # all but a few, without a call for each
            elif (path := self.locate(row)) is not None:
                found.add(path)
            else:
                nowhere.append(row)
        return found, nowhere

    def _parent(self, head: str) -> str | None:
        """Return the real directory ``head`` names, ending in a slash; None if it is no place of ours."""
        if "\0" in head or len(head) > _PATH_MAX:
            return None
        real = "" if head.startswith("/") else self._site.rstrip("/")
        gone: str | None = None  # what is not there has nothing below it
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
                    # Only what is there is remembered: a row can name two thousand directories, each a name
                    # longer than the one before, and none of them has to exist.
                    real = self._children[child] = followed.rstrip("/")
        real += "/"
        return real if real.startswith(self._inside) else None


def _followed(path: str) -> str | None:
    """Return the path, or where it leads if it is a link; None where there is nothing.

    One lstat: realpath would look at every component.
    """
    try:
        link = stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:  # a row may name what was never there
        return None
    return os.path.realpath(path) if link else path
