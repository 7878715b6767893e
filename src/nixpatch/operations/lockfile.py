"""Make a lockfile from a plan, and check a patched tree against a lockfile."""

from __future__ import annotations

import os

from nixpatch.model import ElfFacts, Finding, Plan, Verdict
from nixpatch.operations.plan import Reader
from nixpatch.store.lockfile import Lockfile, check_libraries, check_target, make_lockfile, read
from nixpatch.store.nix_store import Store


def lock_of(plan: Plan, store: Store) -> tuple[Lockfile, tuple[Finding, ...]]:
    """Return the lockfile for a plan, and an error for each library that it cannot describe.

    Raises:
        MachineError: a library cannot be read.

    """
    assert plan.target is not None
    lockfile, left_out = make_lockfile(store, plan.target, plan.providers)
    return lockfile, tuple(Finding("error", plan.tree.root, line) for line in left_out)


def findings(verdict: Verdict, name: str, store: Store, reader: Reader) -> tuple[Finding, ...]:
    """Report store libraries and interpreters that a patched tree uses and a lockfile does not have.

    Directories are compared, not files: a directory of a locked soname may have the library of another
    soname, too, and ld.so takes that if the directory comes first. Directories that the files named before
    they were patched are not reported.

    Raises:
        RequestError: ``name`` is no lockfile, or it is for another target.
        MachineError: a locked store path is gone or changed.

    """
    lockfile = read(name, store)
    assert verdict.target is not None
    check_target(lockfile, name, verdict.target)
    check_libraries(lockfile, name)
    known = set(lockfile.directories()) | {os.path.dirname(lockfile.loader)}
    for file in verdict.tree.files:
        facts = reader(file.path)
        if isinstance(facts, ElfFacts):
            known.update((facts.original.search_path or "").split(":"))
            known.update(os.path.dirname(path) for path in (facts.original.interp or "", *facts.needed))
    text = f"is used but not in {name}: run nixpatch --locked {name}"
    return tuple(
        Finding("error", path, text)
        for path in verdict.libraries
        if store.store_path_of(path) is not None and os.path.dirname(path) not in known
    )
