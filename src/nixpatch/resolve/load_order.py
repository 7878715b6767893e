"""Needs that are met or not depending on which library is loaded first.

ld.so takes a library that is loaded already under the soname, whatever a search path leads to, and then
checks the symbol versions of the file that it loads (_dl_map_object in dl-load.c, dl-version.c).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from nixpatch.model import ElfFacts, FilePlan, Finding, LoadConflict, Origin, TargetLibrary

_SERVED_BY_FILE = frozenset({Origin.OWN_PATH, Origin.OWN_DIST, Origin.OTHER_DIST, Origin.STORE})


@dataclass(frozen=True, slots=True)
class LibraryUse:
    """A file, a soname that it needs, and the library that serves it."""

    user: str
    soname: str
    library: str
    """real path"""
    wanted: frozenset[str]
    """versions that the file wants from it"""


def library_use(user: str, facts: ElfFacts, soname: str, path: str) -> LibraryUse:
    """Return the use of the library at a real path."""
    wanted = frozenset(
        version for need in facts.version_needs if need.soname == soname for version in need.versions
    )
    return LibraryUse(user, soname, path, wanted)


def planned_uses(files: Iterable[FilePlan]) -> Iterator[LibraryUse]:
    """Yield the uses of libraries in the process of the target Python: none of libc's, none by programs."""
    real_path = functools.cache(os.path.realpath)
    for file in files:
        if file.facts is None or file.facts.executable:
            continue
        for answer in file.answers:
            if answer.path is not None and answer.origin in _SERVED_BY_FILE:
                yield library_use(file.file.path, file.facts, answer.need, real_path(answer.path))


def late_findings(files: Iterable[FilePlan]) -> Iterator[Finding]:
    """Report needs that ld.so meets only if a library of another file name is loaded before."""
    for file in files:
        for answer in file.answers:
            if answer.opener is not None or answer.origin not in _SERVED_BY_FILE:
                continue  # code that opens a library by name copes without it
            if answer.entry is None and answer.path != file.file.path:
                yield Finding("note", file.file.path, f"finds {answer.need} {answer.detail}")


def load_conflicts(
    uses: Iterable[LibraryUse],
    target_libraries: Callable[[Collection[str]], Mapping[str, TargetLibrary]],
    version_defs: Callable[[str], frozenset[str]],
    ignored: Callable[[str, str], bool],
) -> Iterator[LoadConflict]:
    """Yield, by soname, the libraries that lack a version if they are loaded before the one that serves.

    Args:
        uses: of all files of a process.
        target_libraries: returns the libraries that the target Python itself loads under some sonames.
        version_defs: returns the versions that the library at a path defines. One that defines none satisfies
            every request.
        ignored: ``ignored(path, soname)`` is whether the soname may be missing for the file.

    """
    by_soname: dict[str, list[LibraryUse]] = {}
    for use in uses:
        by_soname.setdefault(use.soname, []).append(use)
    by_soname = {
        soname: users for soname, users in sorted(by_soname.items()) if any(use.wanted for use in users)
    }
    of_target = target_libraries(by_soname.keys()) if by_soname else {}
    for soname, users in by_soname.items():
        others = {use.library: use.user for use in reversed(users)}
        if soname in of_target:
            own = of_target[soname]
            others[own.path] = own.loaded_by
        for library, loaded_by in sorted(others.items()):
            defined = version_defs(library)
            failing = [use for use in users if use.library != library and defined and use.wanted - defined]
            if failing:
                yield LoadConflict(
                    soname,
                    files=tuple(sorted({use.user for use in failing})),
                    serves=failing[0].library,
                    other=library,
                    loaded_by=loaded_by,
                    lacks=tuple(sorted({version for use in failing for version in use.wanted - defined})),
                    ignored=all(ignored(use.user, soname) for use in failing),
                )
