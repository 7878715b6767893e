"""List the needed libraries that nothing provides, with the nixpkgs attribute that has each."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable
from dataclasses import replace

from nixpatch.model import Answer, FilePlan, Plan
from nixpatch.model.missing import Missing
from nixpatch.model.summary import UNOWNED, owner_names
from nixpatch.store.catalog import Catalog, packaged


def find_missing(plan: Plan, catalog: Catalog | None = None) -> tuple[Missing, ...]:
    """Return the sonames that nothing provides and that stop an import or a program, sorted.

    ``catalog`` None is the one in the package.
    """
    return _needed(plan, operator.attrgetter("blocking"), catalog)


def find_dispensable(plan: Plan, catalog: Catalog | None = None) -> tuple[Missing, ...]:
    """Return the sonames that nothing provides and only optional parts need, sorted: no error."""
    return _needed(plan, operator.attrgetter("dispensable"), catalog)


def find_unopened(plan: Plan, catalog: Catalog | None = None) -> tuple[Missing, ...]:
    """Return the sonames that code opens by name and nothing provides, sorted: no error."""
    owners = opener_owners(plan)
    unopened = []
    for library in plan.opened_unmet:
        files = [file for file, _ in library.openers]
        unopened.append(_missing(library.soname, files, {owners[file] for file in files}, catalog))
    return tuple(unopened)


def find_optional(plan: Plan, catalog: Catalog | None = None) -> tuple[Missing, ...]:
    """Return what only optional parts need, then what code opens by name."""
    return (*find_dispensable(plan, catalog), *find_unopened(plan, catalog))


def _needed(
    plan: Plan, answers_of: Callable[[FilePlan], tuple[Answer, ...]], catalog: Catalog | None
) -> tuple[Missing, ...]:
    users: dict[str, list[tuple[FilePlan, Answer]]] = {}
    for file in plan.files:
        for answer in answers_of(file):
            users.setdefault(answer.need, []).append((file, answer))
    owners = owner_names(plan.tree)
    missing = []
    for soname, pairs in sorted(users.items()):
        files = {file.file.path for file, _ in pairs}
        library = _missing(soname, files, {owners.get(path, UNOWNED) for path in files}, catalog)
        stops = tuple(sorted({path for file, _ in pairs for path in file.stops}))
        missing.append(replace(library, stops=stops, considered=pairs[0][1].considered))
    return tuple(missing)


def opener_owners(plan: Plan) -> dict[str, str]:
    """Map the files and sources that open optional libraries to their dists, as ``name version``."""
    names = {dist.info: f"{dist.name} {dist.version}" for dist in plan.tree.dists}
    return {file: names.get(info, UNOWNED) for library in plan.opened_unmet for file, info in library.openers}


def _missing(
    soname: str,
    files: Iterable[str],
    dists: Iterable[str],
    catalog: Catalog | None,
) -> Missing:
    catalog = catalog or packaged()
    name = os.path.basename(soname)  # DT_NEEDED may be an absolute path; the catalog has file names
    attribute = catalog.lookup(name)
    return Missing(
        soname,
        files=tuple(sorted(files)),
        dists=tuple(sorted(dists)),
        attribute=attribute,
        alternatives=catalog.alternatives(name),
        near=catalog.near(name) if attribute is None else (),
    )
