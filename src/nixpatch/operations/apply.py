"""Carry a plan out: every file is at every moment either the old one or a verified new one.

Order per dist: its ELF files, RECORD, ``nixpatch.json`` last (see ``recording``). A run that is killed leaves
whole files; the next one finishes the job and ends with the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from nixpatch import __version__
from nixpatch.errors import FileRefused, MachineError
from nixpatch.fs import lock, remove
from nixpatch.installed.dist_records import Ledger, algorithms, ledger, needs_of, without_undo
from nixpatch.installed.hashing import DEFAULT_ALGORITHM, format_sha256
from nixpatch.installed.provenance import PatchedFile
from nixpatch.model import FileOutcome, FilePlan, Finding, Manner, Outcome, Plan, VendoredPlan, Writer
from nixpatch.operations.edit_jobs import Job, run_jobs
from nixpatch.operations.record_update import Change, write_down
from nixpatch.unvendor import apply as unvendor_apply

_AS_EVER = Manner()

TOOL = f"nixpatch {__version__}"


def apply(
    plan: Plan,
    manner: Manner = _AS_EVER,
    *,
    progress: Callable[[FileOutcome], None] = lambda _: None,
    waiting: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Edit the files of the plan and record what was done.

    ``progress`` is called after each file, ``waiting`` if another run holds the tree.

    Raises:
        MachineError: a directory cannot be written. Found out before anything is changed.

    """
    groups = _by_owners(plan)
    grafted = _grafted(plan)
    if not groups and not plan.tree.leftovers and not grafted:
        return Outcome(plan, ())
    findings: list[Finding] = []
    outcomes: list[FileOutcome] = []
    with lock(plan.tree.root, waiting):
        _check_writable(plan, groups)
        findings += _clear(plan.tree.leftovers)
        for info in plan.returning:
            unvendor_apply.bring_back(ledger(plan.tree, info))
        jobs = [
            _job(file, wanted, manner, lief.get(file.file.path))
            for owners, files in groups.items()
            for wanted in [_algorithms(plan, owners, files)]
            for lief in [_written_by_lief(plan, owners)]
            for file in files
        ]
        # Dists may share files: each is recorded once, as soon as the last of its files is done.
        last = {info: owners for owners in groups for info in owners or ("",)}
        waiting_for_it: dict[str, list[FileOutcome]] = {info: [] for info in last}
        with run_jobs(jobs, manner.workers) as results:
            for owners, files in groups.items():
                group: list[FileOutcome] = []
                for file in files:
                    done = next(results)
                    group.append(
                        FileOutcome(file, done.before, done.after, done.error, done.writer, done.declined)
                    )
                    progress(group[-1])
                outcomes += group
                for info in owners or ("",):
                    waiting_for_it[info] += group
                    if last[info] == owners:
                        findings += _record(plan, info, waiting_for_it[info], manner)
        for info in grafted:
            findings += _settle(plan, info, outcomes, manner)
    return Outcome(plan, tuple(outcomes), (*findings, *_told_of_lief(plan, outcomes)))


def _clear(leftovers: Sequence[str]) -> Iterator[Finding]:
    for leftover in leftovers:
        try:
            remove(leftover)
        except OSError as error:
            text = f"left by a run that was killed, and cannot be removed: {error.strerror}"
            yield Finding("error", leftover, text)
        else:
            yield Finding("note", leftover, "left by a run that was killed: removed")


def _by_owners(plan: Plan) -> Mapping[tuple[str, ...], list[FilePlan]]:
    """Group what is to be done by the dists that claim it, so that each is recorded as soon as it can be."""
    groups: dict[tuple[str, ...], list[FilePlan]] = {}
    for file in plan.files:
        if file.edit is not None or file.unrecorded:
            groups.setdefault(file.file.owners, []).append(file)
    return dict(sorted(groups.items()))


def _grafted(plan: Plan) -> tuple[str, ...]:
    """Return the dists that grafted libraries leave or come back to."""
    leaving = {owner for graft in plan.vendored if graft.goes for owner in graft.file.owners}
    return tuple(sorted({*leaving, *plan.unsettled, *plan.returning}))


def _settle(plan: Plan, info: str, outcomes: Sequence[FileOutcome], manner: Manner) -> Iterator[Finding]:
    where = ledger(plan.tree, info)
    try:
        if plan.target is None:
            unvendor_apply.returned(where, tool=TOOL, durable=manner.durable)
            return
        mine = [graft for graft in _without_users(plan, outcomes) if info in graft.file.owners]
        needed = {
            os.path.realpath(answer.path)
            for file in plan.files
            for answer in file.answers
            if answer.path is not None and answer.path.startswith(plan.tree.prefix)
        }
        unvendor_apply.remove(where, mine, needed, tool=TOOL, keep=manner.keep_grafts, durable=manner.durable)
    except (OSError, FileRefused) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        text = f"its grafted libraries are not settled ({why}): run nixpatch again"
        yield Finding("error", info, text)


