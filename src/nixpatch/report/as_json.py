"""The report programs read. Stable: ``"version": 1`` until a field changes its meaning or goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nixpatch.model import FilePlan, Finding, Linkage, Outcome, Plan, Target, Tree, Verdict
from nixpatch.report.summary import totals
from nixpatch.report.unvendor import duplicates, graft_entries
from nixpatch.store.store_paths import store_paths_of

VERSION = 1


def document(command: str, trees: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the whole document: what was asked and one entry for each tree."""
    return {"version": VERSION, "command": command, "trees": list(trees)}


def plan_entry(plan: Plan, outcome: Outcome | None) -> dict[str, Any]:
    """Return the entry for a plan or for what became of it."""
    errors = {done.plan.file.path: done.error for done in outcome.failed} if outcome else {}
    count = totals(plan, outcome)
    return {
        "applied": outcome is not None,
        "tree": tree_entry(plan.tree),
        "target": target_entry(plan.target) if plan.target else None,
        "store": plan.store_dir,
        "files": [_file(file, errors.get(file.file.path)) for file in plan.files],
        **_grafts(plan),
        "findings": _findings((*plan.findings, *(outcome.findings if outcome else ()))),
        "summary": {
            "files": count.files,
            "changed": count.changed,
            "changed_bytes": count.bytes,
            "untouched": count.untouched,
            "skipped": {reason.name.lower(): number for reason, number in count.skipped.items()},
            "failed": count.failed,
            "missing": count.missing,
            "satisfied": count.satisfied,
        },
    }


def verdict_entry(verdict: Verdict, store_dir: str) -> dict[str, Any]:
    """Return the entry for what verify found."""
    return {
        "tree": tree_entry(verdict.tree),
        "target": target_entry(verdict.target),
        "store": store_dir,
        "store_paths": list(store_paths_of(verdict.libraries, store_dir)),
        "findings": _findings(verdict.findings),
        "summary": {
            "patched": verdict.patched,
            "needs": verdict.needs,
            "rows": verdict.rows,
            "loaded": verdict.loaded,
            "errors": verdict.errors,
        },
    }


def _grafts(plan: Plan) -> dict[str, Any]:
    if not plan.vendored:
        return {}
    return {
        "grafts": graft_entries(plan),
        "duplicates": [{"library": name, "paths": list(paths)} for name, paths in duplicates(plan)],
    }


def tree_entry(tree: Tree) -> dict[str, Any]:
    """Return what a document says of a tree."""
    return {"root": tree.root, "prefix": tree.prefix, "kind": tree.kind.value}


def target_entry(target: Target) -> dict[str, Any]:
    """Return what a document says of a target."""
    return {
        "python": target.python,
        "found_by": target.found_by,
        "version": list(target.version) if target.version else None,
        "machine": target.machine.name,
        "loader": target.loader,
        "libc": target.libc.value,
        "libc_version": list(target.libc_version),
    }


def _file(file: FilePlan, error: str | None) -> dict[str, Any]:
    if error is not None:
        status = "failed"
    elif file.skip is not None:
        status = "skipped"
    else:
        status = "changed" if file.edit is not None else "untouched"
    return {
        "path": file.file.path,
        "dists": list(file.file.owners),
        "status": status,
        "reason": error or (file.skip.reason.value if file.skip else None),
        "detail": file.skip.detail if file.skip else "",
        "before": _linkage(file.facts.current) if file.facts else None,
        "after": _linkage(file.after) if file.after else None,
        "needs": [
            {
                "soname": answer.need,
                "origin": answer.origin.name.lower(),
                "entry": answer.entry,
                "path": answer.path,
                "detail": answer.detail,
                "considered": list(answer.considered),
            }
            for answer in file.answers
        ],
        "dropped": [{"entry": drop.entry, "why": drop.why} for drop in file.dropped],
    }


def _linkage(linkage: Linkage) -> dict[str, Any]:
    return {
        "search_path": linkage.search_path,
        "tag": linkage.tag.value if linkage.tag else None,
        "interpreter": linkage.interp,
    }


def _findings(findings: Iterable[Finding]) -> list[dict[str, str]]:
    return [{"severity": found.severity, "path": found.path, "text": found.text} for found in findings]
