"""Garbage-collector roots of a tree outside the store: add those that a plan needs, prune the unused ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator

from nixpatch.errors import RequestError
from nixpatch.installed.dist_records import TreeRecords
from nixpatch.installed.provenance import IN_WHEEL
from nixpatch.installed.scan import scan
from nixpatch.model import ElfFacts, Finding, Plan, Verdict
from nixpatch.model.installed import ENV_DIRECTORY
from nixpatch.operations.plan import Reader
from nixpatch.store import gc_roots
from nixpatch.store.nix_store import Store
from nixpatch.store_paths import is_store_entry, store_paths_of

_DENIED = (
    "this user may not open Nix's database, so no garbage-collector roots are made: nix-collect-garbage may "
    "delete what the tree uses"
)


def add(plan: Plan, store: Store, on_message: Callable[[str], None] = lambda _: None) -> None:
    """Root the store paths that the files of a plan will name.

    Raises:
        MachineError: Nix refused; nothing of the tree was changed yet.

    """
    if store.denied and used(plan):
        on_message(f"{store.directory}: {_DENIED}")
    if gc_roots.wanted(store, plan.tree.prefix):
        gc_roots.add(store, plan.tree.prefix, used(plan))


def decline(plan: Plan, store: Store) -> None:
    """Note in the tree that the store paths of a plan have no roots because the user wants none."""
    prefix = plan.tree.prefix
    if gc_roots.wanted(store, prefix) and gc_roots.missing(store, prefix, used(plan)):
        with contextlib.suppress(OSError):  # the note serves verify only
            gc_roots.decline(prefix)


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
    if not links and not gc_roots.declined(prefix):
        gc_roots.drop(prefix, ())
        return
    names = set(_names_in_files(prefix))
    used_now = _store_paths_among(names, links.values())
    gc_roots.drop(
        prefix,
        [link for link, store_path in links.items() if store_path not in used_now],
        # Without roots on request it stays so while a file names a store path.
        keep_declined=any(is_store_entry(part) for name in names for part in name.split("/")),
    )


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
    if store.denied and store_paths_of(verdict.libraries, store.directory):
        return (Finding("note", store.directory, _DENIED),)
    if not gc_roots.wanted(store, verdict.tree.prefix):
        return ()
    used_paths = store_paths_of(_libraries_of_own_files(verdict, store), store.directory)
    missing = gc_roots.missing(store, verdict.tree.prefix, used_paths)
    if not gc_roots.links(verdict.tree.prefix) and _comes_from_wheels(verdict):
        severity = "note"
        text = (
            "came with a patched wheel, has no garbage-collector root: nixpatch on the environment makes one"
        )
    elif gc_roots.declined(verdict.tree.prefix):
        severity = "note"
        text = "has no garbage-collector root (--no-gc-roots): nix-collect-garbage may delete it"
    else:
        severity = "error"
        text = "has no garbage-collector root any more: nix-collect-garbage may delete it; run nixpatch again"
    return tuple(Finding(severity, path, text) for path in missing)


def _libraries_of_own_files(verdict: Verdict, store: Store) -> tuple[str, ...]:
    """Return the libraries that files of the tree name, but not those of files in the store that it links to.

    Nix finds the references of a store path by itself: who keeps the linked one, keeps its libraries.
    """
    if not verdict.tree.linked:
        return verdict.libraries
    libraries: set[str] = set()
    for dist in TreeRecords().of_all(verdict.tree):
        known = dist.usable_provenance()
        if known is None or store.store_path_of(dist.provenance_path, resolve=True) is not None:
            continue
        for file in known.files.values():
            libraries.update((*file.needs.values(), file.interp or ""))
        libraries.update(use for text in known.texts.values() for use in text.uses)
    return tuple(library for library in verdict.libraries if library in libraries)


def _comes_from_wheels(verdict: Verdict) -> bool:
    """Whether all that is patched in a tree was patched in a wheel file, where no roots can be made."""
    known = [dist.usable_provenance() for dist in TreeRecords().of_all(verdict.tree)]
    tools = {provenance.tool for provenance in known if provenance is not None and not provenance.is_empty}
    return bool(tools) and all(tool.endswith(IN_WHEEL) for tool in tools)


def _names_in_files(prefix: str) -> Iterator[str]:
    """Yield every path in the store that the files of a prefix name: ELF files, scripts, links of ``env``."""
    try:
        tree = scan(prefix)
    except RequestError:  # nothing is installed there any more
        return
    for dist in TreeRecords().of_all(tree):
        known = dist.usable_provenance()
        yield from (use for text in (known.texts.values() if known else ()) for use in text.uses)
    with contextlib.suppress(OSError), os.scandir(os.path.join(prefix, ENV_DIRECTORY)) as entries:
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
