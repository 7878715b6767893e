"""Which unmet needs stop an import or a program, and which belong to an optional part. Pure.

A wheel often has plugins for databases, desktops and accelerators that its users never load. A library that
only they need is no reason to call the tree broken.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from nixpatch.model import FilePlan, Origin, Target

_MODULE = re.compile(r"(?P<name>[^\W\d]\w*)(?:\.(?P<tag>[\w-]+))?\.so")
_IN_TREE = frozenset({Origin.OWN_PATH, Origin.OWN_DIST, Origin.OTHER_DIST, Origin.ABSOLUTE})
_CPYTHON = re.compile(r"cpython-(\d)(\d+)")


def module_name(path: str, target: Target | None) -> tuple[str, bool] | None:
    """Return the name under which the target imports a file, and whether the file name settles it.

    ``name.so`` may be any library: then only its symbol ``PyInit_name`` shows that it is a module.

    Args:
        path: an ELF file.
        target: the Python; None or one of unknown version takes modules of every version.

    Source: ``importlib.machinery.EXTENSION_SUFFIXES``; PEP 3149 (version tags) and PEP 384 (``abi3``).

    """
    match = _MODULE.fullmatch(os.path.basename(path))
    if match is None:
        return None
    tag = match["tag"]
    if tag is None:
        return match["name"], False
    version = _CPYTHON.match(tag)
    if version is None:
        is_tag = tag.startswith(("abi3", "abi4", "pypy", "graalpy"))
        return (match["name"], True) if is_tag else None
    known = target.version if target is not None else None
    fits = known is None or known == (int(version[1]), int(version[2]))
    return (match["name"], True) if fits else None


def mark_stopped(
    files: Sequence[FilePlan], loads_by_itself: Callable[[FilePlan], bool], real: Callable[[str], str]
) -> tuple[FilePlan, ...]:
    """Return the plans, those with unmet needs with the files that do not load because of them.

    Args:
        files: the plans of all ELF files of a tree.
        loads_by_itself: whether a file is a module, a program, or named in code: asked only of files with
            unmet needs and of those that need one of them, directly or not.
        real: resolves links.

    """
    if not any(file.missing for file in files):
        return tuple(files)
    by_path = {file.file.path: file for file in files}
    users: dict[str, set[str]] = {}
    for file in files:
        for answer in file.answers:
            if answer.path is not None and answer.opener is None and answer.origin in _IN_TREE:
                library = answer.path if answer.path in by_path else real(answer.path)
                users.setdefault(library, set()).add(file.file.path)
    starts: dict[str, bool] = {}

    def stops(path: str) -> Iterable[str]:
        for user in _reached(path, users):
            if user in by_path and user not in starts:
                starts[user] = loads_by_itself(by_path[user])
            if starts.get(user):
                yield user

    return tuple(
        replace(file, stops=tuple(sorted(stops(file.file.path)))) if file.missing else file for file in files
    )


def _reached(path: str, users: dict[str, set[str]]) -> set[str]:
    """Return a file and all that load it through DT_NEEDED."""
    seen, pending = {path}, [path]
    while pending:
        for user in users.get(pending.pop(), ()):
            if user not in seen:
                seen.add(user)
                pending.append(user)
    return seen
