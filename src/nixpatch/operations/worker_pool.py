"""A pool of processes that finish the file in hand on Ctrl-C, and end with this process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from typing import TypeVar

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def run_in_pool(
    work: Callable[[_Job], _Result], jobs: Sequence[_Job], count: int, if_died: Callable[[], _Result]
) -> Iterator[Iterator[_Result]]:
    """Run ``work`` on each job in ``count`` processes; yield an iterator of the results in job order.

    ``if_died`` makes the result of the jobs that were not done when a process died (the kernel ran out of
    memory).
    """
    # Processes, not threads: hashing releases the interpreter lock, parsing headers does not. Forked before
    # any thread exists, so that no lock is inherited half-way.
    context = multiprocessing.get_context("fork")
    parent_alive_fd, parent_fd = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, parent_fd)
        stack.callback(os.close, parent_alive_fd)
        pool = stack.enter_context(
            ProcessPoolExecutor(
                count, mp_context=context, initializer=_start, initargs=(parent_alive_fd, parent_fd)
            )
        )
        try:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            try:
                futures = [_submit(pool, work, job) for job in jobs]
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield (_result(future, if_died) for future in futures)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _submit(pool: ProcessPoolExecutor, work: Callable[[_Job], _Result], job: _Job) -> Future[_Result] | None:
    try:
        return pool.submit(work, job)
    except BrokenExecutor:
        return None


def _result(future: Future[_Result] | None, if_died: Callable[[], _Result]) -> _Result:
    try:
        return future.result() if future is not None else if_died()
    except BrokenExecutor:
        return if_died()


def _start(parent_alive_fd: int, parent_fd: int) -> None:
    """Ignore Ctrl-C, which reaches the whole process group, and end when the parent does.

    A worker whose parent was killed would wait for work for ever, and hold the lock of the tree, which it
    inherited. The other end of the pipe is closed when the last process that has it is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    os.close(parent_fd)
    threading.Thread(target=_exit_with_parent, args=(parent_alive_fd,), daemon=True).start()


def _exit_with_parent(parent_alive_fd: int) -> None:
    os.read(parent_alive_fd, 1)
    os._exit(1)
