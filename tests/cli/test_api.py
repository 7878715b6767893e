"""``import nixpatch``: the same decisions and guarantees as the command line, as values."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nixpatch
from support import vendored
from support.world import World, record_row, shared


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
    with pytest.raises(nixpatch.RequestError, match=r"^lib /nowhere: does not exist") as caught:
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


def test_a_plan_that_is_applied_twice_changes_nothing_the_second_time(
    world: World, environment: dict[str, str]
) -> None:
    plan = nixpatch.plan(world.venv, environment=environment)
    assert not nixpatch.apply(plan, environment=environment).failed
    after = world.snapshot()
    outcome = nixpatch.apply(plan, environment=environment)
    assert not outcome.failed
    assert nixpatch.summary(plan, outcome).satisfied
    assert world.snapshot() == after


def test_a_plan_that_is_applied_after_another_change_is_refused(
    world: World, environment: dict[str, str]
) -> None:
    plan = nixpatch.plan(world.venv, environment=environment)
    with open(world.extension, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    outcome = nixpatch.apply(plan, environment=environment)
    assert [done.plan.file.path for done in outcome.failed] == [world.extension]


def test_a_path_may_be_given_wherever_a_path_is_meant(world: World, environment: dict[str, str]) -> None:
    venv, library = Path(world.venv), Path(world.library)
    plan = nixpatch.plan(
        venv,
        lib=[library],
        store=Path(world.store),
        python=Path(world.venv) / "bin" / "python",
        append_rpath=[library],
        environment=environment,
    )
    assert not nixpatch.missing(plan)
    assert not nixpatch.apply(plan, environment=environment).failed
    assert world.ask() == "42"
    assert not nixpatch.verify(venv, store=Path(world.store), environment=environment).errors
    assert not nixpatch.restore(venv).failed
    nowhere = Path("/nowhere")
    with pytest.raises(nixpatch.RequestError, match="/nowhere"):
        nixpatch.plan(venv, policy=[nowhere], environment=environment)
    with pytest.raises(nixpatch.RequestError, match="/nowhere"):
        nixpatch.plan(venv, closure=[nowhere], environment=environment)
    with pytest.raises(nixpatch.RequestError, match="/nowhere"):
        nixpatch.plan(venv, locked=nowhere, environment=environment)
    with pytest.raises(nixpatch.RequestError, match="/nowhere"):
        nixpatch.plan(venv, project=nowhere, environment=environment)
    with pytest.raises(nixpatch.RequestError, match="a list of strings is meant"):
        nixpatch.plan(venv, lib=library, environment=environment)  # type: ignore[arg-type]


_TYPED = """
from pathlib import Path
import nixpatch
plan: nixpatch.Plan = nixpatch.plan(
    Path(), python=Path(), lib=[Path()], closure=[Path()], store=Path(), nixpkgs=Path(), locked=Path(),
    policy=[Path()], append_rpath=[Path()], project=Path(),
)
plan = nixpatch.plan("", lib=[""], policy=("",), store=None)
outcome: nixpatch.Outcome = nixpatch.apply(plan)
nixpatch.restore(Path())
nixpatch.verify(Path(), python=Path(), store=Path(), locked=Path())
"""


def test_paths_are_accepted_by_mypy_in_strict_mode(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(_TYPED, "utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_messages_name_arguments(world: World, environment: dict[str, str]) -> None:
    with pytest.raises(nixpatch.RequestError, match="system=True"):
        nixpatch.plan("/usr", environment=environment)
    with pytest.raises(nixpatch.RequestError, match=r"^append_rpath sub: "):
        nixpatch.plan(world.venv, append_rpath=["sub"], environment=environment)
    plan = nixpatch.plan(world.venv, unvendor=["libnone*"], environment=environment)
    assert [finding.text for finding in plan.findings if "unvendor" in finding.text] == [
        "unvendor: there is no grafted library that libnone* matches"
    ]
    assert not any("--" in finding.text for finding in plan.findings)


def test_a_planned_file_has_the_names_of_its_dists(world: World, environment: dict[str, str]) -> None:
    plan = nixpatch.plan(world.venv, environment=environment)
    assert {file.dists for file in plan.changes} == {("pkg",)}


def test_a_plan_that_removes_a_library_is_applied_twice(world: World, environment: dict[str, str]) -> None:
    name = "libanswer-0a1b2c3d.so.1"
    copy = os.path.join(world.site, "pkg.libs", name)
    shared("library.c", copy, f"-Wl,-soname,{name}")
    shared("extension.c", world.extension, copy, "-Wl,-rpath,$ORIGIN/../pkg.libs")
    world.write_record(record_row(copy, world.site))
    plan = nixpatch.plan(world.venv, unvendor=["*"], environment=environment)
    assert [library.goes for library in plan.vendored] == [True]
    assert not nixpatch.apply(plan, environment=environment).failed
    after = world.snapshot()
    outcome = nixpatch.apply(plan, environment=environment)
    assert not outcome.failed
    assert nixpatch.summary(plan, outcome).satisfied, outcome.findings
    assert world.snapshot() == after
    assert not nixpatch.restore(world.venv).failed
    assert os.path.exists(copy)


def test_unvendoring_in_a_nix_build_keeps_no_originals(world: World, environment: dict[str, str]) -> None:
    """As on the command line: the output of a build cannot be restored, and copies count in its closure."""
    made = vendored.make(world)
    copy = made.world.copy("copy")
    for venv, building in ((world.venv, False), (copy.venv, True)):
        environ = {**environment, **({"NIX_BUILD_TOP": "/build"} if building else {})}
        plan = nixpatch.plan(
            venv, unvendor=["*"], environment=environ, closure=sorted(glob.glob(f"{world.store}/*"))
        )
        assert nixpatch.summary(plan, nixpatch.apply(plan, environment=environ)).satisfied
        kept = glob.glob(f"{venv}/lib/python3*/site-packages/pkg-1.0.dist-info/nixpatch-grafts/*")
        assert len(kept) == (0 if building else 2)
        assert not glob.glob(f"{venv}/lib/python3*/site-packages/pkg.libs/*")


def test_what_the_other_commands_say_is_there_too(
    world: World, environment: dict[str, str], tmp_path: Path
) -> None:
    plan = nixpatch.plan(world.venv, environment=environment)
    assert [need.need for need in nixpatch.tree(Path(world.venv), environment=environment).unmet] == [
        "libanswer.so.1",
        "libanswer.so.1",
    ]
    lockfile = tmp_path / "nixpatch.lock"
    lockfile.write_bytes(nixpatch.lock(plan, environment=environment))
    assert nixpatch.diff(lockfile, lockfile).same
    locked = nixpatch.plan(world.venv, environment=environment, locked=lockfile)
    assert locked.providers == plan.providers or [each.name for each in locked.providers] == [
        "libanswer.so.1"
    ]
    assert nixpatch.optional(plan) == ()
    assert nixpatch.env(Path(world.venv), environment=environment) == ""


def test_a_library_outside_of_the_store_cannot_be_locked(
    world: World, environment: dict[str, str], tmp_path: Path
) -> None:
    shared("library.c", str(tmp_path / "libanswer.so.1"), "-Wl,-soname,libanswer.so.1")
    plan = nixpatch.plan(world.venv, environment=environment, lib=[tmp_path])
    with pytest.raises(nixpatch.RequestError, match="not in the store"):
        nixpatch.lock(plan, environment=environment)
