"""Missing libraries as text and as Nix, and what to do about each."""

from __future__ import annotations

import operator
import os
import shlex
from collections.abc import Iterable, Sequence

from nixpatch.escape import below, shown
from nixpatch.model import Origin, Plan
from nixpatch.model.missing import Attribute, AttributeKind, Missing, NearMiss
from nixpatch.model.summary import UNOWNED, owner_names
from nixpatch.operations.missing import (
    find_dispensable,
    find_missing,
    find_optional,
    find_unopened,
    opener_owners,
)
from nixpatch.report.phrases import command_for, from_here
from nixpatch.store.catalog import Catalog, packaged


def text(plans: Sequence[Plan], catalog: Catalog | None = None) -> str:
    """Render by dist: each soname, the files that need it, the attribute; at the end what adds them all.

    What only optional parts need and what code opens by name follows.
    """
    lines: list[str] = []
    every: list[Missing] = []
    optional: list[Missing] = []
    needed_lines: list[str] = []
    opened_lines: list[str] = []
    for plan in plans:
        missing = find_missing(plan, catalog)
        dispensable, unopened = find_dispensable(plan, catalog), find_unopened(plan, catalog)
        every += missing
        optional += (*dispensable, *unopened)
        # The same dist may be in several trees.
        heading = [f"{shown(from_here(plan.tree.root))}:"] if len(plans) > 1 else []
        if missing or plan.conflicts:
            lines += [*heading, *by_dist(plan, missing)]
        needed_lines += [*heading, *by_dist(plan, dispensable)] if dispensable else []
        opened_lines += [*heading, *by_dist(plan, unopened, use="opened by name")] if unopened else []
        for conflict in plan.conflicts:
            lines.append(shown(below(conflict.files[0], plan.tree.root)))
            lines += [f"  {shown(conflict.finding.text)}", ""]
    if not every and not any(plan.conflicts for plan in plans):
        lines.append("Nothing is missing.")
    if line := line_to_paste(plans, catalog):
        of_trees = command_to_add(plan for plan in plans if packages(find_missing(plan, catalog)))
        lines += ["", line]
        if of_trees:
            lines[-1:] = [f"To add what nixpkgs has: {of_trees}", "In a Nix build:", line]
    unknown = sum(not _is_package(missing.attribute) for missing in every)
    if unknown:
        lines.append(f"No nixpkgs attribute has {unknown} of these {len(every)}: see above.")
    if needed_lines:
        lines += ["", "Optional: only plugins and backends need these; no import fails.", "", *needed_lines]
    if opened_lines:
        lines += ["", "Optional: code opens these by name, and may do without them.", "", *opened_lines]
    if attributes := packages(optional):
        place = ", in a Nix build" if any(plan.keeps_originals for plan in plans) else ""
        lines += ["", f"All that is optional{place}: {build_inputs(attributes)}"]
    return "\n".join(lines) + "\n"


def nix(plans: Sequence[Plan], catalog: Catalog | None = None) -> str:
    """Render a Nix function from nixpkgs to a list of packages; a soname without a package is a comment.

    Typical usage: ``buildInputs = import ./missing.nix pkgs;``. The optional libraries are a second list
    behind it, in a comment: without the ``#`` it belongs to the first.
    """
    every = [missing for plan in plans for missing in find_missing(plan, catalog)]
    optional = [missing for plan in plans for missing in find_optional(plan, catalog)]
    comments = {
        f"# {shown(missing.soname)}: {source_text(missing.attribute, missing.near)}"
        for missing in every
        if missing.attribute is None or missing.attribute.note
    }
    lines = [*sorted(comments), f"pkgs: {_nix_list(packages(every))}"]
    if attributes := packages(optional):
        lines += [
            "# Optional, opened by name. To have these libraries, too, remove the # before the ++:",
            f"# ++ ({_nix_list(attributes)})",
        ]
    return "\n".join(lines) + "\n"


def advice(soname: str, plan: Plan | None = None, user: str = "", catalog: Catalog | None = None) -> str:
    """Return one line: what to do about a soname that ld.so does not find.

    Args:
        soname: the need; it may be a path.
        plan: the plan of its tree, which says whether a run links it; None if there is none.
        user: the file that needs it.
        catalog: None is the one in the package.

    """
    catalog = catalog or packaged()
    name = os.path.basename(soname)
    attribute = catalog.lookup(name)
    source = source_text(attribute, catalog.near(name) if attribute is None else ())
    if plan is None:
        return source
    if plan.keeps_originals and (library := _linked_by(plan, soname, user)):
        return f"{shown(library)} has it: {command_for(plan.tree)} {_root(plan)} links it"
    if attribute is None or not _is_package(attribute):
        return source
    return f"{source}: add it with {command_to_add([plan]) or build_inputs([attribute])}"


