"""A trace as a tree for a terminal: the needs of each file, and where each is found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree as Branches

from nixpatch.escape import below, shown
from nixpatch.model import ElfFacts, Plan
from nixpatch.model.trace import SearchStep, Trace, TracedNeed
from nixpatch.policy import default_policy
from nixpatch.report.closing import trace_closing
from nixpatch.report.library_origin import LibraryOrigin, OriginFinder, OriginKind
from nixpatch.report.missing import advice
from nixpatch.report.phrases import count_text, first_few
from nixpatch.report.trace_steps import steps

_STYLES = {
    OriginKind.BUNDLED: "bold",
    OriginKind.DIST: "bold",
    OriginKind.STORE: "bold green",
    OriginKind.LIBC: "",
    OriginKind.SYSTEM: "bold yellow",
    OriginKind.MISSING: "bold red",
}


@dataclass(slots=True)
class _TreeContext:
    """A trace, indexed for the drawing."""

    trace: Trace
    origins: OriginFinder
    depth: int | None
    full: bool
    """draw libc's libraries and whole store paths, too"""
    links: dict[str, list[TracedNeed]] = field(default_factory=dict)
    """file -> its needs"""
    first: dict[str, TracedNeed] = field(default_factory=dict)
    """library -> the link that brought it into the process: its own needs are drawn only there"""


def tree_report(
    trace: Trace,
    *,
    store_dir: str,
    verbosity: int,
    depth: int | None = None,
    plan: Plan | None = None,
) -> RenderableType:
    """Render the trace of a file as the tree that ld.so walks, that of a tree as one branch for each dist.

    Args:
        trace: the trace.
        store_dir: the store's directory.
        verbosity: below 0 missing libraries only; from 1 on also libc, whole store paths and each file.
        depth: number of drawn levels below the file; None draws all.
        plan: the plan of the tree that the file is in: what a run would link.

    """
    context = _TreeContext(trace, OriginFinder(trace, store_dir), depth, verbosity > 0)
    for link in trace.links:
        context.links.setdefault(link.by, []).append(link)
        if link.path is not None:
            known = context.first.setdefault(link.path, link)
            if known.how is SearchStep.LOADED and link.how is not SearchStep.LOADED:
                context.first[link.path] = link
    parts: list[RenderableType] = []
    if verbosity >= 0 and trace.files:
        parts.append(_process(trace))
        parts += [_file_tree(context)] if trace.tree is None else _dist_trees(context)
    if trace.tree is None:
        for path, skip in trace.skipped.items():
            parts.append(Text(f"{shown(path)}: {skip.reason.value}: no dependencies"))
    if verbosity >= 0 and trace.opened:
        parts.append(_opened(context))
    parts += _missing(trace, context.origins, plan)
    if trace.files and (verbosity >= 0 or trace.unmet):
        parts.append(Text(trace_closing(trace), style="bold red" if trace.unmet else ""))
    return Group(*parts)


def why_report(trace: Trace, soname: str, *, store_dir: str, plan: Plan | None = None) -> RenderableType:
    """Render every step of the search for one soname, once for each different result.

    ``plan`` is that of the tree: what a run would link.
    """
    origins = OriginFinder(trace, store_dir)
    results: dict[tuple[str | None, SearchStep | None, bool], list[TracedNeed]] = {}
    for link in trace.needs_of(soname):
        results.setdefault((link.path, link.how, link.opener is None), []).append(link)
    parts: list[RenderableType] = []
    for (path, _, is_need), links in results.items():
        title = Text(shown(soname), style="bold red" if path is None and is_need else "bold")
        user = f"needed by {origins.short(links[0].by)}" if is_need else _use(links[0], origins)
        title.append(f", {user}", style="")
        parts.append(title)
        parts += steps(links[0], trace, "  ")
        result = f"not found. {advice(soname, plan, links[0].by)}" if path is None else shown(path)
        parts.append(Text(f"  -> {result}", style="bold"))
        if len(links) > 1:
            others = first_few([origins.short(link.opener or link.by) for link in links[1:]])
            parts.append(Text(f"  the same for {others}", style="dim"))
    for conflict in trace.conflicts:
        if conflict.soname == soname:
            finding = conflict.finding
            parts.append(Text(f"  {origins.short(finding.path)} {shown(finding.text)}", style="bold red"))
    return Group(*parts)


def _opened(context: _TreeContext) -> RenderableType:
    """Draw what code opens by name: a line for each library; with ``full`` those that are not there, too."""
    groups: dict[tuple[str, str | None, SearchStep | None], list[TracedNeed]] = {}
    for link in context.trace.opened:
        groups.setdefault((link.need, link.path, link.how), []).append(link)
    branch = Branches(Text("Opened by name", style="bold"), guide_style="dim")
    absent = 0
    for _, links in sorted(groups.items(), key=lambda item: item[0][0]):
        link, more = links[0], f" and {len(links) - 1} more" if len(links) > 1 else ""
        absent += link.path is None
        if link.path is not None or context.full:
            label = Text(f"{shown(link.need)}  not found") if link.path is None else _label(link, context)
            label.append(f"  {_use(link, context.origins)}{more}", style="dim")
            branch.add(label)
    if absent and not context.full:
        lists = "lists it" if absent == 1 else "lists them"
        branch.add(Text(f"{absent} not found; -v {lists}", style="dim"))
    return branch


def _use(link: TracedNeed, origins: OriginFinder) -> str:
    """Return who opens a library by name, and in whose search path ld.so looks for it."""
    return f"opened by name by {origins.short(link.opener or '')}, searched in {origins.short(link.by)}"


