"""What is different between two plans or two locks. Pure: over what their documents say, not over the disk.

A plan is compared by what a process would see of it: where a soname comes from, and what each file's search
path and interpreter become. Trees are told apart by their place in the document and files by their path in
the tree, so that two checkouts of one project can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FileState:
    """What one file comes to."""

    status: str = ""
    search_path: str | None = None
    tag: str | None = None
    interpreter: str | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One plan or one lock, as far as it is compared."""

    kind: str
    """``plan`` or ``lock``"""
    target: Mapping[str, str] = field(default_factory=dict)
    """what it was made for, by name: machine, loader, libc"""
    libraries: Mapping[str, str] = field(default_factory=dict)
    """soname -> path; "" where nothing provides it"""
    users: Mapping[str, int] = field(default_factory=dict)
    """how many files need a soname; empty for a lock"""
    files: Mapping[str, FileState] = field(default_factory=dict)
    """by path in the tree"""
    findings: frozenset[tuple[str, str]] = frozenset()
    """path in the tree and text"""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is different; None where a side does not have it at all."""

    what: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class LibraryChange:
    """A soname that another file serves; None where a side has no need of it, "" where nothing serves."""

    soname: str
    before: str | None
    after: str | None
    users: int
    """files of the later side that need it, else of the earlier one"""


@dataclass(frozen=True, slots=True)
class Difference:
    """All that is different."""

    kind: str
    target: tuple[Change, ...] = ()
    libraries: tuple[LibraryChange, ...] = ()
    """sorted by soname"""
    files: tuple[tuple[str, tuple[Change, ...]], ...] = ()
    """sorted by path"""
    gained: tuple[tuple[str, str], ...] = ()
    """findings that only the later side has"""
    lost: tuple[tuple[str, str], ...] = ()

    @property
    def same(self) -> bool:
        """Whether there is no difference."""
        return not (self.target or self.libraries or self.files or self.gained or self.lost)


def compare(before: Side, after: Side) -> Difference:
    """Return what is different; both are of one kind."""
    return Difference(
        after.kind,
        target=tuple(_changes(before.target, after.target)),
        libraries=tuple(
            LibraryChange(change.what, change.before, change.after, _users(change.what, before, after))
            for change in _changes(before.libraries, after.libraries)
        ),
        files=tuple(_files(before.files, after.files)),
        gained=tuple(sorted(after.findings - before.findings)),
        lost=tuple(sorted(before.findings - after.findings)),
    )


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield Change(name, before.get(name), after.get(name))


def _users(soname: str, before: Side, after: Side) -> int:
    return after.users.get(soname, 0) or before.users.get(soname, 0)


def _files(
    before: Mapping[str, FileState], after: Mapping[str, FileState]
) -> Iterator[tuple[str, tuple[Change, ...]]]:
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old is None or new is None:
            yield path, (Change("file", "there" if old else None, "there" if new else None),)
        elif old != new:
            yield path, tuple(_file(old, new))


def _file(old: FileState, new: FileState) -> Iterator[Change]:
    for what, one, other in (
        ("search path", old.search_path, new.search_path),
        ("tag", old.tag, new.tag),
        ("interpreter", old.interpreter, new.interpreter),
        ("status", old.status, new.status),
    ):
        if one != other:
            yield Change(what, one, other)
