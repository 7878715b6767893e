"""Count a plan or its outcome: by dist, and for the whole tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nixpatch.model import FilePlan, Origin, Outcome, Plan, SkipReason
from nixpatch.model.summary import UNOWNED, DistTotals, Totals


def dist_totals(plan: Plan, outcome: Outcome | None) -> tuple[DistTotals, ...]:
    """Count each dist with ELF files, sorted by name; files of no dist count together."""
    names = {dist.info: (dist.name, dist.version) for dist in plan.tree.dists}
    groups: dict[tuple[str, str], list[FilePlan]] = {}
    for file in plan.files:
        key = names.get(next(iter(file.file.owners), ""), (UNOWNED, ""))
        groups.setdefault(key, []).append(file)
    failed = _failed_paths(outcome)
    return tuple(
        DistTotals(
            name,
            version,
            changed=sum(file.edit is not None and file.file.path not in failed for file in files),
            untouched=sum(_needs_no_change(file) for file in files),
            skipped=sum(file.skip is not None for file in files),
            failed=sum(file.file.path in failed for file in files),
            missing=tuple(sorted({answer.need for file in files for answer in file.blocking})),
            store_paths=_store_path_names(plan, files),
        )
        for (name, version), files in sorted(groups.items())
    )


def totals(plan: Plan, outcome: Outcome | None) -> Totals:
    """Count the whole tree."""
    failed = _failed_paths(outcome)
    changed = [file for file in plan.changes if file.file.path not in failed]
    skipped: dict[SkipReason, int] = {}
    for file in plan.files:
        if file.skip is not None:
            skipped[file.skip.reason] = skipped.get(file.skip.reason, 0) + 1
    findings = (*plan.findings, *(outcome.findings if outcome else ()))
    return Totals(
        files=len(plan.files),
        changed=len(changed),
        bytes=sum(file.file.size for file in changed),
        untouched=sum(_needs_no_change(file) for file in plan.files),
        skipped=skipped,
        failed=len(failed),
        missing=sum(len(file.blocking) for file in plan.files),
        optional=sum(len(file.dispensable) for file in plan.files),
        errors=sum(finding.severity == "error" for finding in findings),
    )


def duplicates(plan: Plan) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each library that the tree has several copies of: kept bundled ones, and the store's."""
    copies: dict[str, set[str]] = {}
    for graft in plan.vendored:
        if not graft.goes:
            copies.setdefault(graft.unmangled.partition(".so")[0], set()).add(graft.file.path)
    for file in plan.files:
        for answer in file.answers:
            if answer.origin is Origin.STORE and answer.path is not None:
                stem = answer.need.partition(".so")[0]
                if stem in copies:
                    copies[stem].add(answer.path)
    for stem, paths in sorted(copies.items()):
        if len(paths) > 1:
            yield stem, tuple(sorted(paths))


def _needs_no_change(file: FilePlan) -> bool:
    return file.edit is None and file.skip is None and not file.blocking


def _failed_paths(outcome: Outcome | None) -> frozenset[str]:
    return frozenset(done.plan.file.path for done in outcome.failed) if outcome else frozenset()


def _store_path_names(plan: Plan, files: Iterable[FilePlan]) -> tuple[str, ...]:
    store = plan.store_dir.rstrip("/") + "/"
    prefix = plan.tree.prefix.rstrip("/") + "/"
    names = {
        answer.path.removeprefix(store).partition("/")[0].partition("-")[2]
        for file in files
        for answer in file.answers
        if answer.origin in {Origin.STORE, Origin.OWN_PATH}
        and answer.path is not None
        and answer.path.startswith(store)
        and not answer.path.startswith(prefix)  # a build's $out is in the store, too
    }
    return tuple(sorted(names))
