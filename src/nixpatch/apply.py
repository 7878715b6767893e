"""Carry a plan out: every file is at every moment either the old one or a verified new one.

Order per dist: its ELF files, ``nixpatch.json``, RECORD last. A run that is killed leaves whole files; the
next one finishes the job and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from nixpatch import __version__, elf
from nixpatch.elf import Writer
from nixpatch.environment.digests import FileHash, hash_file
from nixpatch.environment.provenance import PatchedFile
from nixpatch.environment.regular import open_regular
from nixpatch.errors import FileRefused, MachineError
from nixpatch.files import lock, replacement
from nixpatch.model import Answer, ElfEdit, FilePlan, Finding, Origin, Plan
from nixpatch.recording import Change, Ledger, algorithms, ledger, original_hash, without_undo, write_down

TOOL = f"nixpatch {__version__}"

# Starting a second process costs about 20 ms; below this many bytes one process is done sooner.
_PARALLEL_FROM = 48 << 20


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one file of the plan."""

    plan: FilePlan
    before: FileHash | None = None
    after: FileHash | None = None
    error: str | None = None
    """why the file is still as it was"""
    writer: Writer = Writer.INPLACE
    declined: str | None = None
    """why the in-place edit would not, where LIEF wrote in its stead"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a plan."""

    plan: Plan
    files: tuple[FileOutcome, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def failed(self) -> tuple[FileOutcome, ...]:
        """The files that should have been changed and were not."""
        return tuple(file for file in self.files if file.error is not None)


@dataclass(frozen=True, slots=True)
class Job:
    """One file's work, small enough to hand to another process."""

    path: str
    edit: ElfEdit | None
    """None: the file is right, only its digests are wanted"""
    original_sha256: bytes | None
    algorithms: frozenset[str]
    writer: Writer = Writer.INPLACE
    no_original: str | None = None
    """``sha256=<hex>`` of the file as LIEF left it, if an earlier run had LIEF write it"""


@dataclass(frozen=True, slots=True)
class Done:
    """A finished job."""

    before: FileHash | None
    after: FileHash | None
    error: str | None = None
    writer: Writer = Writer.INPLACE
    declined: str | None = None


def apply(
    plan: Plan,
    *,
    accept_modified: bool = False,
    workers: int = 0,
    writer: Writer = Writer.INPLACE,
    progress: Callable[[FileOutcome], None] = lambda _: None,
    waiting: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Edit the files of the plan and record what was done.

    ``workers`` is the number of processes; 0 means one per core for large work. ``progress`` is called
    after each file, ``waiting`` if another run holds the tree.

    Raises:
        MachineError: a directory cannot be written. Found out before anything is changed.

    """
    groups = _by_owners(plan)
    if not groups and not plan.tree.leftovers:
        return Outcome(plan, ())
    _check_writable(plan, groups)
    findings: list[Finding] = []
    outcomes: list[FileOutcome] = []
    with lock(plan.tree.root, waiting):
        for leftover in plan.tree.leftovers:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)
            findings.append(Finding("note", leftover, "left by a run that was killed: removed"))
        jobs = [
            _job(file, wanted, writer, lief.get(file.file.path))
            for owners, files in groups.items()
            for wanted in [_algorithms(plan, owners, files)]
            for lief in [_written_by_lief(plan, owners)]
            for file in files
        ]
        with _runner(jobs, workers) as results:
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
                    findings += _record(plan, info, group, accept_modified=accept_modified)
    return Outcome(plan, tuple(outcomes), (*findings, *_told_of_lief(plan, outcomes)))


def _by_owners(plan: Plan) -> Mapping[tuple[str, ...], list[FilePlan]]:
    """Group what is to be done by the dists that claim it, so that each is recorded as soon as it can be."""
    groups: dict[tuple[str, ...], list[FilePlan]] = {}
    for file in plan.files:
        if file.edit is not None or file.unrecorded:
            groups.setdefault(file.file.owners, []).append(file)
    return dict(sorted(groups.items()))


def _check_writable(plan: Plan, groups: Mapping[tuple[str, ...], Sequence[FilePlan]]) -> None:
    """Test for errors first, so as not to get half-way through."""
    directories = {os.path.dirname(file.file.path) for files in groups.values() for file in files}
    directories.update(info for owners in groups for info in owners)
    directories.update(plan.tree.root for owners in groups if not owners)
    for directory in sorted(directories):
        if not os.access(directory, os.W_OK | os.X_OK):
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


def _job(file: FilePlan, wanted: frozenset[str], writer: Writer, no_original: str | None) -> Job:
    assert file.facts is not None
    return Job(file.file.path, file.edit, file.facts.original_sha256, wanted, writer, no_original)


def _told_of_lief(plan: Plan, outcomes: Sequence[FileOutcome]) -> Iterator[Finding]:
    by_lief = [done for done in outcomes if done.writer is Writer.LIEF and done.error is None]
    for done in by_lief:
        if done.declined is not None:
            yield Finding("note", done.plan.file.path, f"written by LIEF, not in place: {done.declined}")
    if by_lief:
        text = "hold no undo record: to take the patch back, install their dists again"
        yield Finding("note", plan.tree.root, f"{len(by_lief)} files were written by LIEF and {text}")


@contextlib.contextmanager
def _runner(jobs: Sequence[Job], workers: int) -> Iterator[Iterator[Done]]:
    total = sum(os.lstat(job.path).st_size for job in jobs if os.path.lexists(job.path))
    workers = workers or (len(os.sched_getaffinity(0)) if total >= _PARALLEL_FROM else 1)
    if workers == 1 or len(jobs) < 2:
        yield map(carry_out, jobs)
        return
    # Processes, not threads: hashing lets go of the interpreter lock, the headers' work does not. Forked
    # before any thread exists, so that nothing is inherited half-way.
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_ignore_interrupt)
    with pool:
        try:
            yield pool.map(carry_out, jobs)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _ignore_interrupt() -> None:
    """Let a worker finish the file in hand: Ctrl-C reaches the whole process group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def carry_out(job: Job) -> Done:
    """Do one job; trouble is a value."""
    try:
        return _carry_out(job)
    except FileRefused as error:
        return Done(None, None, str(error))
    except OSError as error:
        return Done(None, None, f"{error.strerror or error}: the file is as it was")


def _carry_out(job: Job) -> Done:
    source = open_regular(job.path)
    try:
        before = hash_file(source, job.algorithms)
        if job.edit is None:
            original = job.original_sha256 or before.digests["sha256"]
            return Done(original_hash(original), before)
        if job.no_original == f"sha256={before.digests['sha256'].hex()}":
            # LIEF corrupts what it has written before (its issue 1366), and an undo record made now would
            # lead back to LIEF's output and call it the original.
            raise FileRefused(
                "LIEF wrote it in an earlier run, so its original is not at hand: install the dist again, "
                "then patch it"
            )
        # A patched file is edited from its original, which its undo record has the digest of.
        original = job.original_sha256 or before.digests["sha256"]
        with replacement(job.path) as temp:
            written = elf.write_checked(source, temp, job.edit, original, job.writer)
            after = hash_file(temp, job.algorithms)
            if not written.result.changed and after.digests["sha256"] != original:
                raise FileRefused(
                    "what its undo record gives is not the original: another tool changed the file after the "
                    "patch; install the dist again"
                )
        return Done(before, after, None, written.writer, written.declined)
    finally:
        os.close(source)


def _record(
    plan: Plan, info: str, group: Sequence[FileOutcome], *, accept_modified: bool
) -> tuple[Finding, ...]:
    where = ledger(plan.tree, info)
    changes = {
        done.plan.file.path: Change(done.before, done.after, _entry(where, done))
        for done in group
        if done.before is not None and done.after is not None
    }
    if not changes:
        return ()
    try:
        return write_down(where, changes, tool=TOOL, accept_modified=accept_modified)
    except OSError as error:
        text = f"cannot be written ({error.strerror}): run nixpatch again to bring RECORD up to date"
        return (Finding("error", where.record or where.provenance, text),)


def _entry(where: Ledger, done: FileOutcome) -> PatchedFile | None:
    facts, wished = done.plan.facts, done.plan.wished
    assert facts is not None
    assert wished is not None
    assert done.before is not None
    assert done.after is not None
    if wished == facts.original:
        return None
    original = facts.original_sha256 or done.before.digests["sha256"]
    return PatchedFile(
        original=f"sha256={original.hex()}",
        patched=f"sha256={done.after.digests['sha256'].hex()}",
        search_path=wished.search_path,
        tag=wished.tag,
        interp=wished.interp,
        needs={answer.need: served_by(where, answer) for answer in done.plan.answers},
        writer=done.writer.value,
    )


def served_by(where: Ledger, answer: Answer) -> str:
    """Write an answer as provenance does: a store path, ``site:`` and a relative path, or a word."""
    if answer.path is None or answer.origin is Origin.LIBC:
        return answer.origin.value
    if answer.path.startswith(where.prefix.rstrip("/") + "/"):
        return f"site:{where.key(answer.path)}"
    return answer.path
