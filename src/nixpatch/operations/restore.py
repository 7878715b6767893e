"""Plan to restore a tree: every patched file as it was installed. ``apply`` carries the plan out."""

from __future__ import annotations

import os
from collections.abc import Iterator

from nixpatch.errors import RequestError
from nixpatch.installed.dist_records import DistRecords, TreeRecords
from nixpatch.installed.hashing import has_sha256
from nixpatch.installed.scan import scan
from nixpatch.model import ElfEdit, ElfFacts, FilePlan, Finding, Plan, TextPlan
from nixpatch.operations.plan import Reader, disregard_foreign_records, mark_unrecorded, stale_provenance
from nixpatch.operations.text_update import restored_texts
from nixpatch.unvendor.apply import distrusted, lost_grafts, removed_grafts, unsettled

_ORIGINAL = ElfEdit(search_path=None, interp=None)
_ADVICE = "install the dist again"


def plan_restore(path: str, records: TreeRecords | None = None) -> Plan:
    """Plan to restore the patched files of a tree; that takes neither target nor store.

    Args:
        path: the tree, as ``scan`` takes it.
        records: RECORDs and provenance; give the same to ``apply``.

    Raises:
        RequestError: there is no such tree.

    """
    tree = scan(path)
    records = records or TreeRecords()
    read = Reader()
    of_dists = [records.of(tree, dist.info) for dist in tree.dists]
    returning = [dist for dist in of_dists if removed_grafts(dist)]
    lost = {name: graft for dist in returning for name, graft in lost_grafts(dist)}
    results = {file.path: read.in_tree(file.path) for file in tree.files}
    files: list[FilePlan] = []
    findings = list(disregard_foreign_records(tree, read, records))
    results.update((finding.path, read(finding.path)) for finding in findings)
    for file in tree.files:
        facts = results[file.path]
        if not isinstance(facts, ElfFacts):
            files.append(FilePlan(file, None, facts))
            continue
        missing = [lost[old] for old, _ in facts.current.renamed if old in lost]
        if facts.stale_undo:
            text = "cannot be restored: another tool (strip, patchelf) changed it after nixpatch"
            findings.append(Finding("error", file.path, f"{text}; {_ADVICE}"))
            files.append(FilePlan(file, facts))
        elif missing:
            text = f"cannot be restored: {missing[0]}, which it needed, was deleted when it was un-vendored"
            findings.append(Finding("error", file.path, f"{text}; {_ADVICE}"))
            files.append(FilePlan(file, facts))
        else:
            # Without an undo record it is the original, as installed or as restored by a run that was killed.
            edit = None if facts.original_sha256 is None else _ORIGINAL
            files.append(FilePlan(file, facts, edit=edit, after=facts.original))
    for dist in records.of_all(tree):
        findings += _without_undo_record(dist)
    for dist in of_dists:
        findings += distrusted(dist)
    texts: list[TextPlan] = []
    for installed_dist, dist in zip(tree.dists, of_dists, strict=True):
        for planned in restored_texts(tree, installed_dist, dist):
            if isinstance(planned, Finding):
                findings.append(planned)
            else:
                texts.append(planned)
    marked = mark_unrecorded(tree, tuple(files), records)
    plan = Plan(
        tree,
        None,
        "",
        marked,
        tuple(findings),
        unsettled=tuple(dist.info for dist in of_dists if unsettled(dist)),
        stale=stale_provenance(tree, records),
        returning=tuple(dist.info for dist in returning),
        texts=tuple(texts),
    ).only_part()
    if tree.part is not None and plan.returning:
        raise RequestError(
            f"{path}: libraries of {os.path.basename(plan.returning[0])} were un-vendored, and other files of"
            f" {tree.root} need those of the store: restore this"
        )
    return plan


def _without_undo_record(records: DistRecords) -> Iterator[Finding]:
    """Report the files that LIEF wrote: they do not contain the original."""
    for path, digest in records.written_by_lief().items():
        if os.path.isfile(path) and not os.path.islink(path) and has_sha256(path, digest):
            text = "cannot be restored: LIEF wrote it, and its output holds no undo record"
            yield Finding("error", path, f"{text}; {_ADVICE}")
