"""Plan the way back: every patched file as it was installed. ``apply`` carries it out like any other plan."""

from __future__ import annotations

import os
from collections.abc import Iterator

from nixpatch.installed import scan
from nixpatch.installed.dist_records import ledger, without_undo
from nixpatch.installed.hashing import has_sha256
from nixpatch.model import ElfEdit, ElfFacts, FilePlan, Finding, Plan, Tree, TreeFile
from nixpatch.operations.plan import Reader, mark_unrecorded
from nixpatch.unvendor.apply import distrusted, removed_grafts
from nixpatch.unvendor.apply import lost as grafts_lost

_ORIGINAL = ElfEdit(search_path=None, interp=None)


def plan_restore(path: str) -> Plan:
    """Plan to restore the patched files of a tree; no target and no store are needed for it.

    Raises:
        RequestError: there is no such tree.

    """
    tree = scan(path)
    read = Reader()
    lost: dict[str, str] = {}
    returning = []
    for dist in tree.dists:
        where = ledger(tree, dist.info)
        if removed_grafts(where) is not None:
            returning.append(dist.info)
            lost.update(grafts_lost(where))
    files: list[FilePlan] = []
    findings: list[Finding] = []
    for file in tree.files:
        facts = read.in_tree(file.path)
        if not isinstance(facts, ElfFacts):
            files.append(FilePlan(file, None, facts))
        elif facts.stale_undo:
            text = "cannot be restored: another tool (strip, patchelf) changed it after nixpatch"
            findings.append(Finding("error", file.path, f"{text}; install the dist again"))
            files.append(FilePlan(file, facts))
        elif missing := [lost[old] for old, _ in facts.current.renamed if old in lost]:
            text = f"cannot be restored: {missing[0]}, which it needed, was deleted when it was un-vendored"
            findings.append(Finding("error", file.path, f"{text}; install the dist again"))
            files.append(FilePlan(file, facts))
        else:
            files.append(_back(file, facts))
    findings += _no_way_back(tree)
    findings += [finding for dist in tree.dists for finding in distrusted(ledger(tree, dist.info))]
    recorded = mark_unrecorded(tree, tuple(files))
    return Plan(tree, None, "", recorded, tuple(findings), returning=tuple(returning))


def _no_way_back(tree: Tree) -> Iterator[Finding]:
    """Find what LIEF wrote: nothing in such a file tells what it was."""
    for info in (*(dist.info for dist in tree.dists), ""):
        for path, left in without_undo(ledger(tree, info)).items():
            if os.path.isfile(path) and has_sha256(path, left):
                text = "cannot be restored: LIEF wrote it, and its output holds no undo record"
                yield Finding("error", path, f"{text}; install the dist again")


def _back(file: TreeFile, facts: ElfFacts) -> FilePlan:
    if facts.original_sha256 is None:
        # As it was installed, or as a run that was killed restored it.
        return FilePlan(file, facts, after=facts.original)
    return FilePlan(file, facts, edit=_ORIGINAL, after=facts.original)
