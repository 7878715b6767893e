"""The process itself: Ctrl-C before a command begins, and a machine that gives no memory and no processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys

import pytest

from nixpatch.operations import plan
from support.world import Run, World

_AT_IMPORT = """
import os, signal, sys
from nixpatch.__main__ import main

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            {action}

sys.meta_path.insert(0, Finder())
sys.argv = ["nixpatch", "plan", "/nowhere"]
main()
"""


@pytest.mark.parametrize(
    ("action", "code", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGINT)", 130, "nixpatch: interrupted\n"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 130, "nixpatch: interrupted\n"),
        ("raise MemoryError", 3, "nixpatch: not enough memory"),
    ],
)
def test_what_happens_before_a_command_begins_is_one_line(action: str, code: int, words: str) -> None:
    command = [sys.executable, "-c", _AT_IMPORT.format(action=action)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == 1


@pytest.mark.gcc
def test_a_command_without_memory_ends_in_one_line(
    world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(plan.Reader, "in_tree", no_memory)
    code, out, err = nixpatch(world.venv)
    assert (code, out) == (3, "")
    assert err.startswith("nixpatch: not enough memory")


@pytest.mark.gcc
@pytest.mark.parametrize("megabytes", [30, 40, 50, 60, 80, 120])
def test_a_limit_of_memory_is_no_traceback(world: World, nixpatch: Run, megabytes: int) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    before = world.snapshot()
    environment = {**os.environ, "NIX_STORE_DIR": world.store}
    command = [sys.executable, "-m", "nixpatch", world.venv, "--jobs", "2"]
    done = subprocess.run(
        command, env=environment, preexec_fn=limit, capture_output=True, text=True, check=False
    )
    # With very little, Python itself does not start.
    assert "Traceback" not in done.stderr or "nixpatch" not in done.stderr
    if done.returncode == 3:
        assert world.snapshot() == before


@pytest.mark.gcc
def test_a_run_whose_workers_are_killed_at_their_start_fails_and_lets_go_of_the_tree(
    world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.snapshot()
    fork = os.fork

    def fork_a_victim() -> int:
        process = fork()
        if process:
            os.kill(process, signal.SIGKILL)
        return process

    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", fork_a_victim)
        code, out, _ = nixpatch("--jobs", "2", world.venv)
    assert code == 1
    assert out.count("the process that worked on it died") == 2
    assert world.snapshot() == before
    assert nixpatch("--jobs", "2", world.venv)[0] == 0
    assert world.ask() == "42"
