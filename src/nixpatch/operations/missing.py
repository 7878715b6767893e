"""List the needed libraries that nothing provides, with the nixpkgs attribute that has each."""

from __future__ import annotations

import os
from collections.abc import Iterable

from nixpatch.model import Answer, Plan
from nixpatch.model.missing import Missing
from nixpatch.model.summary import UNOWNED, owner_names
from nixpatch.store.catalog import Catalog, packaged


def find_missing(plan: Plan, catalog: Catalog | None = None) -> tuple[Missing, ...]:
    """Return the sonames that nothing provides, sorted; ``catalog`` None is the one in the package."""
    answers: dict[str, list[tuple[str, Answer]]] = {}
    for file in plan.files:
        for answer in file.missing:
            answers.setdefault(answer.need, []).append((file.file.path, answer))
    owners = owner_names(plan.tree)
    missing = []
    for soname, users in sorted(answers.items()):
        files = {path for path, _ in users}
        dists = {owners.get(path, UNOWNED) for path in files}
        missing.append(_missing(soname, files, dists, users[0][1].considered, catalog))
    return tuple(missing)


def find_optional(plan: Plan, catalog: Catalog | None = None) -> tuple[Missing, ...]:
    """Return the sonames that code opens by name and nothing provides, sorted: no error."""
    owners = opener_owners(plan)
    optional = []
    for library in plan.opened_unmet:
        files = [file for file, _ in library.openers]
        optional.append(_missing(library.soname, files, {owners[file] for file in files}, (), catalog))
    return tuple(optional)


def opener_owners(plan: Plan) -> dict[str, str]:
    """Map the files and sources that open optional libraries to their dists, as ``name version``."""
    names = {dist.info: f"{dist.name} {dist.version}" for dist in plan.tree.dists}
    return {file: names.get(info, UNOWNED) for library in plan.opened_unmet for file, info in library.openers}


def _missing(
    soname: str,
    files: Iterable[str],
    dists: Iterable[str],
    considered: tuple[str, ...],
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
        considered=considered,
    )
