"""Who needs what, found where and how, as a tree for a terminal. Pure renderer of a trace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree as Branches

from nixpatch.escape import below, shown
from nixpatch.model import ElfFacts
from nixpatch.model.trace import SearchStep, Start, Trace, TracedNeed
from nixpatch.policy import default_policy
from nixpatch.report.missing import advice
from nixpatch.report.origins import Kind, Origins, Whence
from nixpatch.report.search import steps

_NAMED = 3


@dataclass(slots=True)
class _Drawing:
    """What is known while a tree is drawn."""

    trace: Trace
    origins: Origins
    depth: int | None
    full: bool
    """libc's libraries and whole store paths, too"""
    links: dict[str, list[TracedNeed]] = field(default_factory=dict)
    first: dict[str, TracedNeed] = field(default_factory=dict)
    """for each library the link that brought it into the process: only there are its own needs drawn"""


def tree_report(trace: Trace, *, store_dir: str, verbosity: int, depth: int | None = None) -> RenderableType:
    """Render a trace: of one file as the tree that ld.so walks, of a tree as one branch for each dist.

    ``verbosity`` below 0 shows only what is not found, from 1 on libc, whole store paths and each file of a
    tree. ``depth`` is how many steps from the file are drawn, None all.
    """
    drawing = _Drawing(trace, Origins(trace, store_dir), depth, verbosity > 0)
    for link in trace.links:
        drawing.links.setdefault(link.by, []).append(link)
        if link.path is not None:
            known = drawing.first.setdefault(link.path, link)
            if known.how is SearchStep.LOADED and link.how is not SearchStep.LOADED:
                drawing.first[link.path] = link
    parts: list[RenderableType] = []
    if verbosity >= 0 and trace.files:
        parts.append(_process(trace))
        parts += [_of_file(drawing)] if trace.tree is None else _of_tree(drawing)
    if trace.tree is None:
        for path, skip in trace.skipped.items():
            parts.append(Text(f"{shown(path)}: {skip.reason.value}: nothing to look for"))
    parts += lessons(trace, drawing.origins)
    if trace.files:
        parts.append(_closing(trace))
    return Group(*parts)


def lessons(trace: Trace, origins: Origins) -> Iterator[RenderableType]:
    """Tell for each soname that is not found where it was looked for, and what has it."""
    found: dict[str, list[TracedNeed]] = {}
    for link in trace.unmet:
        found.setdefault(link.need, []).append(link)
    for need, links in sorted(found.items()):
        yield Text(f"{shown(need)}: not found", style="bold red")
        names = _some([origins.short(link.by) for link in links])
        yield Text(f"  needed by {names}; looked in this order:")
        yield from steps(links[0], trace, "    ")
        reason = default_policy().ignored(links[0].by, need)
        if default_policy().is_driver(need):
            yield Text(f"  a driver: it comes with the machine, in {default_policy().driver_directory}")
        elif reason is not None:
            yield Text(f"  may be missing: {reason}")
        else:
            yield Text(f"  {advice(need)}")


def _process(trace: Trace) -> Text:
    start: Start = trace.start
    if start.program is not None:
        loader = shown(start.loader or "")
        text = f"Opened by {shown(start.program)} (found by {start.found_by}); loader {loader}"
    elif start.loader is not None:
        text = f"Loader {shown(start.loader)} ({start.found_by})"
    else:
        text = f"Only search paths count: {start.found_by}"
    return Text(text, style="dim")


def _of_file(drawing: _Drawing) -> RenderableType:
    trace = drawing.trace
    root = Text(shown(trace.root), style="bold")
    root.append(f"  {_linkage(trace.files[trace.root])}", style="dim")
    branch = Branches(root, guide_style="dim")
    _grow(branch, trace.root, drawing, 1)
    return branch


def _grow(branch: Branches, path: str, drawing: _Drawing, level: int) -> None:
    links = drawing.links.get(path, [])
    if not links or (drawing.depth is not None and level > drawing.depth):
        return
    folded: dict[str, TracedNeed] = {}
    for link in links:
        if not drawing.full and link.path is not None and default_policy().libc_of(link.need) is not None:
            folded[link.need] = link
            continue
        child = branch.add(_label(link, drawing))
        if link.path is not None and link is drawing.first[link.path]:
            _grow(child, link.path, drawing, level + 1)
    if folded:
        where = os.path.dirname(next(iter(folded.values())).path or "")
        label = Text(f"{', '.join(map(_stem, folded))}", style="dim")
        label.append(f"  {drawing.origins.short(where)}", style="dim")
        branch.add(label)


def _stem(soname: str) -> str:
    return shown(soname.partition(".so")[0])


def _label(link: TracedNeed, drawing: _Drawing) -> Text:
    label = Text()
    if link.path is None:
        label.append(f"{shown(link.need)}  not found", style="bold red")
        return label
    label.append(shown(link.need), style=_STYLES[drawing.origins.of(link).kind])
    label.append(f"  {_place(link.path, link.need, drawing)}")
    label.append(f"  [{_how(link, drawing)}]", style="cyan")
    return label


