"""Processes that work for this one: no signal from the terminal cuts them short, and none outlives us."""

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
_Done = TypeVar("_Done")

_OURS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def shared_out(
    work: Callable[[_Job], _Done], jobs: Sequence[_Job], count: int, died: Callable[[], _Done]
) -> Iterator[Iterator[_Done]]:
    """Do jobs in ``count`` processes; yields the results in order, as they come.

    ``died`` is the result of a job whose process did not live to give one (the kernel ran out of memory), and
    of all that were not done by then.
    """
    # Processes, not threads: hashing lets go of the interpreter lock, the headers' work does not. Forked
    # before any thread exists, so that nothing is inherited half-way.
    context = multiprocessing.get_context("fork")
    told, ours = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, ours)
        stack.callback(os.close, told)
        pool = stack.enter_context(
            ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(told, ours))
        )
        try:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
            try:
                futures = [_submitted(pool, work, job) for job in jobs]
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield (_result(future, died) for future in futures)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _submitted(pool: ProcessPoolExecutor, work: Callable[[_Job], _Done], job: _Job) -> Future[_Done] | None:
    try:
        return pool.submit(work, job)
    except BrokenExecutor:
        return None


def _result(future: Future[_Done] | None, died: Callable[[], _Done]) -> _Done:
    try:
        return future.result() if future is not None else died()
    except BrokenExecutor:
        return died()


def _begin(told: int, ours: int) -> None:
    """Let a worker finish the file in hand: Ctrl-C reaches the whole process group.

    One whose parent is killed would wait for work for ever, and hold the tree's lock, which it inherited. The
    other end of the pipe is closed when the last process that has it is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OURS)
    os.close(ours)
    threading.Thread(target=_leave_with_parent, args=(told,), daemon=True).start()


def _leave_with_parent(told: int) -> None:
    os.read(told, 1)
    os._exit(1)
