"""Differences between two plans or two lockfiles, as text."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from nixpatch.escape import shown
from nixpatch.model.diff import Difference, FieldChange, LibraryChange
from nixpatch.report.closing import diff_closing
from nixpatch.report.phrases import count_text, package_of

_LISTED_FILES = 3


def text(difference: Difference, *, verbosity: int) -> RenderableType:
    """Render libraries by package and files by change; from ``verbosity`` 1 on every file."""
    parts: list[RenderableType] = [
        Text(f"{change.what}: {_value(change.before)} -> {_value(change.after)}", style="bold")
        for change in difference.target
    ]
    parts += _libraries(difference.libraries)
    parts += _files(difference, verbosity)
    parts += (Text(f"+ {_finding(*finding)}", style="red") for finding in difference.gained)
    parts += (Text(f"- {_finding(*finding)}", style="green") for finding in difference.lost)
    parts.append(Text(diff_closing(difference)))
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
            line.append(f"  {old} -> {new}", style="green" if change.after else "red")
            if old == new:
                line.append(" (another build of the same version)", style="dim")
        if change.users:
            line.append(f"  for {count_text(change.users, 'file')}", style="dim")
        yield line


def _files(difference: Difference, verbosity: int) -> Iterator[Text]:
    """Yield each distinct set of changes once, with the files that have it."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for path, changes in difference.files:
        key = tuple(line for change in changes for line in _file_lines(change))
        groups.setdefault(key, []).append(path)
    for lines, paths in groups.items():
        listed = paths if verbosity > 0 else paths[:_LISTED_FILES]
        yield Text(f"{count_text(len(paths), 'file')}:", style="bold")
        yield from (Text(f"  {shown(path)}") for path in listed)
        if len(listed) < len(paths):
            yield Text(f"  and {len(paths) - len(listed)} more: -v lists them", style="dim")
        yield from (Text(f"    {line}", style=style) for line, style in lines)


def _file_lines(change: FieldChange) -> Iterator[tuple[str, str]]:
    """Yield lines, each with its style."""
    if change.what == "file":
        yield ("added", "green") if change.before is None else ("removed", "yellow")
        return
    values = f"{_value(change.before)} -> {_value(change.after)}"
    if change.what != "search path":
        yield f"{change.what}  {values}", ""
        return
    before, after = (change.before or "").split(":"), (change.after or "").split(":")
    lost = [entry for entry in before if entry and entry not in after]
    gained = [entry for entry in after if entry and entry not in before]
    yield "search path" if lost or gained else f"search path  {values}", ""
    yield from ((f"  - {shown(entry)}", "yellow") for entry in lost)
    yield from ((f"  + {shown(entry)}", "green") for entry in gained)


def _value(value: str | None) -> str:
    return shown(value) if value else "(none)"


def _finding(path: str, text: str) -> str:
    return f"{shown(path)}: {shown(text)}" if path else shown(text)


def _package(path: str | None) -> str:
    if not path:
        return "not found"
    return package_of(path) or shown(path)