def _linked_by(plan: Plan, soname: str, user: str) -> str | None:
    """Return the library that a run links for a need of a file, or of another file; None for none."""
    answers = [
        (file.file.path != user, answer)
        for file in plan.files
        for answer in file.answers
        if answer.need == soname
    ]
    for _, answer in sorted(answers, key=operator.itemgetter(0)):
        if answer.origin is Origin.LIBC and plan.target is not None:
            return plan.target.libc_dir
        return answer.path
    return None


def command_to_add(plans: Iterable[Plan]) -> str:
    """Return the command that fetches what nixpkgs has; "" where the libraries come from a derivation."""
    usable = [plan for plan in plans if plan.keeps_originals and not plan.asked_nixpkgs]
    commands = sorted({command_for(plan.tree) for plan in usable})
    return "; ".join(
        f"{command} --nixpkgs nixpkgs "
        + " ".join(_root(plan) for plan in usable if command_for(plan.tree) == command)
        for command in commands
    )


def _root(plan: Plan) -> str:
    return shlex.quote(from_here(plan.tree.root))


def build_inputs(attributes: Iterable[Attribute]) -> str:
    """Return the line to paste into a derivation."""
    return f"buildInputs = {_nix_list(attributes)};"


def line_to_paste(plans: Sequence[Plan], catalog: Catalog | None = None) -> str:
    """Return the line that adds every missing library of nixpkgs; "" if there is none."""
    attributes = packages(missing for plan in plans for missing in find_missing(plan, catalog))
    return build_inputs(attributes) if attributes else ""


def packages(every: Iterable[Missing]) -> tuple[Attribute, ...]:
    """Return each nixpkgs package once, sorted by name."""
    by_expression = {
        missing.attribute.expression: missing.attribute
        for missing in every
        if missing.attribute is not None and _is_package(missing.attribute)
    }
    return tuple(sorted(by_expression.values(), key=lambda item: (item.attribute, item.output)))


def nix_item(attribute: Attribute) -> str:
    """Return an element of a Nix list: a function call needs parentheses, or it would be two elements."""
    return f"({attribute.expression})" if " " in attribute.expression else attribute.expression


def _is_package(attribute: Attribute | None) -> bool:
    return attribute is not None and attribute.kind is AttributeKind.PACKAGE


def _nix_list(attributes: Iterable[Attribute]) -> str:
    items = [nix_item(attribute) for attribute in attributes if _is_package(attribute)]
    return f"with pkgs; [ {' '.join(items)} ]" if items else "[ ]"


def by_dist(
    plan: Plan, every: Sequence[Missing], *, use: str = "needed", searched: bool = False
) -> list[str]:
    """Return lines on missing libraries: each dist, below it one line for each library.

    Args:
        plan: the plan that they are of.
        every: the libraries.
        use: how the files refer to them.
        searched: list all searched places, not only files of that name that do not serve.

    """
    lines: list[str] = []
    owners = {**owner_names(plan.tree), **opener_owners(plan)}
    root = plan.tree.root
    sites = {f"{dist.name} {dist.version}": dist.site for dist in plan.tree.dists}
    for dist in sorted({dist for missing in every for dist in missing.dists}):
        lines.append(shown(dist))
        for missing in every:
            files = [file for file in missing.files if owners.get(file, UNOWNED) == dist]
            if not files:
                continue
            users = _first([_place(file, sites.get(dist, root), root) for file in files])
            stops = ""
            if missing.stops and not set(files) & set(missing.stops):
                stopped = [_place(path, sites.get(dist, root), root) for path in missing.stops]
                stops = f" (stops {_first(stopped)})"
            source = source_text(missing.attribute, missing.near)
            lines.append(f"  {shown(missing.soname)}, {use} by {users}{stops}: {source}")
            if searched:
                numbered = enumerate(missing.considered, 1)
                lines += [f"    {number}. {shown(line)}" for number, line in numbered]
            else:
                lines += [f"    {shown(line)}" for line in missing.considered if _is_unfit_library(line)]
    return lines


def _place(path: str, site: str, root: str) -> str:
    return below(path, site if path.startswith(site.rstrip("/") + "/") else root)


def _first(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0]}{more}"


def _is_unfit_library(line: str) -> bool:
    """Whether a line on a searched place is about a file of this very name, or says what nixpkgs lacks."""
    return line.startswith(("/", "--nixpkgs ")) and not line.endswith(": another name")


def source_text(attribute: Attribute | None, near: Sequence[NearMiss]) -> str:
    """Return which nixpkgs attribute has a library, or why none is named."""
    if attribute is None:
        if not near:
            return "no nixpkgs package is known to have it"
        others = "; ".join(f"{other.soname} in {other.attribute.expression}" for other in near)
        return f"no nixpkgs package is known to have this version; nixpkgs has {others}"
    if not _is_package(attribute):
        return attribute.note
    return f"nixpkgs has it in {attribute.expression}" + (f" ({attribute.note})" if attribute.note else "")
