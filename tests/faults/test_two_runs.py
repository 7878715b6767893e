"""Two runs on one tree at once, and a run beside an installer, as real processes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

import pytest

from faults.stories import Bench, Story
from support.injector import copy_tree, state_of
from support.world import World

pytestmark = pytest.mark.gcc


def _start(bench: Bench, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, **bench.injector.environment}
    command = [sys.executable, "-m", "nixpatch", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _site(world: World, tree: str) -> str:
    return os.path.join(tree, os.path.relpath(world.site, world.venv))


@pytest.mark.parametrize("part", ["the tree", "its site-packages", "a package in it"])
def test_a_run_waits_for_another_one_says_so_and_looks_at_what_that_has_left(bench: Bench, part: str) -> None:
    """The first run is this test, which holds the tree and patches it meanwhile."""
    _, _, new = bench.uninterrupted(Story.PATCH)
    bench.begin(Story.PATCH)
    site = _site(bench.world, bench.work)
    named = {"the tree": bench.work, "its site-packages": site, "a package in it": os.path.join(site, "pkg")}
    held = os.open(bench.work, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    second = _start(bench, named[part])
    assert second.stderr is not None
    assert "another nixpatch is at work here, waiting for it" in second.stderr.readline()
    copy_tree_into(bench.patched, bench.work)
    os.close(held)
    out, err = second.communicate()

    assert second.returncode == 0, err
    assert "Patched 0 of" in out
    assert {path: state for path, state in state_of(bench.work).items() if path in new} == new


def copy_tree_into(source: str, to: str) -> None:
    """Put the contents of one tree in the place of another's, whose root is the same directory afterwards."""
    for directory, _, names in os.walk(source):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                there = os.path.join(to, os.path.relpath(path, source))
                with open(path, "rb") as old, open(f"{there}-new", "wb") as new:
                    new.write(old.read())
                os.chmod(f"{there}-new", os.stat(path).st_mode & 0o7777)
                os.utime(f"{there}-new", ns=(os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns))
                os.rename(f"{there}-new", there)


def test_many_runs_at_once_end_as_one(bench: Bench) -> None:
    _, _, new = bench.uninterrupted(Story.PATCH)
    bench.begin(Story.PATCH)
    site = _site(bench.world, bench.work)
    runs = [_start(bench, path, "--jobs", str(jobs)) for path in (bench.work, site) for jobs in (1, 2)]
    ended = [(*run.communicate(), run.returncode) for run in runs]

    assert [code for _, _, code in ended] == [0] * len(runs), ended
    assert not any("Traceback" in err for _, err, _ in ended)
    assert state_of(bench.work) == new


def test_patch_and_restore_at_once_end_as_one_of_the_two(bench: Bench) -> None:
    _, _, patched = bench.uninterrupted(Story.PATCH)
    _, _, restored = bench.uninterrupted(Story.RESTORE)
    bench.begin(Story.RESTORE)
    runs = [_start(bench, *arguments) for arguments in ((bench.work,), ("restore", bench.work))]
    ended = [(*run.communicate(), run.returncode) for run in runs]

    assert [code for _, _, code in ended] == [0, 0], ended
    assert state_of(bench.work) in (patched, restored)


def test_a_file_that_was_installed_anew_since_the_plan_is_left_and_told(
    bench: Bench, tmp_path: os.PathLike[str]
) -> None:
    """What pip does meanwhile: the plan was for another file, and so was what is known of its original."""
    from nixpatch.operations.apply import apply
    from nixpatch.operations.plan import make_plan
    from nixpatch.operations.request import PatchRequest
    from nixpatch.store.nix_store import Store

    tree = os.path.join(os.path.realpath(tmp_path), "venv")
    copy_tree(bench.world.venv, tree)
    extension = os.path.join(_site(bench.world, tree), "pkg", "_ext.so")
    program = os.path.join(tree, "bin", "pkg-tool")
    plan = make_plan(PatchRequest(tree, Store(bench.world.store, bench.world.store)))
    with open(extension, "rb") as file:
        contents = file.read()
    os.unlink(extension)
    with open(extension, "wb") as file:
        file.write(contents)
    os.unlink(program)

    outcome = apply(plan)

    told = {os.path.basename(done.plan.file.path): done.error for done in outcome.failed}
    assert "changed during the run, and not by nixpatch" in str(told["_ext.so"])
    assert "vanished during the run" in str(told["pkg-tool"])
    with open(extension, "rb") as file:
        assert file.read() == contents


def test_a_dist_that_is_uninstalled_during_the_run_stays_uninstalled(
    bench: Bench, tmp_path: os.PathLike[str]
) -> None:
    from nixpatch.operations.apply import apply
    from nixpatch.operations.plan import make_plan
    from nixpatch.operations.request import PatchRequest
    from nixpatch.store.nix_store import Store

    tree = os.path.join(os.path.realpath(tmp_path), "venv")
    copy_tree(bench.world.venv, tree)
    info = os.path.join(_site(bench.world, tree), "pkg-1.0.dist-info")
    plan = make_plan(PatchRequest(tree, Store(bench.world.store, bench.world.store)))
    os.unlink(os.path.join(info, "RECORD"))
    apply_outcome = apply(plan)
    assert any("vanished during the run" in finding.text for finding in apply_outcome.findings)
    assert not os.path.exists(os.path.join(info, "nixpatch.json"))
