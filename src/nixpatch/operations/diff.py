"""Read two plans (``plan --json``) or two locks, and compare them."""

from __future__ import annotations

import os
from typing import Any

from nixpatch import bounded_json
from nixpatch.errors import RequestError
from nixpatch.resolve.diff import Difference, FileState, Side, compare
from nixpatch.store.lockfile import LockfileError, load

_LIMIT = 64 << 20  # bytes; the plan of 1,200 files takes four million
_PLANS = frozenset({"plan", "patch"})


def difference(before: str, after: str) -> Difference:
    """Compare two files.

    Raises:
        RequestError: one cannot be read, or is neither a plan nor a lock, or they are not of one kind.

    """
    one, other = read_side(before), read_side(after)
    if one.kind != other.kind:
        raise RequestError(f"{before} is a {one.kind}, {after} is a {other.kind}: compare two of one kind")
    return compare(one, other)


def read_side(path: str) -> Side:
    """Read a plan or a lock.

    Raises:
        RequestError: it cannot be read, or is neither.

    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    return side_of(data, path)


def side_of(data: bytes, path: str) -> Side:
    """Read the bytes of a plan or a lock. Raises as :func:`read_side`, which gives ``path`` for its words."""
    try:
        document = bounded_json.parse(data if len(data) <= _LIMIT else b"")
    except ValueError:
        raise RequestError(f"{path}: not JSON; {_WANTED}") from None
    if not isinstance(document, dict):
        raise RequestError(f"{path}: {_WANTED}")
    try:
        return _plan(document) if "command" in document else _lock(data)
    except LockfileError as error:
        raise RequestError(f"{path}: {error}; {_WANTED}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RequestError(f"{path}: not as nixpatch writes it ({_short(error)}); {_WANTED}") from None


def _short(error: Exception) -> str:
    said = repr(error)
    return said if len(said) < _SAID else f"{said[:_SAID]}..."


_SAID = 200  # characters: what is wrong may be a text of megabytes
_WANTED = "wanted is the output of nixpatch plan --json, or a nixpatch.lock"


def _lock(data: bytes) -> Side:
    lock = load(data)
    libc = " ".join((lock.libc.value, ".".join(map(str, lock.libc_version))))
    return Side(
        "lock",
        {"machine": lock.machine, "loader": lock.loader, "libc": libc},
        {soname: library.path for soname, library in lock.libraries.items()},
    )


def _plan(document: dict[str, Any]) -> Side:
    if document["command"] not in _PLANS:
        raise ValueError(f"the output of nixpatch {document['command']}")
    target: dict[str, str] = {}
    libraries: dict[str, str] = {}
    users: dict[str, int] = {}
    files: dict[str, FileState] = {}
    findings: set[tuple[str, str]] = set()
    trees = document["trees"]
    for number, tree in enumerate(trees):
        root = tree["tree"]["root"]
        before = f"{number + 1}: " if len(trees) > 1 else ""
        if tree["target"] is not None:
            for name in ("machine", "loader", "libc"):
                target[f"{before}{name}"] = _text(tree["target"][name])
            target[f"{before}libc version"] = ".".join(map(str, tree["target"]["libc_version"]))
        for file in tree["files"]:
            linkage = file["after"] or file["before"] or {}
            files[before + os.path.relpath(file["path"], root)] = FileState(
                # What one plan finds to do the next one finds done.
                "skipped" if file["status"] == "skipped" else "",
                *(_optional(linkage.get(name)) for name in ("search_path", "tag", "interpreter")),
            )
            for need in file["needs"]:
                where = _where(need, tree["tree"]["prefix"])
                if where is not None:
                    libraries[before + need["soname"]] = where
                    users[before + need["soname"]] = users.get(before + need["soname"], 0) + 1
        for found in tree["findings"]:
            inside = found["path"].startswith(root.rstrip("/") + "/")
            path = os.path.relpath(found["path"], root) if inside else ""
            findings.add((before + path, _text(found["text"])))
    return Side("plan", target, libraries, users, files, frozenset(findings))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)


def _where(need: dict[str, Any], prefix: str) -> str | None:
    """Return what serves a need from outside the tree, "" if nothing does; None if the tree itself does."""
    if need["origin"] == "missing":
        return ""
    path = need["path"]
    if path is None or need["origin"] == "libc" or path.startswith(prefix.rstrip("/") + "/"):
        return None
    return str(path)
