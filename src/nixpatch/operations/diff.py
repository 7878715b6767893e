"""Read two plans (``plan --json``) or two lockfiles, and compare them.

Plans are compared by their effect on a process: which file serves a soname, and the search path and the
interpreter of each file. Trees are matched by their position in the document and files by their path in the
tree, so that two checkouts of one project can be compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from nixpatch import bounded_json
from nixpatch.errors import RequestError
from nixpatch.model.diff import Difference, DiffSide, FieldChange, FileState, LibraryChange
from nixpatch.store.lockfile import LockfileError, load

_MAX_SIZE = 64 << 20  # bytes; the plan of 1,200 files has four million
_MAX_QUOTED = 200  # characters of an error message, which may quote megabytes of the document
_PLANS = frozenset({"plan", "patch"})
_EXPECTED = "expected the output of nixpatch plan --json, or a nixpatch.lock"


def diff_files(before: str, after: str) -> Difference:
    """Compare two files.

    Raises:
        RequestError: a file cannot be read, is neither a plan nor a lockfile, or the kinds differ.

    """
    old, new = read_side(before), read_side(after)
    if old.kind != new.kind:
        raise RequestError(f"{before} is a {old.kind}, {after} is a {new.kind}: compare two of the same kind")
    return compare(old, new)


def compare(before: DiffSide, after: DiffSide) -> Difference:
    """Compare two sides of the same kind."""
    return Difference(
        after.kind,
        target=tuple(_compare_values(before.target, after.target)),
        libraries=tuple(
            LibraryChange(change.what, change.before, change.after, _users(change.what, before, after))
            for change in _compare_values(before.libraries, after.libraries)
        ),
        files=tuple(_compare_files(before.files, after.files)),
        gained=tuple(sorted(after.findings - before.findings)),
        lost=tuple(sorted(before.findings - after.findings)),
    )


def _compare_values(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[FieldChange]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield FieldChange(name, before.get(name), after.get(name))


def _users(soname: str, before: DiffSide, after: DiffSide) -> int:
    return after.users.get(soname, 0) or before.users.get(soname, 0)


def _compare_files(
    before: Mapping[str, FileState], after: Mapping[str, FileState]
) -> Iterator[tuple[str, tuple[FieldChange, ...]]]:
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old is None or new is None:
            yield path, (FieldChange("file", "there" if old else None, "there" if new else None),)
        elif old != new:
            yield path, tuple(_compare_file(old, new))


def _compare_file(old: FileState, new: FileState) -> Iterator[FieldChange]:
    for what, before, after in (
        ("search path", old.search_path, new.search_path),
        ("tag", old.tag, new.tag),
        ("interpreter", old.interpreter, new.interpreter),
        ("status", old.status, new.status),
    ):
        if before != after:
            yield FieldChange(what, before, after)


def read_side(path: str) -> DiffSide:
    """Read a plan or a lockfile.

    Raises:
        RequestError: the file cannot be read, or is neither.

    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_side(data, path)


def parse_side(data: bytes, path: str) -> DiffSide:
    """Parse a plan or a lockfile; ``path`` is for error messages only.

    Raises:
        RequestError: the data is neither.

    """
    try:
        document = bounded_json.parse(data if len(data) <= _MAX_SIZE else b"")
    except ValueError:
        raise RequestError(f"{path}: not JSON; {_EXPECTED}") from None
    if not isinstance(document, dict):
        raise RequestError(f"{path}: {_EXPECTED}")
    try:
        return _plan_side(document) if "command" in document else _lock_side(data)
    except LockfileError as error:
        raise RequestError(f"{path}: {error}; {_EXPECTED}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RequestError(f"{path}: not written by nixpatch ({_shortened(error)}); {_EXPECTED}") from None


def _shortened(error: Exception) -> str:
    text = repr(error)
    return text if len(text) < _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."


def _lock_side(data: bytes) -> DiffSide:
    lock = load(data)
    libc = " ".join((lock.libc.value, ".".join(map(str, lock.libc_version))))
    return DiffSide(
        "lock",
        {"machine": lock.machine, "loader": lock.loader, "libc": libc},
        {soname: library.path for soname, library in lock.libraries.items()},
    )


def _plan_side(document: dict[str, Any]) -> DiffSide:
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
        prefix = f"{number + 1}: " if len(trees) > 1 else ""
        if tree["target"] is not None:
            for name in ("machine", "loader", "libc"):
                target[f"{prefix}{name}"] = _text(tree["target"][name])
            target[f"{prefix}libc version"] = ".".join(map(str, tree["target"]["libc_version"]))
        for file in tree["files"]:
            linkage = file["after"] or file["before"] or {}
            files[prefix + os.path.relpath(file["path"], root)] = FileState(
                # "changed" and "untouched" are equal here: a second plan finds done what the first one did.
                "skipped" if file["status"] == "skipped" else "",
                *(_optional_text(linkage.get(name)) for name in ("search_path", "tag", "interpreter")),
            )
            for need in file["needs"]:
                path = _library_path(need, tree["tree"]["prefix"])
                if path is not None:
                    key = prefix + need["soname"]
                    libraries[key] = path
                    users[key] = users.get(key, 0) + 1
        for finding in tree["findings"]:
            inside = finding["path"].startswith(root.rstrip("/") + "/")
            path = os.path.relpath(finding["path"], root) if inside else ""
            findings.add((prefix + path, _text(finding["text"])))
    return DiffSide("plan", target, libraries, users, files, frozenset(findings))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _library_path(need: dict[str, Any], prefix: str) -> str | None:
    """Return the library outside the tree that serves a need: "" for none, None if it is in the tree."""
    if need["origin"] == "missing":
        return ""
    path = need["path"]
    if path is None or need["origin"] == "libc" or path.startswith(prefix.rstrip("/") + "/"):
        return None
    return str(path)
