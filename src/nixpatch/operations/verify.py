"""Verify a tree: provenance, RECORD, lockfile, transitive needs, the real loader, garbage-collector roots."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from nixpatch.errors import PythonGone
from nixpatch.installed.dist_records import TreeRecords
from nixpatch.installed.scan import scan
from nixpatch.model import ElfFacts, Finding, Libc, Skip, Target, Verdict
from nixpatch.operations import gc_roots, lockfile
from nixpatch.operations.foreign_dists import foreign_dists, linked_for_others
from nixpatch.operations.plan import Reader
from nixpatch.operations.resolution_cache import untrue_caches
from nixpatch.operations.skipped_programs import unable_to_start
from nixpatch.operations.starting_files import StartingFiles
from nixpatch.operations.target import cannot_start, target_of_output, without_loader
from nixpatch.operations.target_libraries import target_libraries
from nixpatch.operations.text_plan import without_program
from nixpatch.operations.verify_load import load_files, load_opened
from nixpatch.operations.verify_provenance import (
    check_provenance,
    facts_of_tree,
    libraries_by_search_path,
    may_be_missing,
    patched_files,
    with_findings,
)
from nixpatch.operations.verify_texts import patched_texts
from nixpatch.operations.verify_transitive import unmet_needs
from nixpatch.policy import Policy, default_policy
from nixpatch.resolve.load_order import library_use, load_conflicts
from nixpatch.store.nix_store import Store


def check_tree(
    path: str,
    store: Store,
    *,
    python: str | None = None,
    path_env: str | None = None,
    locked: str | None = None,
    load: bool = False,
    deep: bool = False,
    workers: int = 0,
    accept_modified: bool = False,
    policy: Policy | None = None,
) -> Verdict:
    """Check a patched tree.

    Args:
        path: the tree.
        store: the store.
        python: the Python that will load the tree; None finds it.
        path_env: the value of PATH, for finding the Python.
        locked: a lockfile; every library of the store must be in it.
        load: open every file in the target Python.
        deep: read the patched files and their originals with pyelftools and LIEF, too.
        workers: processes that hash and read files; 0 is one per core for large work.
        accept_modified: files that RECORD does not describe, and that nixpatch did not change or left so, are
            notes.
        policy: what may be missing, besides what provenance says; None is the policy of the package.

    Raises:
        RequestError: there is no such tree, or the target or the lock is wrong.
        MachineError: Nix failed, or the target cannot be started.

    """
    tree = scan(path, store_dir=store.directory).only_part()
    reader = Reader()
    try:
        target = target_of_output(tree, python, path_env, reader, store.directory)
    except PythonGone as error:
        return Verdict(tree, None, findings=(Finding("error", tree.root, str(error)),))
    records = TreeRecords()
    verdict = check_provenance(
        tree,
        target,
        reader,
        workers=workers,
        records=records,
        accept_modified=accept_modified,
        policy=policy,
    )
    if tree.linked_note:
        verdict = with_findings(verdict, (Finding("note", tree.root, tree.linked_note),))
    skips = (
        (file.path, result) for file in tree.files if isinstance(result := reader.in_tree(file.path), Skip)
    )
    ignored = may_be_missing(tree, records, policy)
    verdict = with_findings(verdict, tuple(unable_to_start(skips, reader.facts, ignored)))
    verdict = with_findings(verdict, tuple(cannot_start(replace(tree, files=()), target)))
    machines = {file.path: machine for file in tree.files if (machine := reader.machine(file.path))}
    facts = facts_of_tree(tree, target, reader)
    foreign = tuple(foreign_dists(tree, machines, target, linked_for_others(facts, target)))
    verdict = with_findings(verdict, foreign)
    unloadable = {finding.path for finding in foreign}
    of_foreign = {file.path for file in tree.files if file.owners and unloadable.issuperset(file.owners)}
    facts = {path: file for path, file in facts.items() if path not in of_foreign}
    if locked is not None:
        verdict = with_findings(verdict, lockfile.findings(verdict, locked, store, reader))
    verdict = with_findings(verdict, tuple(_conflicts(facts, target, reader, ignored)))
    verdict = with_findings(verdict, tuple(untrue_caches(facts)))
    starting = StartingFiles(tree, target)
    files = {file.path: file for file in tree.files}

    def stops(path: str) -> bool:
        return path not in files or starting(files[path], facts.get(path))

    if target.libc is Libc.GLIBC or store.store_path_of(target.loader) is not None:
        unmet = tuple(
            unmet_needs(facts, target, reader, ignored=ignored, stops=stops, known=verdict.findings)
        )
        unmet += tuple(without_loader(facts, reader, ignored))
        unmet += tuple(without_program(tree, store.directory, patched_texts(tree, records)))
        verdict = with_findings(verdict, unmet)
        if any(finding.severity == "error" for finding in unmet):
            text = f"nixpatch {shlex.quote(path)} links what the store has, and lists what it lacks"
            verdict = with_findings(verdict, (Finding("note", tree.root, text),))
    if load:
        loaded, findings = load_files(facts, target, reader, ignored, stops)
        opened, opened_findings = load_opened(tree, records, target, reader)
        known = {(finding.path, finding.topic) for finding in verdict.findings if finding.topic}
        findings = tuple(finding for finding in findings if (finding.path, finding.topic) not in known)
        verdict = with_findings(verdict, (*findings, *opened_findings), loaded=loaded + opened)
    if deep:
        from nixpatch.operations.verify_deep import reread  # noqa: PLC0415 - only this option needs it

        entries = {path: entry for path, (_, entry) in patched_files(tree, records, []).items()}
        readers, findings = reread(entries, tree.root, workers)
        verdict = with_findings(replace(verdict, reread=readers), findings)
    return with_findings(verdict, gc_roots.findings(verdict, store))


def _conflicts(
    facts: Mapping[str, ElfFacts], target: Target, reader: Reader, ignored: Callable[[str, str], bool]
) -> Iterator[Finding]:
    """Report files that do not load after another library of the same soname."""
    libc_of = default_policy().libc_of
    uses = [
        library_use(path, file, soname, os.path.realpath(library))
        for path, file in facts.items()
        for soname, library in libraries_by_search_path(path, file, reader).items()
        if libc_of(soname) is None and not file.executable
    ]
    for conflict in load_conflicts(
        uses, lambda sonames: target_libraries(target, sonames, reader.facts), reader.version_defs, ignored
    ):
        yield conflict.finding
