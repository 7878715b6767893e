"""A pool of processes that finish the jobs in hand on Ctrl-C, and end with this process.

``concurrent.futures`` cannot be used: its workers share the lock of one queue. A worker that is killed while
it holds that lock makes the shutdown of the pool wait for ever, and the lock of the tree is never released.
Here each worker has a pipe of its own, and a worker that died is the end of its pipe.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, TypeVar

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A file is large if it is more than this part of the work of one process.
_LARGE_PART = 16

# Handing work to a process takes as long as copying some hundred kB, so small files go together.
_BATCH_SIZE = 4 << 20
_BATCH_FILES = 32

_AHEAD = 2  # jobs handed to a worker: it need not wait while this process writes RECORD


@dataclass(eq=False, slots=True)
class _Worker:
    """A process, the pipe to it, and the indexes of the jobs that it has, the one in hand first."""

    process: int
    pipe: Connection
    jobs: deque[int] = field(default_factory=deque)


@contextlib.contextmanager
def run_in_pool(
    work: Callable[[_Job], _Result], jobs: Sequence[_Job], count: int, if_died: Callable[[], _Result]
) -> Iterator[Iterator[_Result]]:
    """Run ``work`` on each job in ``count`` processes; yield an iterator of the results in job order.

    ``if_died`` makes the result of a job whose process died (the kernel ran out of memory), and of the jobs
    that are left when all have died. If the machine gives no process, this one does the work.
    """
    # Processes, not threads: hashing releases the interpreter lock, parsing headers does not. Forked while no
    # thread exists, so that no lock is inherited half-way.
    workers: list[_Worker] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with contextlib.suppress(
            OSError
        ):  # no more processes or descriptors: those that there are do the work
            while len(workers) < count:
                workers.append(_start(work, jobs, workers))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield _results(workers, len(jobs), if_died) if workers else map(work, jobs)
    finally:
        for worker in workers:
            worker.pipe.close()
        for worker in workers:
            os.waitpid(worker.process, 0)


def _start(work: Callable[[_Job], _Result], jobs: Sequence[_Job], others: Sequence[_Worker]) -> _Worker:
    """Fork a worker. It has the jobs already, so only their indexes go through its pipe."""
    ours, its_end = Pipe()
    try:
        process = os.fork()
    except OSError:
        ours.close()
        its_end.close()
        raise
    if process == 0:
        try:
            for pipe in (ours, *(worker.pipe for worker in others)):
                pipe.close()  # else a worker would not see the end of this process
            _serve(work, jobs, its_end)
        finally:
            os._exit(0)
    its_end.close()
    return _Worker(process, ours)


def _serve(work: Callable[[_Job], _Result], jobs: Sequence[_Job], pipe: Connection) -> None:
    """Work until the other end is closed. Ctrl-C, which reaches the whole group, is for the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    with contextlib.suppress(EOFError, OSError):
        while True:
            job = jobs[pipe.recv()]
            reply: tuple[bool, Any]
            try:
                reply = True, work(job)
            except Exception as error:  # noqa: BLE001 - raised again in the parent
                reply = False, error
            pipe.send(reply)


def _results(workers: Sequence[_Worker], count: int, if_died: Callable[[], _Result]) -> Iterator[_Result]:
    waiting = deque(range(count))
    done: dict[int, _Result] = {}
    alive = {worker.pipe: worker for worker in workers}

    def lose(worker: _Worker) -> None:
        """Fail the job that a dead worker had in hand, and give the next one to another."""
        del alive[worker.pipe]
        if worker.jobs:
            done[worker.jobs.popleft()] = if_died()
        waiting.extendleft(reversed(worker.jobs))
        worker.jobs.clear()

    for index in range(count):
        while index not in done:
            for worker in [worker for _ in range(_AHEAD) for worker in alive.values()]:
                if waiting and len(worker.jobs) < _AHEAD and worker.pipe in alive:
                    worker.jobs.append(waiting.popleft())
                    try:
                        worker.pipe.send(worker.jobs[-1])
                    except OSError:
                        lose(worker)
            if not alive:
                done.update((left, if_died()) for left in waiting)
                waiting.clear()
                continue
            busy = [pipe for pipe, worker in alive.items() if worker.jobs]
            if index in done or not busy:
                continue  # a worker was dead before it got its job: nothing would ever come
            for pipe in wait(busy):
                assert isinstance(pipe, Connection)
                worker = alive[pipe]
                try:
                    succeeded, result = pipe.recv()
                except (EOFError, OSError):
                    lose(worker)
                    continue
                if not succeeded:
                    raise result
                done[worker.jobs.popleft()] = result
        yield done.pop(index)


def batches(sizes: Sequence[int], workers: int, least: int = _BATCH_SIZE) -> Iterator[list[int]]:
    """Yield the indexes of all jobs in the order to start them, small ones together up to ``least`` bytes.

    A large file that is started last would keep one process busy while the others have nothing left to do, so
    the large ones go first, the largest before all. The rest stays in order: a dist is recorded when its last
    file is done, and a killed run should leave few dists unrecorded.
    """
    large = max(sum(sizes) // (workers * _LARGE_PART), least)
    first = sorted((index for index, size in enumerate(sizes) if size > large), key=lambda i: (-sizes[i], i))
    yield from ([index] for index in first)
    batch: list[int] = []
    batch_size = 0
    for index, size in enumerate(sizes):
        if size > large:
            continue
        batch.append(index)
        batch_size += size
        if batch_size >= least or len(batch) == _BATCH_FILES:
            yield batch
            batch, batch_size = [], 0
    if batch:
        yield batch
