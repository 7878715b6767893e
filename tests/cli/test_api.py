"""``import nixpatch``: the same decisions and guarantees as the command line, as values."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import nixpatch
from support.world import World


@pytest.fixture
def environment(world: World) -> dict[str, str]:
    """What counts of a process's environment: the world's store, and nothing kept."""
    return {"NIX_STORE_DIR": world.store, "PATH": os.environ["PATH"]}


def test_decide_look_carry_out_hold_and_take_back(world: World, environment: dict[str, str]) -> None:
    before = world.snapshot()
    plan = nixpatch.plan(world.venv, environment=environment)
    assert [file.file.path for file in plan.changes] == [world.program, world.extension]
    assert nixpatch.missing(plan) == ()
    assert world.snapshot() == before  # a plan writes nothing

    outcome = nixpatch.apply(plan, environment=environment)
    assert not outcome.failed
    assert nixpatch.summary(plan, outcome).satisfied
    assert world.ask() == "42"
    assert nixpatch.as_document(plan, outcome)["trees"][0]["summary"]["changed"] == 2

    verdict = nixpatch.verify(world.venv, environment=environment, load=True, deep=True)
    assert (verdict.patched, verdict.errors) == (2, 0)
    assert verdict.reread is not None
    assert (verdict.reread.files, verdict.reread.originals) == (2, 2)

    assert not nixpatch.restore(world.venv).failed
    assert world.snapshot() == before


def test_what_is_missing_comes_with_where_it_was_looked_for(
    world: World, environment: dict[str, str]
) -> None:
    plan = nixpatch.plan(world.venv, environment=environment, pure=True)
    assert [(lacking.soname, lacking.dists) for lacking in nixpatch.missing(plan)] == [
        ("libanswer.so.1", ("pkg 1.0",))
    ]
    (answer,) = plan.changes[0].missing
    assert answer.origin is nixpatch.Origin.MISSING
    assert answer.considered
    assert not nixpatch.summary(plan).satisfied


def test_a_wrong_request_is_an_exception_with_one_line(world: World, environment: dict[str, str]) -> None:
    with pytest.raises(nixpatch.RequestError, match=r"--lib /nowhere: does not exist") as caught:
        nixpatch.plan(world.venv, lib=["/nowhere"], environment=environment)
    assert "\n" not in str(caught.value)
    assert issubclass(nixpatch.RequestError, nixpatch.NixpatchError)


def test_a_file_that_cannot_be_patched_is_in_the_outcome(world: World, environment: dict[str, str]) -> None:
    plan = nixpatch.plan(world.venv, environment=environment)
    os.unlink(world.extension)
    outcome = nixpatch.apply(plan, environment=environment)
    assert [done.plan.file.path for done in outcome.failed] == [world.extension]
    assert world.run_program() == 42


def test_rules_of_a_project_count_only_if_it_is_named(world: World, environment: dict[str, str]) -> None:
    project = os.path.join(world.root, "pyproject.toml")
    with open(project, "w", encoding="utf-8") as file:
        file.write('[[tool.nixpatch.ignore]]\nfile = "*"\nsonames = ["libanswer.*"]\nreason = "a test"\n')
    without = nixpatch.plan(world.venv, pure=True, environment=environment)
    assert nixpatch.missing(without)
    ruled = nixpatch.plan(world.venv, pure=True, project=project, environment=environment)
    assert not nixpatch.missing(ruled)


def test_every_stable_name_is_there_and_documented() -> None:
    for name in nixpatch.__all__:
        assert getattr(nixpatch, name).__doc__, name
    assert set(nixpatch.__all__) <= set(dir(nixpatch))
    with pytest.raises(AttributeError, match="no attribute 'make_plan'"):
        _ = nixpatch.make_plan  # type: ignore[attr-defined]


def test_the_api_is_loaded_when_it_is_asked_for() -> None:
    code = "import sys, nixpatch; print('nixpatch.api' in sys.modules); nixpatch.plan; print(nixpatch.plan)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, plan = done.stdout.splitlines()
    assert loaded == "False"
    assert plan.startswith("<function plan")