def _without_users(plan: Plan, outcomes: Sequence[FileOutcome]) -> list[VendoredPlan]:
    """Return the grafts that nobody needs any more: not those whose users could not be linked anew."""
    stuck = {done.plan.file.path for done in outcomes if done.error is not None}
    leaving = [graft for graft in plan.vendored if graft.goes]
    while left := [graft for graft in leaving if not stuck.isdisjoint(graft.users)]:
        stuck.update(graft.file.path for graft in left)
        leaving = [graft for graft in leaving if graft not in left]
    return leaving


def _check_writable(plan: Plan, groups: Mapping[tuple[str, ...], Sequence[FilePlan]]) -> None:
    """Test for errors first, so as not to get half-way through."""
    directories = {os.path.dirname(file.file.path) for files in groups.values() for file in files}
    directories.update(info for owners in groups for info in owners)
    directories.update(plan.tree.root for owners in groups if not owners)
    directories.update(_grafted(plan))
    directories.update(os.path.dirname(graft.file.path) for graft in plan.vendored if graft.goes)
    for directory in sorted(directories):
        # One that vanished since the plan was made is told with its files.
        if os.path.exists(directory) and not os.access(directory, os.W_OK | os.X_OK):
            raise MachineError(
                f"{directory}: cannot be written, so nothing was changed: "
                "make the tree writable (chmod -R u+w) or patch it where it is built"
            )


def _algorithms(plan: Plan, owners: tuple[str, ...], files: Sequence[FilePlan]) -> frozenset[str]:
    paths = [file.file.path for file in files]
    return frozenset().union(*(algorithms(ledger(plan.tree, info), paths) for info in owners or ("",)))


def _written_by_lief(plan: Plan, owners: tuple[str, ...]) -> Mapping[str, str]:
    return {
        path: left for info in owners or ("",) for path, left in without_undo(ledger(plan.tree, info)).items()
    }


def _job(file: FilePlan, wanted: frozenset[str], manner: Manner, no_original: str | None) -> Job:
    assert file.facts is not None
    original = file.facts.original_sha256
    return Job(
        file.file.path,
        file.edit,
        original,
        wanted,
        manner.writer,
        manner.durable,
        no_original,
        file.file.identity,
    )


def _told_of_lief(plan: Plan, outcomes: Sequence[FileOutcome]) -> Iterator[Finding]:
    by_lief = [done for done in outcomes if done.writer is Writer.LIEF and done.error is None]
    for done in by_lief:
        if done.declined is not None:
            yield Finding("note", done.plan.file.path, f"written by LIEF, not in place: {done.declined}")
    if by_lief:
        text = "hold no undo record: to take the patch back, install their dists again"
        yield Finding("note", plan.tree.root, f"{len(by_lief)} files were written by LIEF and {text}")


def _record(plan: Plan, info: str, group: Sequence[FileOutcome], manner: Manner) -> tuple[Finding, ...]:
    where = ledger(plan.tree, info)
    changes = {
        done.plan.file.path: Change(done.before, done.after, _entry(where, done))
        for done in group
        if done.before is not None and done.after is not None
    }
    if not changes:
        return ()
    try:
        return write_down(
            where, changes, tool=TOOL, accept_modified=manner.accept_modified, durable=manner.durable
        )
    except OSError as error:
        text = f"cannot be written ({error.strerror}): run nixpatch again to bring it up to date"
        named = error.filename if isinstance(error.filename, str) and "/" in error.filename else where.record
        return (Finding("error", named or where.provenance, text),)


def _entry(where: Ledger, done: FileOutcome) -> PatchedFile | None:
    facts, wished = done.plan.facts, done.plan.after
    assert facts is not None
    assert wished is not None
    assert done.before is not None
    assert done.after is not None
    if wished == facts.original:
        return None
    original = facts.original_sha256 or done.before.digests[DEFAULT_ALGORITHM]
    return PatchedFile(
        original=format_sha256(original),
        patched=format_sha256(done.after.digests[DEFAULT_ALGORITHM]),
        search_path=wished.search_path,
        tag=wished.tag,
        interp=wished.interp,
        needs=needs_of(where, done.plan),
        writer=done.writer.value,
        renamed=dict(wished.renamed),
    )
