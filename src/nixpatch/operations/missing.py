"""List the needed libraries that nothing provides, with the nixpkgs attribute that has each."""

from __future__ import annotations

import os

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
    if not answers:
        return ()
    catalog = catalog or packaged()
    owners = owner_names(plan.tree)
    missing = []
    for soname, users in sorted(answers.items()):
        # DT_NEEDED may be an absolute path; the catalog has file names.
        name = os.path.basename(soname)
        attribute = catalog.lookup(name)
        files = sorted({path for path, _ in users})
        missing.append(
            Missing(
                soname,
                files=tuple(files),
                dists=tuple(sorted({owners.get(path, UNOWNED) for path in files})),
                attribute=attribute,
                alternatives=catalog.alternatives(name),
                near=catalog.near(name) if attribute is None else (),
                considered=users[0][1].considered,
            )
        )
    return tuple(missing)
