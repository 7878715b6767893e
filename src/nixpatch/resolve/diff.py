"""Compare two plans or two lockfiles: what their documents say, without reading the disk.

Plans are compared by their effect on a process: which file serves a soname, and the search path and the
interpreter of each file. Trees are matched by their position in the document and files by their path in the
tree, so that two checkouts of one project can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nixpatch.model.diff import Difference, DiffSide, FieldChange, FileState, LibraryChange


def compare(before: DiffSide, after: DiffSide) -> Difference:
    """Compare two sides of the same kind."""
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


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[FieldChange]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield FieldChange(name, before.get(name), after.get(name))


def _users(soname: str, before: DiffSide, after: DiffSide) -> int:
    return after.users.get(soname, 0) or before.users.get(soname, 0)


def _files(
    before: Mapping[str, FileState], after: Mapping[str, FileState]
) -> Iterator[tuple[str, tuple[FieldChange, ...]]]:
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old is None or new is None:
            yield path, (FieldChange("file", "there" if old else None, "there" if new else None),)
        elif old != new:
            yield path, tuple(_file(old, new))


def _file(old: FileState, new: FileState) -> Iterator[FieldChange]:
    for what, before, after in (
        ("search path", old.search_path, new.search_path),
        ("tag", old.tag, new.tag),
        ("interpreter", old.interpreter, new.interpreter),
        ("status", old.status, new.status),
    ):
        if before != after:
            yield FieldChange(what, before, after)
