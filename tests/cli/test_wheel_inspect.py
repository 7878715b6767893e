"""Commands that read a wheel file name the wheel and its members, never the scratch directory."""

from __future__ import annotations

import json
import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from support.wheels import INFO, NAME, PATCHED, beside_wheel, contents, write
from support.world import Run, World

pytestmark = pytest.mark.gcc

SCHEMA = json.loads(resources.files("nixpatch").joinpath("data/report.schema.json").read_text("utf-8"))
COMMANDS = [("plan",), ("plan", "-vv"), ("missing", "--pure"), ("tree",), ("tree", "-v"), ("verify",)]


def document(nixpatch: Run, *arguments: str) -> Any:
    _, out, _ = nixpatch(*arguments, "--json")
    parsed = json.loads(out)
    jsonschema.validate(parsed, SCHEMA)
    return parsed


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_report_has_the_scratch_directory(
    command: tuple[str, ...], nixpatch: Run, wheel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _, out, err = nixpatch(*command, wheel)
    text = out + err + json.dumps(document(nixpatch, *command, wheel))
    assert str(tmp_path) not in text
    assert "site-packages/pkg" not in text
    assert os.listdir(tmp_path) == []


def test_plan_says_what_wheel_would_do(nixpatch: Run, wheel: str, wheelhouse: str) -> None:
    code, out, _ = nixpatch("plan", "-v", wheel)
    assert code == 0
    assert "Would patch 2 of 2 ELF files" in out
    assert "pkg/_ext.so" in out
    assert "pkg-1.0.data/scripts/tool" in out
    assert nixpatch("plan", "--check", wheel)[0] == 1
    assert nixpatch("wheel", "-w", wheelhouse, wheel)[0] == 0
    assert nixpatch("plan", "--check", os.path.join(wheelhouse, PATCHED))[0] == 0


def test_documents_have_the_wheel_for_a_root_and_members_for_files(
    nixpatch: Run, wheel: str, wheelhouse: str
) -> None:
    planned = document(nixpatch, "plan", wheel)["trees"][0]
    assert planned["tree"] == {"root": wheel, "prefix": wheel, "kind": "wheel"}
    files = {file["path"] for file in planned["files"]}
    assert files == {f"{wheel}/pkg/_ext.so", f"{wheel}/pkg-1.0.data/scripts/tool"}

    patched = document(nixpatch, "wheel", "-w", wheelhouse, wheel)["trees"][0]
    assert patched["tree"] == planned["tree"]
    assert patched["wheel"]["output"] == os.path.join(wheelhouse, PATCHED)

    assert document(nixpatch, "tree", wheel)["trees"][0]["kind"] == "wheel"
    assert document(nixpatch, "verify", patched["wheel"]["output"])["trees"][0]["tree"]["kind"] == "wheel"


def test_the_page_has_no_scratch_directory(
    nixpatch: Run, wheel: str, wheelhouse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    page = Path(wheelhouse + ".html")
    assert nixpatch("wheel", "--html", str(page), "-w", wheelhouse, wheel)[0] == 0
    assert str(tmp_path) not in page.read_text()
    assert "pkg/_ext.so" in page.read_text()


def test_missing_names_the_members_that_lack_a_library(nixpatch: Run, wheel: str) -> None:
    code, out, _ = nixpatch("missing", "--pure", wheel)
    assert code == 1
    assert "libanswer.so.1, needed by pkg-1.0.data/scripts/tool and 1 more" in out
    code, out, err = nixpatch("missing", wheel)
    assert code == 0
    assert "Nothing is missing" in out
    assert f"not linked yet against what is there: nixpatch wheel {wheel}\n" in err


def test_advice_on_a_wheel_names_the_command_for_wheels(nixpatch: Run, wheel: str, wheelhouse: str) -> None:
    assert nixpatch("wheel", "-w", wheelhouse, wheel)[0] == 0
    code, out, _ = nixpatch("verify", wheel)  # as it comes from PyPI
    assert code == 1
    assert f"nixpatch wheel {wheel} links what the store has" in out
    code, out, _ = nixpatch("verify", os.path.join(wheelhouse, PATCHED))
    assert code == 0, out


def test_a_wheel_beside_it_serves_there_too(world: World, nixpatch: Run, wheelhouse: str) -> None:
    beside = beside_wheel(world)
    wheel = write(Path(world.root, NAME), contents(world))
    assert nixpatch("missing", "--pure", wheel)[0] == 1
    assert nixpatch("missing", "--pure", "--with", beside, wheel)[0] == 0
    assert "2 of 2" in nixpatch("plan", "--pure", "--with", beside, wheel)[1]
    assert nixpatch("wheel", "--pure", "--with", beside, "-w", wheelhouse, wheel)[0] == 0
    patched = os.path.join(wheelhouse, PATCHED)
    assert nixpatch("verify", patched)[0] == 1  # alone it lacks the library
    assert nixpatch("verify", "--with", beside, patched)[0] == 0
    traced = document(nixpatch, "tree", "--with", beside, patched)["trees"][0]
    served = {need["path"] for need in traced["needs"] if need["soname"] == "libanswer.so.1"}
    assert served == {f"{beside}/lib/libanswer.so.1"}
    assert not [file for file in traced["files"] if file["path"].startswith(beside)]


def test_a_wheel_that_is_named_and_required_serves(world: World, nixpatch: Run, wheelhouse: str) -> None:
    beside = beside_wheel(world)
    members = contents(world)
    wheel = write(Path(world.root, NAME), members)
    # It may be there or not: what pkg does not require does not serve it.
    assert nixpatch("missing", "--pure", wheel, beside)[0] == 1
    members[f"{INFO}/METADATA"] += b'Requires-Dist: Other==1.0 ; sys_platform == "linux"\n'
    write(Path(wheel), members)
    for command in (("missing",), ("plan",), ("wheel", "-w", wheelhouse)):
        assert nixpatch(*command, "--pure", beside, wheel)[0] == 0
    patched = os.path.join(wheelhouse, PATCHED)
    assert nixpatch("verify", patched)[0] == 1
    assert nixpatch("verify", beside, patched)[0] == 0
    assert nixpatch("tree", beside, patched)[0] == 0


def test_with_needs_a_wheel(world: World, nixpatch: Run, wheel: str) -> None:
    code, _, err = nixpatch("plan", "--with", wheel, world.venv)
    assert (code, err) == (
        2,
        f"nixpatch: --with {wheel}: {world.venv} is no wheel file: --with is for those\n",
    )


def test_a_wheel_is_unpacked_with_the_rules_of_its_project(world: World, nixpatch: Run, wheel: str) -> None:
    project = Path(world.root, "pyproject.toml")
    project.write_text('[[tool.nixpatch.ignore]]\nfile = "*"\nsonames = ["libanswer.*"]\nreason = "x"\n')
    code, out, _ = nixpatch("plan", "--pure", wheel)
    assert code == 0, out
