"""Verify one tree: provenance, lockfile, transitive needs, the real loader, garbage-collector roots."""

from __future__ import annotations

from nixpatch.installed import find_target, scan
from nixpatch.model import Verdict
from nixpatch.operations import gc_roots, lockfile
from nixpatch.operations.plan import Reader
from nixpatch.operations.verify_load import compare
from nixpatch.operations.verify_provenance import facts_for, may_lack, verify, with_findings
from nixpatch.operations.verify_transitive import unmet
from nixpatch.store import Store


def check_tree(
    path: str,
    store: Store,
    *,
    python: str | None = None,
    search_path: str | None = None,
    locked: str | None = None,
    load: bool = False,
    workers: int = 0,
) -> Verdict:
    """Hold one tree against what its provenance says; with ``load`` the target Python opens every file.

    ``search_path`` is the value of PATH, ``locked`` a lock that the tree shall obey.

    Raises:
        RequestError: there is no such tree, or the target or the lock is wrong.
        MachineError: Nix failed, or the target cannot be started.

    """
    tree = scan(path)
    reader = Reader()
    target = find_target(tree, python, search_path, reader)
    verdict = verify(tree, target, reader, workers=workers)
    if locked is not None:
        verdict = with_findings(verdict, lockfile.findings(verdict, locked, store, reader))
    in_store = store.store_path_of(target.loader) is not None
    if in_store or load:
        # Reads every header of the tree, and every provenance file once more.
        facts, ignored = facts_for(tree, target, reader), may_lack(tree)
        if in_store:
            lacking = unmet(facts, target, reader, ignored=ignored, known=verdict.findings)
            verdict = with_findings(verdict, tuple(lacking))
        if load:
            loaded, findings = compare(facts, target, reader, ignored)
            verdict = with_findings(verdict, findings, loaded=loaded)
    return with_findings(verdict, gc_roots.findings(verdict, store))