def _missing(trace: Trace, origins: OriginFinder, plan: Plan | None) -> Iterator[RenderableType]:
    """Yield, for each soname that is not found, the steps of the search and the package that has it."""
    by_need: dict[str, list[TracedNeed]] = {}
    for link in trace.unmet:
        by_need.setdefault(link.need, []).append(link)
    for need, links in sorted(by_need.items()):
        yield Text(f"{shown(need)}: not found", style="bold red")
        names = first_few([origins.short(link.by) for link in links])
        yield Text(f"  needed by {names}; searched in this order:")
        yield from steps(links[0], trace, "    ")
        reason = default_policy().ignored(links[0].by, need)
        if default_policy().is_driver(need):
            yield Text(f"  a driver: the machine provides it in {default_policy().driver_directory}")
        elif reason is not None:
            yield Text(f"  may be missing: {reason}")
        else:
            yield Text(f"  {advice(need, plan, links[0].by)}")


def _process(trace: Trace) -> Text:
    start = trace.start
    if start.program is not None:
        loader = shown(start.loader or "")
        text = f"Loaded by {shown(start.program)} (found by {start.found_by}); loader {loader}"
    elif start.loader is not None:
        text = f"Loader {shown(start.loader)} ({start.found_by})"
    else:
        text = f"Search paths only: {start.found_by}"
    return Text(text, style="dim")


def _file_tree(context: _TreeContext) -> RenderableType:
    trace = context.trace
    root = Text(shown(trace.root), style="bold")
    root.append(f"  {_linkage(trace.files[trace.root])}", style="dim")
    branch = Branches(root, guide_style="dim")
    _add_needs(branch, trace.root, context, 1)
    return branch


def _add_needs(branch: Branches, path: str, context: _TreeContext, level: int) -> None:
    links = context.links.get(path, [])
    if not links or (context.depth is not None and level > context.depth):
        return
    libc: dict[str, TracedNeed] = {}
    for link in links:
        if not context.full and link.path is not None and default_policy().libc_of(link.need) is not None:
            libc[link.need] = link
            continue
        child = branch.add(_label(link, context))
        if link.path is not None and link is context.first[link.path]:
            _add_needs(child, link.path, context, level + 1)
    if libc:
        directory = os.path.dirname(next(iter(libc.values())).path or "")
        label = Text(", ".join(shown(soname.partition(".so")[0]) for soname in libc), style="dim")
        label.append(f"  {context.origins.short(directory)}", style="dim")
        branch.add(label)


def _label(link: TracedNeed, context: _TreeContext) -> Text:
    if link.path is None:
        return Text(f"{shown(link.need)}  not found", style="bold red")
    label = Text()  # without a style: that would be the style of all that is appended
    label.append(shown(link.need), style=_STYLES[context.origins.origin(link).kind])
    label.append(f"  {_location(link.path, link.need, context)}")
    label.append(f"  [{_how(link, context)}]", style="cyan")
    return label


def _location(path: str, need: str, context: _TreeContext) -> str:
    """Return the directory of a library; its whole path where the file name is not the need."""
    location = path if os.path.basename(path) != need else os.path.dirname(path)
    if context.full and context.origins.package(path):
        return shown(location)
    return context.origins.short(location)


def _how(link: TracedNeed, context: _TreeContext) -> str:
    assert link.how is not None
    name = shown(os.path.basename(link.places[-1].of))
    if link.how is SearchStep.PARENT_RPATH:
        return f"RPATH of {name}"
    if (
        link.how is SearchStep.LOADED
        and link.opener is None
        and context.trace.tree is None
        and link is context.first[link.path or ""]
    ):
        return f"loaded already, by {name}"
    return str(link.how.value)


def _linkage(facts: ElfFacts) -> str:
    parts = [facts.machine.name]
    if facts.current.tag is not None:
        parts.append(f"{facts.current.tag.value} {shown(facts.current.search_path or '')}")
    if facts.original_sha256 is not None:
        parts.append("patched")
    return ", ".join(parts)


def _dist_trees(context: _TreeContext) -> list[RenderableType]:
    groups: dict[str, list[str]] = {}
    for path in context.trace.files:
        groups.setdefault(context.origins.owner(path), []).append(path)
    return [_dist_tree(name, paths, context) for name, paths in sorted(groups.items())]


def _dist_tree(name: str, paths: list[str], context: _TreeContext) -> RenderableType:
    patched = sum(context.trace.files[path].original_sha256 is not None for path in paths)
    title = Text(shown(name), style="bold")
    title.append(
        f"  {count_text(len(paths), 'file')}" + (f", {patched} patched" if patched else ""), style="dim"
    )
    branch = Branches(title, guide_style="dim")
    if context.full:
        for path in paths:
            label = Text(below(path, context.trace.root))
            label.append(f"  {_linkage(context.trace.files[path])}", style="dim")
            child = branch.add(label)
            for link in context.links.get(path, ()):
                child.add(_label(link, context))
        return branch
    origins: dict[LibraryOrigin, dict[str, set[str]]] = {}
    for path in paths:
        for link in context.links.get(path, ()):
            users = origins.setdefault(context.origins.origin(link), {}).setdefault(link.need, set())
            users.add(path)
    width = max((len(shown(origin.name)) for origin in origins), default=0)
    for origin, needs in sorted(origins.items(), key=lambda item: (item[0].kind, item[0].name)):
        count = len(set().union(*needs.values()))
        label = Text(shown(origin.name).ljust(width), style=_STYLES[origin.kind])
        label.append(f"  {count:>4} {'file ' if count == 1 else 'files'}", style="dim")
        if origin.kind is not OriginKind.LIBC:
            label.append(f"  {first_few(sorted(needs, key=lambda need: (-len(needs[need]), need)))}")
        branch.add(label)
    return branch
