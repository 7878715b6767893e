"""The edit of one file, in this process or another: hash, write, check, rename. Errors are values."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from nixpatch import elf
from nixpatch.elf.inplace_writer import Digests
from nixpatch.elf.writer import write_checked
from nixpatch.errors import FileRefused
from nixpatch.fs import Identity, granted_to_contents, identity, open_regular, replacement
from nixpatch.installed.hashing import DEFAULT_ALGORITHM, Hashing, has_sha256, hash_file
from nixpatch.model import ElfEdit, FileHash, Linkage, Skip, Writer

PARALLEL_FROM = 48 << 20
"""bytes; starting a second process takes about 20 ms, and less work than this is done sooner by one"""

_NOT_ORIGINAL = (
    "what its undo record gives is not the original: another tool changed the file after the patch; "
    "install the dist again"
)


@dataclass(frozen=True, slots=True)
class Job:
    """The work on one file, small enough to hand to another process."""

    path: str
    edit: ElfEdit | None
    """None: only the digests are wanted"""
    original_sha256: bytes | None
    algorithms: frozenset[str]
    writer: Writer = Writer.INPLACE
    durable: bool = False
    no_original: str | None = None
    """``sha256=<hex>`` of LIEF's output, if an earlier run had LIEF write the file"""
    foreign: bool = False
    """ignore the undo record of the file"""
    planned: Linkage | None = None
    """the linkage after the edit"""
    identity: Identity = ()
    """identity of the file when the plan was made; () accepts any"""
    is_link: bool = False
    """it is a link to a file outside the tree, whose contents are edited into a file in its place"""


@dataclass(frozen=True, slots=True)
class JobResult:
    """The result of a job; ``error`` or both hashes."""

    before: FileHash | None
    after: FileHash | None
    error: str | None = None
    writer: Writer = Writer.INPLACE
    declined: str | None = None
    dropped: tuple[str, ...] = ()
    """privileges and signatures of the old contents that the new file does not have"""
    original: FileHash | None = None
    """of a file that was patched before, if it is not that of ``before`` or ``after``"""


@contextlib.contextmanager
def run_jobs(jobs: Sequence[Job], workers: int) -> Iterator[Iterator[JobResult]]:
    """Run all jobs, in this process or in several; yield an iterator of the results in job order."""
    sizes = list(map(_size, jobs))
    workers = worker_count(workers, sum(sizes))
    if workers == 1 or len(jobs) < 2:
        yield map(run_job, jobs)
        return
    from nixpatch.operations.worker_pool import batches, run_in_pool  # noqa: PLC0415 - 20 ms that a small run can save

    order = list(batches(sizes, workers))
    positions = {
        index: (number, position)
        for number, batch in enumerate(order)
        for position, index in enumerate(batch)
    }
    work = [[jobs[index] for index in batch] for batch in order]
    with run_in_pool(_run_batch, work, min(workers, len(jobs)), list[JobResult]) as results:
        yield _in_job_order(results, positions, len(jobs))


def _in_job_order(
    results: Iterator[list[JobResult]], positions: Mapping[int, tuple[int, int]], count: int
) -> Iterator[JobResult]:
    """Yield batch results in job order, each as soon as its batch is done."""
    done: list[list[JobResult]] = []
    for number, position in (positions[index] for index in range(count)):
        while len(done) <= number:
            done.append(next(results))
        yield done[number][position] if done[number] else _lost()


def worker_count(asked: int, size: int) -> int:
    """Return the number of processes for work on so many bytes; 0 asks for one per core if it is large."""
    return asked or (len(os.sched_getaffinity(0)) if size >= PARALLEL_FROM else 1)


def _size(job: Job) -> int:
    try:
        return os.lstat(job.path).st_size
    except OSError:
        return 0


def _lost() -> JobResult:
    text = "the process that worked on it died (was it killed, or out of memory?): the file is whole"
    return JobResult(None, None, f"{text}; run nixpatch again")


