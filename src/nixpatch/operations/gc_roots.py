"""Hold the store paths that a tree uses: roots are there before the first file points at them."""

from __future__ import annotations

import os

from nixpatch.errors import RequestError
from nixpatch.installed import scan
from nixpatch.model import ElfFacts, Finding, Plan, Verdict
from nixpatch.operations.plan import Reader
from nixpatch.store import Store, gc_roots
from nixpatch.store.store_paths import store_paths_of


def hold(plan: Plan, store: Store) -> None:
    """Root what the tree will use.

    Raises:
        MachineError: Nix refused; nothing of the tree was changed yet.

    """
    if gc_roots.wanted(store, plan.tree.prefix):
        gc_roots.keep(store, plan.tree.prefix, _used(plan))


def let_go(plan: Plan) -> None:
    """Drop the roots of what the tree used before and no longer does.

    Raises:
        MachineError: the directory of the roots cannot be written.

    """
    gc_roots.prune(plan.tree.prefix, _used(plan))


def let_go_unused(path: str, store_dir: str) -> None:
    """Drop the roots of what no file of a tree names any more, as it lies there now.

    Raises:
        MachineError: the directory of the roots cannot be written.

    """
    try:
        tree = scan(path)
    except RequestError:  # nothing is installed there any more
        gc_roots.prune(os.path.realpath(path), ())
        return
    if not os.path.isdir(os.path.join(tree.prefix, gc_roots.DIRECTORY)):
        return
    read = Reader()
    names: set[str] = set()
    for file in tree.files:
        facts = read(file.path)
        if isinstance(facts, ElfFacts):
            names.update((facts.current.search_path or "").split(":"), facts.needed)
            names.update([facts.current.interp] if facts.current.interp else [])
    gc_roots.prune(tree.prefix, store_paths_of(sorted(names), store_dir))


def findings(verdict: Verdict, store: Store) -> tuple[Finding, ...]:
    """Report store paths that the collector may take away under the tree."""
    if not gc_roots.wanted(store, verdict.tree.prefix):
        return ()
    used = store_paths_of(verdict.libraries, store.directory)
    text = "has no garbage-collector root any more: nix-collect-garbage may delete it; run nixpatch again"
    return tuple(Finding("error", path, text) for path in gc_roots.lacking(store, verdict.tree.prefix, used))


def _used(plan: Plan) -> frozenset[str]:
    """Return the store paths that the files will name after the run."""
    used: set[str] = set()
    for file in plan.files:
        # Only what is written into a file: needs met by a copy in the tree hold themselves.
        if file.wished is None or file.facts is None or file.wished == file.facts.original:
            continue
        used.update(answer.path for answer in file.answers if answer.path)
        used.update([file.wished.interp] if file.wished.interp else [])
    return frozenset(store_paths_of(sorted(used), plan.store_dir)) if plan.store_dir else frozenset()
