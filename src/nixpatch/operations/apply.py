"""Carry out a plan: each file is at every moment the old one or a verified new one.

Order per dist: its ELF files, RECORD, ``nixpatch.json`` last (see ``record_update``). A killed run leaves
whole files; the next one finishes it and ends with the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from nixpatch.errors import FileRefused, MachineError
from nixpatch.escape import reason
from nixpatch.fs import remove_directory, remove_leftover
from nixpatch.installed.dist_records import DistRecords, TreeRecords
from nixpatch.installed.hashing import DEFAULT_ALGORITHM, format_sha256
from nixpatch.installed.provenance import PatchedFile
from nixpatch.model import (
    FileHash,
    FileOutcome,
    FilePlan,
    Finding,
    Outcome,
    Plan,
    TextPlan,
    VendoredPlan,
    Writer,
)
from nixpatch.operations.edit_jobs import Job, run_jobs
from nixpatch.operations.patch_options import ApplyOptions
from nixpatch.operations.record_update import UnrecordedChange, clear_stale, relink, update_records
from nixpatch.operations.resume import ruled_needs
from nixpatch.operations.signatures import text_of_dropped
from nixpatch.operations.text_update import update_texts
from nixpatch.resolve.search_path import inside
from nixpatch.unvendor import apply as unvendor_apply
from nixpatch.version import __version__

_DEFAULTS = ApplyOptions()

TOOL = f"nixpatch {__version__}"


def apply(
    plan: Plan,
    options: ApplyOptions = _DEFAULTS,
    *,
    records: TreeRecords | None = None,
    progress: Callable[[FileOutcome], None] = lambda _: None,
) -> Outcome:
    """Edit the files of a plan and record the changes.

    The caller holds the tree (``tree_lock``): from before the plan, so that no other run changes it in
    between.

    Args:
        plan: what to do.
        options: how to do it.
        records: RECORDs and provenance as the plan read them; None reads them again.
        progress: called after each file.

    Raises:
        MachineError: a directory cannot be written; no installed file was changed then.

    """
    groups = _by_owners(plan)
    regrafted = _dists_with_grafts(plan)
    texts: dict[str, list[TextPlan]] = {}
    for planned in plan.texts:
        if planned.pending:
            texts.setdefault(planned.info, []).append(planned)
    if not (groups or plan.tree.leftovers or regrafted or texts or plan.stale):
        return Outcome(plan, ())
    records = records or TreeRecords()
    _check_writable(plan, groups, (*regrafted, *texts))
    findings = list(_remove_leftovers(plan.tree.leftovers))
    for info in plan.returning:
        try:
            unvendor_apply.bring_back(records.of(plan.tree, info), durable=options.fsync)
        except (
            OSError,
            FileRefused,
        ) as error:  # before their users: those would need libraries that do not exist
            text = f"its grafted libraries cannot be brought back ({reason(error)}); mend this"
            raise MachineError(f"{info}: {text} and run nixpatch again") from error
    jobs: list[Job] = []
    for owners, files in groups.items():
        of_owners = [records.of(plan.tree, info) for info in owners or ("",)]
        algorithms = frozenset[str]().union(
            *(dist.algorithms([file.file.path for file in files]) for dist in of_owners)
        )
        by_lief = {path: digest for dist in of_owners for path, digest in dist.written_by_lief().items()}
        jobs += (_job(file, algorithms, options, by_lief.get(file.file.path)) for file in files)
    outcomes: list[FileOutcome] = []
    unrecorded: set[str] = set()
    # Dists may share files: each is recorded once, as soon as the last of its files is done.
    last = {info: owners for owners in groups for info in owners or ("",)}
    pending: dict[str, list[FileOutcome]] = {info: [] for info in last}
    with run_jobs(jobs, options.jobs) as results:
        for owners, files in groups.items():
            group: list[FileOutcome] = []
            for file in files:
                done = next(results)
                group.append(
                    FileOutcome(
                        file,
                        done.before,
                        done.after,
                        done.error,
                        done.writer,
                        done.declined,
                        done.dropped,
                        done.original,
                    )
                )
                progress(group[-1])
            outcomes += group
            for info in owners or ("",):
                pending[info] += group
                if last[info] == owners:
                    try:
                        findings += _record(records.of(plan.tree, info), pending[info], options)
                    except OSError as error:
                        findings.append(_not_recorded(records.of(plan.tree, info), error))
                        unrecorded.add(info)
    for info in plan.stale:
        if info not in last:
            dist = records.of(plan.tree, info)
            try:
                findings += clear_stale(dist, tool=TOOL, durable=options.fsync)
            except OSError as error:
                findings.append(_not_recorded(dist, error))
                unrecorded.add(info)
    # If RECORD was written and provenance was not, that has to show: no later step may make the two agree.
    for info, of_dist in texts.items():
        if info not in unrecorded:
            findings += _update_texts(records.of(plan.tree, info), of_dist, options)
    for info in regrafted:
        if info not in unrecorded:
            findings += _settle_grafts(plan, records.of(plan.tree, info), outcomes, options)
    return Outcome(
        plan, tuple(outcomes), (*findings, *_notes_on_files(outcomes), *_notes_on_lief(plan, outcomes))
    )


def _update_texts(dist: DistRecords, texts: Sequence[TextPlan], options: ApplyOptions) -> tuple[Finding, ...]:
    try:
        return update_texts(
            dist, texts, tool=TOOL, accept_modified=options.accept_modified, durable=options.fsync
        )
    except (OSError, FileRefused) as error:
        text = f"its start-up file or scripts cannot be written ({reason(error)}): run nixpatch again"
        return (Finding("error", dist.info, text),)


def _remove_leftovers(leftovers: Sequence[str]) -> Iterator[Finding]:
    for leftover in leftovers:
        try:
            if not remove_leftover(leftover):
                continue  # of nixpatch elf, which does not lock the tree
            remove_directory(os.path.dirname(leftover))  # an uninstall may have left it for this file alone
        except FileNotFoundError:
            continue
        except OSError as error:
            text = f"left by a run that was killed, and cannot be removed: {error.strerror}"
            yield Finding("error", leftover, text)
        else:
            yield Finding("note", leftover, "left by a run that was killed: removed")


def _by_owners(plan: Plan) -> Mapping[tuple[str, ...], list[FilePlan]]:
    """Group the files to edit or record by the dists that own them, so that each dist is recorded early."""
    groups: dict[tuple[str, ...], list[FilePlan]] = {}
    for file in plan.files:
        if file.edit is not None or file.unrecorded:
            groups.setdefault(file.file.owners, []).append(file)
    return dict(sorted(groups.items()))


def _dists_with_grafts(plan: Plan) -> tuple[str, ...]:
    """Return the dists that libraries are un-vendored from, or return to."""
    leaving = {owner for graft in plan.vendored if graft.goes for owner in graft.file.owners}
    return tuple(sorted({*leaving, *plan.unsettled, *plan.returning}))


def _settle_grafts(
    plan: Plan, dist: DistRecords, outcomes: Sequence[FileOutcome], options: ApplyOptions
) -> Iterator[Finding]:
    try:
        if plan.target is None:
            unvendor_apply.record_return(dist, tool=TOOL, durable=options.fsync)
            return
        grafts = [graft for graft in _without_users(plan, outcomes) if dist.info in graft.file.owners]
        needed = {
            os.path.realpath(answer.path)
            for file in plan.files
            for answer in file.answers
            if answer.path is not None and inside(answer.path, plan.tree.prefix)
        }
        unvendor_apply.remove_grafts(
            dist, grafts, needed, tool=TOOL, keep=plan.keeps_originals, durable=options.fsync
        )
    except (OSError, FileRefused) as error:
        text = f"its grafted libraries are not settled ({reason(error)}): run nixpatch again"
        yield Finding("error", dist.info, text)


def _without_users(plan: Plan, outcomes: Sequence[FileOutcome]) -> list[VendoredPlan]:
    """Return the grafts that no file needs any more: all of their users were linked anew."""
    stuck = {done.plan.file.path for done in outcomes if done.error is not None}
    leaving = [graft for graft in plan.vendored if graft.goes]
    while staying := [graft for graft in leaving if not stuck.isdisjoint(graft.users)]:
        stuck.update(graft.file.path for graft in staying)
        leaving = [graft for graft in leaving if graft not in staying]
    return leaving


def _check_writable(
    plan: Plan, groups: Mapping[tuple[str, ...], Sequence[FilePlan]], regrafted: Sequence[str]
) -> None:
    """Find a directory that cannot be written before anything is changed.

    Raises:
        MachineError: there is one.

    """
    directories = {os.path.dirname(file.file.path) for files in groups.values() for file in files}
    directories.update(info for owners in groups for info in owners)
    directories.update(plan.tree.prefix for owners in groups if not owners)
    directories.update(regrafted)
    directories.update(os.path.dirname(text.path) for text in plan.texts if text.pending)
    directories.update(os.path.dirname(graft.file.path) for graft in plan.vendored if graft.goes)
    for directory in sorted(directories):
        # One that vanished since the plan was made is reported with its files.
        if os.path.exists(directory) and not os.access(directory, os.W_OK | os.X_OK):
            raise MachineError(
                f"{directory}: cannot be written, so nothing was changed: "
                "make the tree writable (chmod -R u+w) or patch it where it is built"
            )


def _job(file: FilePlan, algorithms: frozenset[str], options: ApplyOptions, no_original: str | None) -> Job:
    assert file.facts is not None
    return Job(
        file.file.path,
        file.edit,
        file.facts.original_sha256,
        algorithms,
        options.writer,
        options.fsync,
        no_original,
        planned=file.after,
        foreign=file.facts.foreign_undo,
        identity=file.file.identity,
        is_link=bool(file.file.link),
    )


def _notes_on_files(outcomes: Sequence[FileOutcome]) -> Iterator[Finding]:
    for done in outcomes:
        if done.dropped:
            yield Finding("note", done.plan.file.path, text_of_dropped(done.dropped))


def _notes_on_lief(plan: Plan, outcomes: Sequence[FileOutcome]) -> Iterator[Finding]:
    by_lief = [done for done in outcomes if done.writer is Writer.LIEF and done.error is None]
    for done in by_lief:
        if done.declined is not None:
            yield Finding("note", done.plan.file.path, f"written by LIEF, not in place: {done.declined}")
    if by_lief:
        text = "hold no undo record: to take the patch back, install their dists again"
        yield Finding("note", plan.tree.root, f"{len(by_lief)} files were written by LIEF and {text}")


def _record(dist: DistRecords, group: Sequence[FileOutcome], options: ApplyOptions) -> tuple[Finding, ...]:
    changes: dict[str, UnrecordedChange] = {}
    ignored: dict[str, tuple[str, ...]] = {}
    for done in group:
        if done.before is None or done.after is None:
            continue
        path = done.plan.file.path
        entry = _provenance_entry(dist, done, done.before, done.after)
        ignored[path] = ruled_needs(done.plan)
        if entry is not None or done.plan.edit is not None or _known_entry(dist, done) is not None:
            changes[path] = UnrecordedChange(done.before, done.after, entry, done.original)
    if not ignored:
        return ()
    _relink(dist, group)
    return update_records(
        dist,
        changes,
        tool=TOOL,
        ignored=ignored,
        accept_modified=options.accept_modified,
        durable=options.fsync,
    )


def _not_recorded(dist: DistRecords, error: OSError) -> Finding:
    advice = "remove it, and run" if isinstance(error, IsADirectoryError) else "run"
    text = f"cannot be written ({error.strerror}): {advice} nixpatch again to bring it up to date"
    by_name = {os.path.basename(path): path for path in (dist.record_path, dist.provenance_path) if path}
    name = error.filename if isinstance(error.filename, str) else ""
    named = name if "/" in name else by_name.get(name)
    return Finding("error", named or dist.record_path or dist.provenance_path, text)


def _provenance_entry(
    dist: DistRecords, done: FileOutcome, before: FileHash, after: FileHash
) -> PatchedFile | None:
    """Return the provenance of a file; None if it is the original."""
    facts, linkage = done.plan.facts, done.plan.after
    assert facts is not None
    assert linkage is not None
    if linkage == facts.original:
        return None
    known = _known_entry(dist, done)
    return PatchedFile(
        original=format_sha256(facts.original_sha256 or before.digests[DEFAULT_ALGORITHM]),
        patched=format_sha256(after.digests[DEFAULT_ALGORITHM]),
        search_path=linkage.search_path,
        tag=linkage.tag,
        interp=linkage.interp,
        needs=dist.needs_of(done.plan),
        writer=done.writer.value,
        renamed=dict(linkage.renamed),
        link=done.plan.file.link or (known.link if known is not None else ""),
        resolution_cache=dict(linkage.resolution_cache),
    )


def _relink(dist: DistRecords, group: Sequence[FileOutcome]) -> None:
    """Make restored files links again, as they were installed.

    Raises:
        OSError: a link cannot be made; the file is whole.

    """
    for done in group:
        entry, facts = _known_entry(dist, done), done.plan.facts
        if entry is None or not entry.link or done.after is None or facts is None:
            continue
        if done.plan.after != facts.original:
            continue
        relink(done.plan.file.path, entry.link, entry.original)


def _known_entry(dist: DistRecords, done: FileOutcome) -> PatchedFile | None:
    """Return the provenance of a file as an earlier run wrote it."""
    known = dist.usable_provenance()
    return known.files.get(dist.key(done.plan.file.path)) if known is not None else None
