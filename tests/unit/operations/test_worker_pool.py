"""Workers that are killed, at any moment: their jobs fail, the others go on, and nothing waits for ever."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nixpatch.operations.worker_pool import run_in_pool

_ROUNDS = int(os.environ.get("NIXPATCH_KILLS", "12"))
"""a few hundred by hand"""
_SECONDS = 20
_JOBS = 40
_DIED = -1


def _square(number: int) -> int:
    time.sleep(0.0005)
    return number * number


def _die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _results(work: object, count: int) -> list[int]:
    with run_in_pool(work, range(_JOBS), count, lambda: _DIED) as results:  # type: ignore[arg-type]
        return list(results)


def test_results_come_in_the_order_of_the_jobs() -> None:
    assert _results(_square, 3) == [number * number for number in range(_JOBS)]


def test_a_job_that_kills_its_worker_fails_alone() -> None:
    expected = [_DIED if number == 3 else number for number in range(_JOBS)]
    assert _results(_die, 2) == expected


def test_when_all_workers_are_dead_the_rest_fails() -> None:
    results = _results(_die, 1)
    assert results == [0, 1, 2, *[_DIED] * (_JOBS - 3)]


def test_an_exception_of_a_job_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError), run_in_pool(lambda job: 1 // job, [1, 0], 2, lambda: 0) as results:
        list(results)


def test_without_a_process_the_work_is_done_in_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_fork)
    assert _results(_square, 2) == [number * number for number in range(_JOBS)]


@pytest.mark.parametrize("seed", range(_ROUNDS))
def test_a_worker_killed_at_any_moment_is_no_hang(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool of concurrent.futures hung in 2 to 6 of 200 rounds, for kills within its start."""
    chance = random.Random(seed)
    count = chance.choice([1, 2, 3, _JOBS])
    fork, killers, processes = os.fork, [], []

    def fork_a_victim() -> int:
        process = fork()
        processes.append(process)
        if process and chance.random() < 0.7:
            delay = chance.choice([0, 0.0002, 0.001, 0.01]) * chance.random()
            killer = threading.Timer(delay, os.kill, (process, signal.SIGKILL))
            killers.append(killer)
        return process

    def too_long(_number: int, _frame: object) -> None:
        raise TimeoutError(f"seed {seed}: still waiting after {_SECONDS} s")

    monkeypatch.setattr(os, "fork", fork_a_victim)
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(_SECONDS)
    try:
        with run_in_pool(_square, range(count), 4, lambda: _DIED) as results:
            if chance.random() < 0.3:
                time.sleep(0.005)
            for killer in killers:  # not before the last fork: no thread may be there then
                killer.start()
            got = list(results)
            for killer in killers:
                killer.join()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert len(got) == count
    assert all(result in (_DIED, number * number) for number, result in enumerate(got))
    # A job fails only with its worker: as many at most as were killed, unless all were.
    assert got.count(_DIED) <= len(killers) or len(killers) == 4
    for (
        process
    ) in processes:  # all were waited for; other tests of this process may have children of their own
        with pytest.raises(ChildProcessError):
            os.waitpid(process, os.WNOHANG)


@pytest.mark.parametrize("jobs", [1, 2, 3, _JOBS])
@pytest.mark.parametrize("victims", [{0}, {1}, {0, 1}])
def test_workers_that_are_dead_before_they_get_a_job(
    jobs: int, victims: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fork, forked = os.fork, []

    def fork_a_victim() -> int:
        process = fork()
        if process:
            forked.append(process)
        return process

    monkeypatch.setattr(os, "fork", fork_a_victim)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_SECONDS)
    with run_in_pool(_square, range(jobs), 2, lambda: _DIED) as results:
        for victim in victims:
            os.kill(forked[victim], signal.SIGKILL)
            os.waitid(os.P_PID, forked[victim], os.WEXITED | os.WNOWAIT)
        got = list(results)
    signal.alarm(0)
    assert len(got) == jobs
    assert got.count(_DIED) <= (jobs if len(victims) == 2 else 1)


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"""
import os, signal, time
from nixpatch.operations.worker_pool import run_in_pool
def work(job):
    with open({str(pids)!r}, "a") as file:
        file.write(f"{{os.getpid()}}\\n")
    if job == 5:
        os.kill(os.getppid(), signal.SIGKILL)
    return job
with run_in_pool(work, range(20), 3, int) as results:
    list(results)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=_SECONDS)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + _SECONDS
    for pid in set(pids.read_text("ascii").split()):
        while os.path.exists(f"/proc/{pid}") and "Z" not in Path(f"/proc/{pid}/stat").read_text("ascii"):
            assert time.monotonic() < deadline, pid
            time.sleep(0.01)