_STYLES = {
    Kind.OWN: "bold",
    Kind.DIST: "bold",
    Kind.STORE: "bold green",
    Kind.LIBC: "",
    Kind.SYSTEM: "bold yellow",
    Kind.MISSING: "bold red",
}


def _place(path: str, need: str, drawing: _Drawing) -> str:
    """Give the directory; the whole path only where the file is called otherwise than the need."""
    told = path if os.path.basename(path) != need else os.path.dirname(path)
    if drawing.full and drawing.origins.package(path):
        return shown(told)
    return drawing.origins.short(told)


def _how(link: TracedNeed, drawing: _Drawing) -> str:
    assert link.how is not None
    of = shown(os.path.basename(link.places[-1].of))
    if link.how is SearchStep.PARENT_RPATH:
        return f"RPATH of {of}"
    if (
        link.how is SearchStep.LOADED
        and drawing.trace.tree is None
        and link is drawing.first[link.path or ""]
    ):
        return f"loaded already, by {of}"
    return str(link.how.value)


def _linkage(facts: ElfFacts) -> str:
    told = [facts.machine.name]
    if facts.current.tag is not None:
        told.append(f"{facts.current.tag.value} {shown(facts.current.search_path or '')}")
    if facts.original_sha256 is not None:
        told.append("patched")
    return ", ".join(told)


def _of_tree(drawing: _Drawing) -> list[RenderableType]:
    trace = drawing.trace
    assert trace.tree is not None
    groups: dict[str, list[str]] = {}
    for path in trace.files:
        groups.setdefault(drawing.origins.owner(path), []).append(path)
    return [_dist(name, paths, drawing) for name, paths in sorted(groups.items())]


def _dist(name: str, paths: list[str], drawing: _Drawing) -> RenderableType:
    patched = sum(drawing.trace.files[path].original_sha256 is not None for path in paths)
    title = Text(shown(name), style="bold")
    told = f"  {len(paths)} {'file' if len(paths) == 1 else 'files'}" + (
        f", {patched} patched" if patched else ""
    )
    title.append(told, style="dim")
    branch = Branches(title, guide_style="dim")
    if drawing.full:
        for path in paths:
            facts = drawing.trace.files[path]
            label = Text(below(path, drawing.trace.root))
            label.append(f"  {_linkage(facts)}", style="dim")
            child = branch.add(label)
            for link in drawing.links.get(path, ()):
                child.add(_label(link, drawing))
        return branch
    found: dict[Whence, dict[str, set[str]]] = {}
    for path in paths:
        for link in drawing.links.get(path, ()):
            found.setdefault(drawing.origins.of(link), {}).setdefault(link.need, set()).add(path)
    width = max((len(shown(where.name)) for where in found), default=0)
    for where, needs in sorted(found.items(), key=lambda item: (item[0].kind, item[0].name)):
        count = len(set().union(*needs.values()))
        label = Text(shown(where.name).ljust(width), style=_STYLES[where.kind])
        label.append(f"  {count:>4} {'file ' if count == 1 else 'files'}", style="dim")
        if where.kind is not Kind.LIBC:
            label.append(f"  {_some(sorted(needs, key=lambda need: (-len(needs[need]), need)))}", style="")
        branch.add(label)
    return branch


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(shown, names[:_NAMED])) + more


def _closing(trace: Trace) -> Text:
    needs, unmet = len(trace.links), len(trace.unmet)
    found = len({link.path for link in trace.links} - {None})
    files = len(trace.asked) if trace.tree is not None else 1
    text = (
        f"{files} {'file' if files == 1 else 'files'}, {needs} {'need' if needs == 1 else 'needs'}, "
        f"{found} {'library' if found == 1 else 'libraries'}: "
        f"{f'{unmet} not found' if unmet else 'all found'}."
    )
    return Text(text, style="bold red" if unmet else "")


def why_report(trace: Trace, soname: str, *, store_dir: str) -> RenderableType:
    """Tell of one soname every place that was considered: once for each way in which it ends."""
    origins = Origins(trace, store_dir)
    ends: dict[tuple[str | None, SearchStep | None], list[TracedNeed]] = {}
    for link in trace.links:
        if link.need == soname:
            ends.setdefault((link.path, link.how), []).append(link)
    parts: list[RenderableType] = []
    for (path, _), links in ends.items():
        title = Text(f"{shown(soname)}", style="bold red" if path is None else "bold")
        title.append(f", needed by {origins.short(links[0].by)}", style="")
        parts.append(title)
        parts += steps(links[0], trace, "  ")
        if path is None:
            parts.append(Text(f"  -> nothing serves. {advice(soname)}", style="bold"))
        else:
            parts.append(Text(f"  -> {shown(path)}", style="bold"))
        if len(links) > 1:
            parts.append(
                Text(f"  the same for {_some([origins.short(link.by) for link in links[1:]])}", style="dim")
            )
    return Group(*parts)
