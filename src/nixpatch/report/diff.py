"""What is different between two plans or two locks: as text and as JSON. Pure renderers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nixpatch.escape import shown
from nixpatch.resolve.diff import Change, Difference, LibraryChange
from nixpatch.store.store_paths import is_store_entry, package_of_entry

_FILES = 3


def text(difference: Difference, *, verbosity: int) -> RenderableType:
    """Render for people: libraries by package, files by what changes; from ``verbosity`` 1 on every file."""
    parts: list[RenderableType] = [
        Text(f"{change.what}: {_told(change.before)} -> {_told(change.after)}", style="bold")
        for change in difference.target
    ]
    parts += _libraries(difference.libraries)
    parts += _files(difference, verbosity)
    parts += (Text(f"+ {_finding(found)}", style="red") for found in difference.gained)
    parts += (Text(f"- {_finding(found)}", style="green") for found in difference.lost)
    parts.append(Text(_closing(difference)))
    return Group(*parts)


def _libraries(changes: tuple[LibraryChange, ...]) -> Iterator[Text]:
    width = max((len(shown(change.soname)) for change in changes), default=0)
    for change in changes:
        line = Text(shown(change.soname).ljust(width), style="bold")
        if change.before is None:
            line.append(f"  + {_package(change.after)}", style="green" if change.after else "red")
        elif change.after is None:
            line.append(f"  - {_package(change.before)}", style="yellow")
        else:
            old, new = _package(change.before), _package(change.after)
            style = "red" if not change.after else "green"
            line.append(f"  {old} -> {new}", style=style)
            if old == new:
                line.append(" (another build of the same version)", style="dim")
        if change.users:
            line.append(f"  for {change.users} {'file' if change.users == 1 else 'files'}", style="dim")
        yield line


def _files(difference: Difference, verbosity: int) -> Iterator[Text]:
    """Tell each sort of change once, with the files that it happens to."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for path, changes in difference.files:
        key = tuple(line for change in changes for line in _file(change))
        groups.setdefault(key, []).append(path)
    for lines, paths in groups.items():
        some = paths if verbosity > 0 else paths[:_FILES]
        yield Text(f"{len(paths)} {'file' if len(paths) == 1 else 'files'}:", style="bold")
        yield from (Text(f"  {shown(path)}") for path in some)
        if len(some) < len(paths):
            yield Text(f"  and {len(paths) - len(some)} more: -v names them", style="dim")
        yield from (Text(f"    {line}", style=style) for line, style in lines)


def _file(change: Change) -> Iterator[tuple[str, str]]:
    """Yield lines, each with its style."""
    if change.what == "file":
        yield ("new", "green") if change.before is None else ("gone", "yellow")
        return
    old, new = change.before, change.after
    if change.what != "search path":
        yield f"{change.what}  {_told(old)} -> {_told(new)}", ""
        return
    before, after = (old or "").split(":"), (new or "").split(":")
    lost = [entry for entry in before if entry and entry not in after]
    gained = [entry for entry in after if entry and entry not in before]
    yield "search path" + ("" if lost or gained else f"  {_told(old)} -> {_told(new)}"), ""
    yield from ((f"  - {shown(entry)}", "yellow") for entry in lost)
    yield from ((f"  + {shown(entry)}", "green") for entry in gained)


def _told(value: str | None) -> str:
    return shown(value) if value else "(none)"


def _finding(found: tuple[str, str]) -> str:
    path, said = found
    return f"{shown(path)}: {shown(said)}" if path else shown(said)


def _package(path: str | None) -> str:
    """Return the package of a library in a store, else its path; says that nothing provides it."""
    if not path:
        return "nothing provides it"
    return package_of(path) or shown(path)


def package_of(path: str | None) -> str | None:
    """Return the name of the store path that a library lies in, None outside a store."""
    entry = next((part for part in (path or "").split(os.sep) if is_store_entry(part)), None)
    return package_of_entry(entry) if entry is not None else None


def _closing(difference: Difference) -> str:
    if difference.same:
        return "No difference."
    counts = (
        (len(difference.libraries), "library", "libraries"),
        (len(difference.files), "file", "files"),
        (len(difference.gained) + len(difference.lost), "finding", "findings"),
    )
    told = ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts if count)
    return f"Different: {told or 'what it was made for'}."


def json(difference: Difference, before: str, after: str) -> dict[str, Any]:
    """Render the part of the document that tells of the difference."""
    return {
        "kind": difference.kind,
        "before": before,
        "after": after,
        "same": difference.same,
        "target": [_change(change) for change in difference.target],
        "libraries": [
            {
                "soname": change.soname,
                "before": change.before,
                "after": change.after,
                "package_before": package_of(change.before),
                "package_after": package_of(change.after),
                "users": change.users,
            }
            for change in difference.libraries
        ],
        "files": [
            {"path": path, "changes": [_change(change) for change in changes]}
            for path, changes in difference.files
        ],
        "findings": [
            {"gained": gained, "path": path, "text": said}
            for gained, found in ((True, difference.gained), (False, difference.lost))
            for path, said in found
        ],
    }


def _change(change: Change) -> dict[str, str | None]:
    return {"what": change.what, "before": change.before, "after": change.after}
