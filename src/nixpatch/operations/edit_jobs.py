"""The work on one file, in this process or in another: hash, write, check, rename. Trouble is a value."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nixpatch.elf.inplace_writer import Digests
from nixpatch.elf.writer import write_checked
from nixpatch.errors import FileRefused
from nixpatch.fs import Identity, identity, open_regular, replacement
from nixpatch.installed.dist_records import original_hash
from nixpatch.installed.hashing import Hashing, has_sha256, hash_file
from nixpatch.model import ElfEdit, FileHash, Writer

PARALLEL_FROM = 48 << 20
"""bytes; starting a second process costs about 20 ms: below this one process is done sooner"""

# A file is large if it has more than this part of what one worker has to do.
_LARGE = 16

# What is handed to a worker at once: handing over takes as long as copying some hundred kB.
_SHARE = 4 << 20
_FILES = 32


@dataclass(frozen=True, slots=True)
class Job:
    """One file's work, small enough to hand to another process."""

    path: str
    edit: ElfEdit | None
    """None: the file is right, only its digests are wanted"""
    original_sha256: bytes | None
    algorithms: frozenset[str]
    writer: Writer = Writer.INPLACE
    durable: bool = False
    no_original: str | None = None
    """``sha256=<hex>`` of the file as LIEF left it, if an earlier run had LIEF write it"""
    identity: Identity = ()
    """what the file was told by when the plan was made; () takes whatever is there"""


@dataclass(frozen=True, slots=True)
class Done:
    """A finished job."""

    before: FileHash | None
    after: FileHash | None
    error: str | None = None
    writer: Writer = Writer.INPLACE
    declined: str | None = None


@contextlib.contextmanager
def run_jobs(jobs: Sequence[Job], workers: int) -> Iterator[Iterator[Done]]:
    """Do all jobs, in this process or in several; yields the results in their order, as they come."""
    sizes = list(map(_size, jobs))
    workers = workers or (len(os.sched_getaffinity(0)) if sum(sizes) >= PARALLEL_FROM else 1)
    if workers == 1 or len(jobs) < 2:
        yield map(carry_out, jobs)
        return
    from nixpatch.operations.worker_pool import shared_out  # noqa: PLC0415 - 20 ms that a small run need not spend

    order = list(shares(sizes, workers))
    places = {index: (number, at) for number, share in enumerate(order) for at, index in enumerate(share)}
    work = [[jobs[index] for index in share] for share in order]
    with shared_out(_carry_out_all, work, min(workers, len(jobs)), _none) as results:
        yield _in_order(results, places, len(jobs))


def _in_order(
    results: Iterator[list[Done]], places: Mapping[int, tuple[int, int]], count: int
) -> Iterator[Done]:
    """Put what the shares came to back into the order of the jobs, waiting for no share before its turn."""
    come: list[list[Done]] = []
    for number, at in (places[index] for index in range(count)):
        while len(come) <= number:
            come.append(next(results))
        yield come[number][at] if come[number] else _lost()


def shares(sizes: Sequence[int], workers: int, least: int = _SHARE) -> Iterator[list[int]]:
    """Yield the indexes of all jobs in the order to start them, small ones together up to ``least`` bytes.

    A large file begun last would keep one worker busy while the others have nothing left to do, so the large
    ones go first, the largest before all. The rest stays in order: a dist is recorded when its last file is
    done, and a run that is killed should leave few of them begun.
    """
    large = max(sum(sizes) // (workers * _LARGE), least)
    ahead = sorted((index for index, size in enumerate(sizes) if size > large), key=lambda i: (-sizes[i], i))
    yield from ([index] for index in ahead)
    share: list[int] = []
    taken = 0
    for index, size in enumerate(sizes):
        if size > large:
            continue
        share.append(index)
        taken += size
        if taken >= least or len(share) == _FILES:
            yield share
            share, taken = [], 0
    if share:
        yield share


def _size(job: Job) -> int:
    try:
        return os.lstat(job.path).st_size
    except OSError:
        return 0


def _lost() -> Done:
    text = "the process that worked on it died (was it killed, or out of memory?): the file is whole"
    return Done(None, None, f"{text}; run nixpatch again")


def _none() -> list[Done]:
    return []


def _carry_out_all(jobs: Sequence[Job]) -> list[Done]:
    return [carry_out(job) for job in jobs]


def carry_out(job: Job) -> Done:
    """Do one job; trouble is a value."""
    try:
        return _carry_out(job)
    except FileRefused as error:
        return Done(None, None, str(error))
    except FileNotFoundError:
        return Done(None, None, "vanished during the run: something else is at work in this tree")
    except OSError as error:
        return Done(None, None, f"{error.strerror or error}: the file is as it was")


def _carry_out(job: Job) -> Done:
    source = open_regular(job.path)
    try:
        found = identity(os.fstat(source))
        if job.identity not in {(), found}:
            # The edit was planned for other contents, and what was known of the original is wrong by now.
            raise FileRefused(
                "changed during the run, and not by nixpatch: it is left so; run nixpatch again"
            )
        if job.edit is None:
            before = hash_file(source, job.algorithms)
            return Done(original_hash(job.original_sha256 or before.digests["sha256"]), before)
        _must_have_original(job, source)
        with replacement(job.path, durable=job.durable, expected=found) as temp:
            return _edited(job, job.edit, source, temp)
    finally:
        os.close(source)


def _must_have_original(job: Job, source: int) -> None:
    if job.no_original is None or not has_sha256(source, job.no_original):
        return
    # LIEF corrupts what it has written before (its issue 1366), and an undo record made now would lead back
    # to LIEF's output and call it the original.
    raise FileRefused(
        "LIEF wrote it in an earlier run, so its original is not at hand: install the dist again, "
        "then patch it"
    )


def _edited(job: Job, edit: ElfEdit, source: int, temp: int) -> Done:
    """Write the edited file and digest both, in one reading where the writer can do that."""
    digests = Digests(old := Hashing(job.algorithms), new := Hashing(job.algorithms))
    written = write_checked(source, temp, edit, job.original_sha256, job.writer, digests)
    if written.result.digested:
        before, after = old.result(), new.result()
    else:
        before, after = hash_file(source, job.algorithms), hash_file(temp, job.algorithms)
    # A patched file is edited from its original, which its undo record has the digest of.
    if not written.result.changed and after.digests["sha256"] != written.result.original_sha256:
        raise FileRefused(
            "what its undo record gives is not the original: another tool changed the file after the patch; "
            "install the dist again"
        )
    return Done(before, after, None, written.writer, written.declined)
