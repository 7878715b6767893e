"""What is needed and not there, and what to add: as text, as Nix, as JSON. Pure renderers of a plan."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nixpatch.escape import below, shown
from nixpatch.model import Plan
from nixpatch.model.missing import Attribute, AttributeKind, NearMiss
from nixpatch.report.as_json import document
from nixpatch.report.summary import UNOWNED, missing_by_soname
from nixpatch.store.catalog import Catalog, packaged

_SHOWN_FILES = 3


@dataclass(frozen=True, slots=True)
class Missing:
    """One soname that nothing provides."""

    soname: str
    files: tuple[str, ...]
    """who needs it, sorted"""
    dists: tuple[str, ...]
    """``name version`` of the dists of those files, sorted"""
    attribute: Attribute | None
    """what to add; None where the catalog does not know the soname"""
    alternatives: tuple[Attribute, ...]
    near: tuple[NearMiss, ...]
    """other versions that nixpkgs has, where it has not this one"""


def missing(plan: Plan, catalog: Catalog | None = None) -> tuple[Missing, ...]:
    """Return what a plan misses, sorted by soname; ``catalog`` None: the one of the package."""
    catalog = catalog or packaged()
    owners = _owners(plan)
    found = []
    for soname, files in missing_by_soname(plan).items():
        # A need may be an absolute path; what nixpkgs has goes by the file name.
        name = os.path.basename(soname)
        attribute = catalog.lookup(name)
        found.append(
            Missing(
                soname,
                tuple(sorted(set(files))),
                tuple(sorted({owners[file] for file in files})),
                attribute,
                catalog.alternatives(name),
                catalog.near(name) if attribute is None else (),
            )
        )
    return tuple(found)


def advice(soname: str, catalog: Catalog | None = None) -> str:
    """Return one line that says what to do about a soname that nothing provides."""
    catalog = catalog or packaged()
    name = os.path.basename(soname)
    attribute = catalog.lookup(name)
    return _advice(attribute, catalog.near(name) if attribute is None else (), line=True)


def build_inputs(attributes: Iterable[Attribute]) -> str:
    """Return the line to paste into a derivation; an attribute that is no package adds nothing to it."""
    return f"buildInputs = {_list(attributes)};"


def line_to_paste(plans: Sequence[Plan], catalog: Catalog | None = None) -> str:
    """Return the one line that adds all that nixpkgs has; "" if that is nothing."""
    attributes = _attributes([one for plan in plans for one in missing(plan, catalog)])
    return build_inputs(attributes) if attributes else ""


def text(plans: Sequence[Plan], catalog: Catalog | None = None) -> str:
    """Render for people: by dist each soname, who needs it, what has it; at the end the line to paste."""
    lines: list[str] = []
    every: list[Missing] = []
    for plan in plans:
        lacking = missing(plan, catalog)
        every += lacking
        lines += _by_dist(plan, lacking)
    if not every:
        return "Nothing is missing.\n"
    lines += filter(None, [line_to_paste(plans, catalog)])
    left = sum(one.attribute is None or one.attribute.kind is not AttributeKind.PACKAGE for one in every)
    if left:
        lines.append(f"{left} of {len(every)} cannot be had by an attribute of nixpkgs: see above.")
    return "\n".join(lines) + "\n"


def nix(plans: Sequence[Plan], catalog: Catalog | None = None) -> str:
    """Render a Nix function from nixpkgs to the list of what to add; what has no attribute is a comment.

    ``buildInputs = import ./missing.nix pkgs;`` takes it.
    """
    every = [one for plan in plans for one in missing(plan, catalog)]
    comments = {
        f"# {shown(one.soname)}: {_advice(one.attribute, one.near, line=False)}"
        for one in every
        if one.attribute is None or one.attribute.note
    }
    return "\n".join([*sorted(comments), f"pkgs: {_list(_attributes(every))}"]) + "\n"


def json(plans: Sequence[Plan], catalog: Catalog | None = None) -> dict[str, Any]:
    """Render the document programs read; as stable as the other ones (see ``as_json``)."""
    found = [(plan, missing(plan, catalog)) for plan in plans]
    trees = [
        {
            "tree": {"root": plan.tree.root, "prefix": plan.tree.prefix, "kind": plan.tree.kind.value},
            "missing": [_entry(one) for one in lacking],
            "build_inputs": [_item(attribute) for attribute in _attributes(lacking)],
        }
        for plan, lacking in found
    ]
    return document("missing", trees)


def _owners(plan: Plan) -> dict[str, str]:
    names = {dist.info: f"{dist.name} {dist.version}" for dist in plan.tree.dists}
    return {
        file.file.path: names.get(next(iter(file.file.owners), ""), UNOWNED)
        for file in plan.files
        if file.missing
    }


def _by_dist(plan: Plan, lacking: Sequence[Missing]) -> list[str]:
    lines: list[str] = []
    owners = _owners(plan)
    for dist in sorted({dist for one in lacking for dist in one.dists}):
        lines.append(shown(dist))
        for one in lacking:
            files = [below(file, plan.tree.root) for file in one.files if owners[file] == dist]
            if files:
                more = f" and {len(files) - _SHOWN_FILES} more" if len(files) > _SHOWN_FILES else ""
                lines.append(f"  {shown(one.soname)}, needed by {', '.join(files[:_SHOWN_FILES])}{more}")
                lines.append(f"    {_advice(one.attribute, one.near, line=False)}")
        lines.append("")
    return lines


def _advice(attribute: Attribute | None, near: Sequence[NearMiss], *, line: bool) -> str:
    if attribute is None:
        if not near:
            return "nixpkgs is not known to have it"
        other = "; ".join(f"{one.soname} in {one.attribute.expression}" for one in near)
        return f"nixpkgs is not known to have this version; it has {other}"
    note = f" ({attribute.note})" if attribute.note else ""
    if attribute.kind is not AttributeKind.PACKAGE:
        return attribute.note
    found = f"nixpkgs has it in {attribute.expression}{note}"
    return f"{found}: add it with {build_inputs([attribute])}" if line else found


def _attributes(lacking: Iterable[Missing]) -> tuple[Attribute, ...]:
    """Return each package once, sorted by name: a person keeps such a list sorted."""
    found = {
        one.attribute.expression: one.attribute
        for one in lacking
        if one.attribute is not None and one.attribute.kind is AttributeKind.PACKAGE
    }
    return tuple(sorted(found.values(), key=lambda attribute: (attribute.attribute, attribute.output)))


def _list(attributes: Iterable[Attribute]) -> str:
    items = [_item(attribute) for attribute in attributes if attribute.kind is AttributeKind.PACKAGE]
    return f"with pkgs; [ {' '.join(items)} ]" if items else "[ ]"


def _item(attribute: Attribute) -> str:
    """Put a function call in parentheses: in a Nix list it would be two elements."""
    return f"({attribute.expression})" if " " in attribute.expression else attribute.expression


def _entry(one: Missing) -> dict[str, Any]:
    return {
        "soname": one.soname,
        "dists": list(one.dists),
        "files": list(one.files),
        "provided_by": _attribute(one.attribute) if one.attribute else None,
        "alternatives": [_attribute(attribute) for attribute in one.alternatives],
        "near": [{"soname": near.soname, **_attribute(near.attribute)} for near in one.near],
    }


def _attribute(attribute: Attribute) -> dict[str, str | None]:
    return {
        "kind": attribute.kind.name.lower(),
        "attribute": attribute.attribute or None,
        "output": attribute.output or None,
        "expression": attribute.expression or None,
        "note": attribute.note,
    }
