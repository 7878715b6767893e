"""Garbage-collector roots of a tree outside the store: add those that a plan needs, prune the unused ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator

from nixpatch.errors import RequestError
from nixpatch.installed import scan
from nixpatch.installed.dist_records import TreeRecords
from nixpatch.model import ElfFacts, Finding, Plan, Verdict
from nixpatch.operations import dlopen_names
from nixpatch.operations.plan import Reader
from nixpatch.store import Store, gc_roots
from nixpatch.store.store_paths import store_paths_of


def add(plan: Plan, store: Store) -> None:
    """Root the store paths that the files of a plan will name.

    Raises:
        MachineError: Nix refused; nothing of the tree was changed yet.

    """
    if gc_roots.wanted(store, plan.tree.prefix):
        gc_roots.add(store, plan.tree.prefix, used(plan))


def prune(prefix: str, *, expected: Collection[str] = ()) -> None:
    """Drop the roots of store paths that no file of a prefix names now.

    The files decide, not the plan of a run: a run may have been about a part of the prefix, or have failed on
    some files. They are read only where there is a root beyond those that are ``expected``.

    Raises:
        MachineError: the directory of the roots cannot be written.

    """
    links = gc_roots.links(prefix)
    if links and set(links.values()) <= set(expected):
        return
    used_now = _store_paths_among(_names_in_files(prefix), links.values()) if links else frozenset()
    gc_roots.drop(prefix, [link for link, store_path in links.items() if store_path not in used_now])


def used(plan: Plan) -> frozenset[str]:
    """Return the store paths that the files will name after a run."""
    names: set[str] = set()
    for file in plan.files:
        # Only names that are written into a file: a copy in the tree that meets a need holds itself.
        if file.after is None or file.facts is None or file.after == file.facts.original:
            continue
        names.update(answer.path for answer in file.answers if answer.path)
        names.update([file.after.interp] if file.after.interp else [])
    names.update(use for text in plan.texts for use in text.uses)
    return frozenset(store_paths_of(sorted(names), plan.store_dir)) if plan.store_dir else frozenset()


def findings(verdict: Verdict, store: Store) -> tuple[Finding, ...]:
    """Report store paths that the collector may take away under the tree."""
    if not gc_roots.wanted(store, verdict.tree.prefix):
        return ()
    used_paths = store_paths_of(verdict.libraries, store.directory)
    text = "has no garbage-collector root any more: nix-collect-garbage may delete it; run nixpatch again"
    missing = gc_roots.missing(store, verdict.tree.prefix, used_paths)
    return tuple(Finding("error", path, text) for path in missing)


def _names_in_files(prefix: str) -> Iterator[str]:
    """Yield every path in the store that the files of a prefix name: ELF files, scripts, links of ``env``."""
    try:
        tree = scan(prefix)
    except RequestError:  # nothing is installed there any more
        return
    for dist in TreeRecords().of_all(tree):
        known = dist.usable_provenance()
        yield from (use for text in (known.texts.values() if known else ()) for use in text.uses)
    with contextlib.suppress(OSError), os.scandir(os.path.join(prefix, dlopen_names.DIRECTORY)) as entries:
        yield from (os.readlink(entry.path) for entry in entries if entry.is_symlink())
    read = Reader()
    for file in tree.files:
        facts = read.in_tree(file.path)
        if isinstance(facts, ElfFacts):
            yield from (facts.current.search_path or "").split(":")
            yield from facts.needed
            yield facts.current.interp or ""


def _store_paths_among(names: Iterable[str], store_paths: Iterable[str]) -> frozenset[str]:
    """Return those of some store paths that a name lies in."""
    directories = {name if name.endswith("/") else name + "/" for name in names}
    return frozenset(
        path for path in set(store_paths) if any(name.startswith(path + "/") for name in directories)
    )
