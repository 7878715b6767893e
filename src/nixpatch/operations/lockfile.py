"""Hold the libraries that a plan takes from the store in a lock, and a patched tree against one."""

from __future__ import annotations

import os

from nixpatch.model import ElfFacts, Finding, Plan, Verdict
from nixpatch.operations.plan import Reader
from nixpatch.store import Store
from nixpatch.store.lockfile import Lockfile, check_libraries, check_target, make_lockfile, read


def lock_of(plan: Plan, store: Store) -> tuple[Lockfile, tuple[Finding, ...]]:
    """Return the lock for what serves a plan, and an error for each library that no lock can hold.

    Raises:
        MachineError: a library cannot be read.

    """
    assert plan.target is not None
    lockfile, left_out = make_lockfile(store, plan.target, plan.providers)
    return lockfile, tuple(Finding("error", plan.tree.root, line) for line in left_out)


def findings(verdict: Verdict, name: str, store: Store, reader: Reader) -> tuple[Finding, ...]:
    """Report the libraries and interpreters that a patched tree takes from the store and not from a lock.

    Directories count, not files: one that serves a locked soname may hold another one's, too, and ld.so takes
    it if it comes first. What the files named before they were patched is no business of the lock.

    Raises:
        RequestError: ``name`` is no lock, or it is for another target.
        MachineError: what is locked is gone or changed.

    """
    lockfile = read(name, store)
    check_target(lockfile, name, verdict.target)
    check_libraries(lockfile, name)
    known = set(lockfile.directories()) | {os.path.dirname(lockfile.loader)}
    for file in verdict.tree.files:
        facts = reader(file.path)
        if isinstance(facts, ElfFacts):
            known.update((facts.original.search_path or "").split(":"))
            known.update(os.path.dirname(path) for path in (facts.original.interp or "", *facts.needed))
    text = f"is used, and {name} does not have it: run nixpatch with --locked {name}"
    return tuple(
        Finding("error", path, text)
        for path in verdict.libraries
        if store.store_path_of(path) is not None and os.path.dirname(path) not in known
    )
