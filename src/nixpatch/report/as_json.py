"""The fields of every JSON document, as ``data/report.schema.json`` describes them.

``"version": 1`` stays until a field changes its meaning or goes. A document has the name of its command and
an entry for each tree; ``diff`` and ``lock`` have an object of their own beside the trees.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from nixpatch.model import (
    ElfFacts,
    FilePlan,
    Finding,
    Linkage,
    LoadConflict,
    Outcome,
    Plan,
    Target,
    Tree,
    Verdict,
)
from nixpatch.model.diff import Difference, FieldChange
from nixpatch.model.missing import Attribute, Missing
from nixpatch.model.trace import Trace, TracedNeed
from nixpatch.operations.missing import find_missing, find_optional
from nixpatch.report.missing import nix_item, packages
from nixpatch.report.phrases import package_of
from nixpatch.report.summary import duplicates, totals
from nixpatch.store.catalog import Catalog
from nixpatch.store.lockfile import Lockfile, entry
from nixpatch.store_paths import store_paths_of

if TYPE_CHECKING:  # slow to import, and needed by one command
    from nixpatch.model.manylinux import Promise
    from nixpatch.operations.manylinux import Claim

VERSION = 1


def document(command: str, trees: Sequence[Mapping[str, Any]], **extra: Any) -> dict[str, Any]:
    """Return a whole document: the command, one entry for each tree, and ``extra`` members."""
    return {"version": VERSION, "command": command, "trees": list(trees), **extra}


def write(document: Mapping[str, Any], file: TextIO) -> None:
    """Print a document."""
    json.dump(document, file, indent=1)
    file.write("\n")


def plan_entry(plan: Plan, outcome: Outcome | None) -> dict[str, Any]:
    """Return the entry of ``plan``, ``patch``, ``restore`` and ``lock`` for one tree."""
    errors = {done.plan.file.path: done.error for done in outcome.failed} if outcome else {}
    count = totals(plan, outcome)
    return {
        "applied": outcome is not None,
        "tree": _tree(plan.tree),
        "target": _target(plan.target) if plan.target else None,
        "store": plan.store_dir,
        "files": [_planned_file(file, errors.get(file.file.path)) for file in plan.files],
        "texts": [
            {
                "path": text.path,
                "dist": text.info,
                "kind": text.kind.name.lower(),
                "status": "removed" if text.content is None else "changed" if text.pending else "untouched",
                "program": text.program or None,
                "uses": list(text.uses),
                "answers": dict(text.answers),
            }
            for text in plan.texts
        ],
        "optional": [_missing(missing) for missing in find_optional(plan)],
        "computed": list(plan.opened_computed),
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
            "optional": count.optional,
            "satisfied": count.satisfied,
        },
    }


def verdict_entry(verdict: Verdict, store_dir: str) -> dict[str, Any]:
    """Return the entry of ``verify`` for one tree."""
    return {
        "tree": _tree(verdict.tree),
        "target": _target(verdict.target) if verdict.target else None,
        "store": store_dir,
        "store_paths": list(store_paths_of(verdict.libraries, store_dir)),
        "findings": _findings(verdict.findings),
        "summary": {
            "patched": verdict.patched,
            "needs": verdict.needs,
            "texts": verdict.texts,
            "rows": verdict.rows,
            "loaded": verdict.loaded,
            "errors": verdict.errors,
        },
        **({"reread": asdict(verdict.reread)} if verdict.reread else {}),
    }


def missing_entry(plan: Plan, catalog: Catalog | None = None) -> dict[str, Any]:
    """Return the entry of ``missing`` for one tree."""
    every, optional = find_missing(plan, catalog), find_optional(plan, catalog)
    return {
        "tree": _tree(plan.tree),
        "missing": [_missing(missing) for missing in every],
        "build_inputs": [nix_item(attribute) for attribute in packages(every)],
        "optional": [_missing(missing) for missing in optional],
        "optional_build_inputs": [nix_item(attribute) for attribute in packages(optional)],
        "conflicts": [_conflict(conflict) for conflict in plan.conflicts],
    }


def _conflict(conflict: LoadConflict) -> dict[str, Any]:
    return {
        "soname": conflict.soname,
        "files": list(conflict.files),
        "serves": conflict.serves,
        "other": conflict.other,
        "loaded_by": conflict.loaded_by,
        "lacks": list(conflict.lacks),
        "ignored": conflict.ignored,
    }


def trace_entry(trace: Trace, why: str | None = None) -> dict[str, Any]:
    """Return the entry of ``tree`` for one file or tree; with ``why`` only the needs of that soname."""
    start = trace.start
    links = [link for link in trace.links if why is None or link.need == why]
    return {
        "root": trace.root,
        "kind": trace.tree.kind.value if trace.tree else "file",
        "process": {
            "program": start.program,
            "found_by": start.found_by,
            "loader": start.loader,
            "default_directories": list(start.known.directories),
            "cache": start.known.cache,
            "library_path": list(start.library_path),
        },
        "files": [_traced_file(path, facts) for path, facts in trace.files.items()],
        "skipped": [
            {"path": path, "reason": skip.reason.value, "detail": skip.detail}
            for path, skip in trace.skipped.items()
        ],
        "needs": [_traced_need(link) for link in links],
        "conflicts": [_conflict(conflict) for conflict in trace.conflicts if why in {None, conflict.soname}],
        "opened": [
            {**_traced_need(link), "opener": link.opener}
            for link in trace.opened
            if why is None or link.need == why
        ],
        "summary": {
            "files": len(trace.asked),
            "needs": len(links),
            "not_found": sum(link.path is None for link in links),
        },
    }


def manylinux_entry(claim: Claim, promises: Sequence[Promise]) -> dict[str, Any]:
    """Return the entry of ``manylinux status``."""
    return {
        "tree": _tree(claim.tree),
        "target": _target(claim.target),
        "tags": list(claim.tags),
        "modules": [
            {
                "path": switch.path,
                "place": switch.entry.label,
                "maker": switch.maker.name.lower(),
                "mode": switch.mode or None,
                "attributes": dict(switch.answers.attributes),
                "function": switch.answers.function is not None,
                "computed": switch.answers.computed or None,
            }
            for switch in claim.switches
        ],
        "policies": [
            {
                "name": promise.policy.name,
                "alias": promise.policy.alias or None,
                "source": promise.policy.source,
                "claimed": promise.claimed,
                "kept": promise.kept,
                "broken": list(promise.broken),
            }
            for promise in promises
        ],
    }


def difference_object(difference: Difference, before: str, after: str) -> dict[str, Any]:
    """Return the ``diff`` object; ``before`` and ``after`` are the compared files."""
    return {
        "kind": difference.kind,
        "before": before,
        "after": after,
        "same": difference.same,
        "target": [_field_change(change) for change in difference.target],
        "libraries": [
            {
                "soname": change.soname,
                "before": change.before,
                "after": change.after,
                "package_before": package_of(change.before),
                "package_after": package_of(change.after),
                "users": change.users,
            }
            for change in difference.libraries
        ],
        "files": [
            {"path": path, "changes": [_field_change(change) for change in changes]}
            for path, changes in difference.files
        ],
        "findings": [
            {"gained": gained, "path": path, "text": text}
            for gained, findings in ((True, difference.gained), (False, difference.lost))
            for path, text in findings
        ],
    }


def lock_object(lock: Lockfile, path: str, *, changed: bool) -> dict[str, Any]:
    """Return the ``lock`` object."""
    return {
        "path": path,
        "changed": changed,
        "machine": lock.machine,
        "loader": lock.loader,
        "libc": {"name": lock.libc.value, "version": list(lock.libc_version)},
        "libraries": [{"soname": soname, **entry(library)} for soname, library in lock.libraries.items()],
    }


def _tree(tree: Tree) -> dict[str, Any]:
    return {"root": tree.root, "prefix": tree.prefix, "kind": tree.kind.value}


def _target(target: Target) -> dict[str, Any]:
    return {
        "python": target.python,
        "found_by": target.found_by,
        "version": list(target.version) if target.version else None,
        "machine": target.machine.name,
        "loader": target.loader,
        "libc": target.libc.value,
        "libc_version": list(target.libc_version),
    }


def _planned_file(file: FilePlan, error: str | None) -> dict[str, Any]:
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
                "opener": answer.opener,
            }
            for answer in file.answers
        ],
        "dropped": [{"entry": drop.entry, "why": drop.why} for drop in file.dropped],
        "stops": list(file.stops),
    }


def _grafts(plan: Plan) -> dict[str, Any]:
    if not plan.vendored:
        return {}
    return {
        "grafts": [
            {
                "path": graft.file.path,
                "library": graft.unmangled,
                "unvendored": graft.goes,
                "bytes": graft.file.size,
                "users": list(graft.users),
                "soname": graft.soname,
                "provider": f"{graft.provider.directory}/{graft.provider.name}" if graft.provider else None,
                "version": graft.version,
                "new_version": graft.new_version,
                "kept": list(graft.kept),
            }
            for graft in plan.vendored
        ],
        "duplicates": [{"library": name, "paths": list(paths)} for name, paths in duplicates(plan)],
    }


def _linkage(linkage: Linkage) -> dict[str, Any]:
    return {
        "search_path": linkage.search_path,
        "tag": linkage.tag.value if linkage.tag else None,
        "interpreter": linkage.interp,
        "resolution_cache": dict(linkage.resolution_cache),
    }


def _findings(findings: Iterable[Finding]) -> list[dict[str, str]]:
    return [
        {"severity": finding.severity, "path": finding.path, "text": finding.text} for finding in findings
    ]


def _missing(missing: Missing) -> dict[str, Any]:
    return {
        "soname": missing.soname,
        "dists": list(missing.dists),
        "files": list(missing.files),
        "stops": list(missing.stops),
        "provided_by": _attribute(missing.attribute) if missing.attribute else None,
        "alternatives": [_attribute(attribute) for attribute in missing.alternatives],
        "near": [{"soname": near.soname, **_attribute(near.attribute)} for near in missing.near],
    }


def _attribute(attribute: Attribute) -> dict[str, str | None]:
    return {
        "kind": attribute.kind.name.lower(),
        "attribute": attribute.attribute or None,
        "output": attribute.output or None,
        "expression": attribute.expression or None,
        "note": attribute.note,
    }


def _traced_file(path: str, facts: ElfFacts) -> dict[str, Any]:
    return {
        "path": path,
        "soname": facts.soname,
        "machine": facts.machine.name,
        **_linkage(facts.current),
        "patched": facts.original_sha256 is not None,
    }


def _traced_need(link: TracedNeed) -> dict[str, Any]:
    return {
        "by": link.by,
        "soname": link.need,
        "path": link.path,
        "how": link.how.name.lower() if link.how else None,
        "places": [
            {
                "how": place.how.name.lower(),
                "path": place.path,
                "of": place.of,
                "entry": place.entry,
                "why_not": place.why,
            }
            for place in link.places
        ],
    }


def _field_change(change: FieldChange) -> dict[str, str | None]:
    return {"what": change.what, "before": change.before, "after": change.after}