def _run_batch(jobs: Sequence[Job]) -> list[JobResult]:
    return [run_job(job) for job in jobs]


def run_job(job: Job) -> JobResult:
    """Run one job; errors are values."""
    try:
        return _run(job)
    except FileRefused as error:
        return JobResult(None, None, str(error))
    except FileNotFoundError:
        return JobResult(None, None, "vanished during the run: something else is at work in this tree")
    except MemoryError:
        return JobResult(None, None, "not enough memory: the file is as it was; run nixpatch again")
    except OSError as error:
        return JobResult(None, None, f"{error.strerror or error}: the file is as it was")


def _run(job: Job) -> JobResult:
    source = open_regular(os.path.realpath(job.path) if job.is_link else job.path)
    try:
        status = os.fstat(source)
        now = identity(status)
        if job.identity not in {(), now}:
            if (done := _done_before(job, source)) is not None:
                return done
            # The edit was planned for other contents, and so was the digest of the original.
            raise FileRefused(
                "changed during the run, and not by nixpatch: it is left so; run nixpatch again"
            )
        if job.edit is None:
            return JobResult(_hash_original(job, source), hash_file(source, job.algorithms))
        if job.no_original is not None and has_sha256(source, job.no_original):
            # LIEF corrupts its own output (its issue 1366), and an undo record made now would lead back to
            # that.
            raise FileRefused(
                "LIEF wrote it in an earlier run, so its original is not at hand: install the dist again, "
                "then patch it"
            )
        expected, mode = now, None
        if job.is_link:
            # The new file takes the bits of the contents: those of a link mean nothing.
            expected, mode = identity(os.lstat(job.path)), stat.S_IMODE(status.st_mode) & 0o777
        with replacement(job.path, durable=job.durable, expected=expected, mode=mode) as temp:
            return replace(_write(job, job.edit, source, temp), dropped=granted_to_contents(source))
    finally:
        os.close(source)


def _done_before(job: Job, source: int) -> JobResult | None:
    """Return the result if the file has the planned edit already: its plan is carried out again."""
    facts = elf.read(job.path)
    if job.edit is None or isinstance(facts, Skip) or facts.stale_undo or facts.original_sha256 is None:
        return None
    if facts.current != job.planned or job.original_sha256 not in {None, facts.original_sha256}:
        return None
    patched = replace(job, original_sha256=facts.original_sha256)
    return JobResult(_hash_original(patched, source), hash_file(source, job.algorithms))


def _hash_original(job: Job, source: int) -> FileHash:
    """Return the digests of the original, computed from the bytes of a file that is patched already.

    RECORD may get the digest of the file as it is only if the digest in its undo record still holds.

    Raises:
        FileRefused: another program changed the file after the patch.

    """
    if job.original_sha256 is None:
        return hash_file(source, job.algorithms)
    hashing = Hashing(job.algorithms)
    elf.feed_original(source, hashing.update)
    if hashing.sha256() != job.original_sha256:
        raise FileRefused(_NOT_ORIGINAL)
    return hashing.result()


def _write(job: Job, edit: ElfEdit, source: int, temp: int) -> JobResult:
    """Write the edited file and hash both, in one reading if the writer can do that."""
    digests = Digests(old := Hashing(job.algorithms), new := Hashing(job.algorithms))
    written = write_checked(source, temp, edit, job.original_sha256, job.writer, digests, foreign=job.foreign)
    if written.result.digested:
        before, after = old.result(), new.result()
    else:
        before, after = hash_file(source, job.algorithms), hash_file(temp, job.algorithms)
    # A patched file is edited from its original, whose digest is in the undo record.
    if not written.result.changed and after.digests[DEFAULT_ALGORITHM] != written.result.original_sha256:
        raise FileRefused(_NOT_ORIGINAL)
    patched_before = written.result.changed and job.original_sha256 is not None
    original = _hash_original(job, source) if patched_before else None
    return JobResult(before, after, None, written.writer, written.declined, original=original)
