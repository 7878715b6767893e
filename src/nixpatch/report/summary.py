"""Count a plan and what became of it, by dist and as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nixpatch.model import FilePlan, Origin, Outcome, Plan, SkipReason

UNOWNED = "(no dist)"


@dataclass(frozen=True, slots=True)
class Row:
    """The files of one dist."""

    name: str
    version: str
    changed: int
    untouched: int
    """right as they are"""
    skipped: int
    failed: int
    missing: tuple[str, ...]
    """sonames, sorted"""
    store_paths: tuple[str, ...]
    """names of the store paths that serve it, sorted"""


@dataclass(frozen=True, slots=True)
class Totals:
    """The whole tree."""

    files: int
    changed: int
    bytes: int
    """of the changed files"""
    untouched: int
    skipped: Mapping[SkipReason, int]
    failed: int
    missing: int
    """needs that nothing meets"""
    errors: int
    """findings that make the exit code 1"""

    @property
    def satisfied(self) -> bool:
        """Whether nothing remains to be done by a person."""
        return not (self.failed or self.missing or self.errors)


def rows(plan: Plan, outcome: Outcome | None) -> tuple[Row, ...]:
    """Return one row for each dist with ELF files, and one for files that no dist claims, sorted by name."""
    names = {dist.info: (dist.name, dist.version) for dist in plan.tree.dists}
    groups: dict[tuple[str, str], list[FilePlan]] = {}
    for file in plan.files:
        key = names.get(next(iter(file.file.owners), ""), (UNOWNED, ""))
        groups.setdefault(key, []).append(file)
    failed = _failed(outcome)
    return tuple(
        Row(
            name,
            version,
            changed=sum(file.edit is not None and file.file.path not in failed for file in files),
            untouched=sum(_right(file) for file in files),
            skipped=sum(file.skip is not None for file in files),
            failed=sum(file.file.path in failed for file in files),
            missing=tuple(sorted({answer.need for file in files for answer in file.missing})),
            store_paths=_store_names(plan, files),
        )
        for (name, version), files in sorted(groups.items())
    )


def totals(plan: Plan, outcome: Outcome | None) -> Totals:
    """Count the whole tree."""
    failed = _failed(outcome)
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
        untouched=sum(_right(file) for file in plan.files),
        skipped=skipped,
        failed=len(failed),
        missing=sum(len(file.missing) for file in plan.files),
        errors=sum(finding.severity == "error" for finding in findings),
    )


def _right(file: FilePlan) -> bool:
    return file.edit is None and file.skip is None and not file.missing


def _failed(outcome: Outcome | None) -> frozenset[str]:
    return frozenset(done.plan.file.path for done in outcome.failed) if outcome else frozenset()


def _store_names(plan: Plan, files: Iterable[FilePlan]) -> tuple[str, ...]:
    prefix = plan.store_dir.rstrip("/") + "/"
    own = plan.tree.prefix.rstrip("/") + "/"
    found = {
        answer.path.removeprefix(prefix).partition("/")[0].partition("-")[2]
        for file in files
        for answer in file.answers
        if answer.origin in {Origin.STORE, Origin.OWN_PATH}
        and answer.path is not None
        and answer.path.startswith(prefix)
        and not answer.path.startswith(own)  # $out is in the store, too
    }
    return tuple(sorted(found))


def missing_by_soname(plan: Plan) -> dict[str, list[str]]:
    """Return, for each soname that nothing provides, the files that need it."""
    found: dict[str, list[str]] = {}
    for file in plan.files:
        for answer in file.missing:
            found.setdefault(answer.need, []).append(file.file.path)
    return dict(sorted(found.items()))


def considered(plan: Plan, soname: str) -> tuple[str, ...]:
    """Return where the first file that misses a soname looked for it."""
    for file in plan.files:
        for answer in file.missing:
            if answer.need == soname:
                return answer.considered
    return ()
