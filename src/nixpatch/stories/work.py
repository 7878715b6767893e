"""The work on one file, in this process or in another: hash, write, check, rename. Trouble is a value."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from nixpatch import elf
from nixpatch.elf import Writer
from nixpatch.environment.digests import FileHash, hash_file
from nixpatch.environment.regular import open_regular
from nixpatch.errors import FileRefused
from nixpatch.files import Identity, identity, replacement
from nixpatch.model import ElfEdit
from nixpatch.stories.recording import original_hash

# Starting a second process costs about 20 ms; below this many bytes one process is done sooner.
_PARALLEL_FROM = 48 << 20


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
    """Do all jobs, in order, in this process or in several; yields the results as they come."""
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
            raise FileRefused("changed during the run, and not by nixpatch: it is left so; run nixpatch again")
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
        with replacement(job.path, durable=job.durable, expected=found) as temp:
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
