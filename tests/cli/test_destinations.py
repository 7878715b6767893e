"""Where pip and uv may install to, and what uv run installs before it starts anything."""

from __future__ import annotations

import os

import pytest

from nixpatch.cli.destinations import pip_targets, uv_run_preparation, uv_trees
from nixpatch.errors import RequestError

NOTHING = ("--", "python", "-c", "")


@pytest.mark.parametrize(
    ("words", "prepared"),
    [
        ("run pytest -x", ("run",)),
        ("run --extra test --frozen pytest --with x", ("run", "--extra", "test", "--frozen")),
        ("--project d -q run -p 3 --with=x -- a", ("--project", "d", "-q", "run", "-p", "3", "--with=x")),
        ("run -m pytest -p no:x", ("run",)),
        ("run", None),
        ("run --script tool", None),
        ("run --no-sync pytest", None),
        ("sync --script tool", None),
        ("pip install run", None),
        ("", None),
    ],
)  # fmt: skip
def test_what_uv_run_installs_comes_before_what_it_starts(
    words: str, prepared: tuple[str, ...] | None
) -> None:
    expected = (*prepared, *NOTHING) if prepared is not None else None

    assert uv_run_preparation(words.split()) == expected


def test_a_script_with_metadata_has_an_environment_of_its_own(tmp_path: os.PathLike[str]) -> None:
    script = os.path.join(tmp_path, "tool.py")
    with open(script, "w", encoding="utf-8") as file:
        file.write("#!/usr/bin/env python\n")
    assert uv_run_preparation(["run", script]) == ("run", *NOTHING)

    with open(script, "a", encoding="utf-8") as file:
        file.write("# /// script\n# dependencies = []\n# ///\n")
    assert uv_run_preparation(["run", script]) is None


def test_targets_of_pip_in_every_spelling() -> None:
    words = ["install", "-t", "a", "--target", "b", "--target=c", "-td", "--prefix=e", "x"]

    assert sorted(pip_targets(words)) == ["a", "b", "c", "d", "e"]


def _venv(*parts: str | os.PathLike[str]) -> str:
    path = os.path.join(*parts)
    os.makedirs(path)
    with open(os.path.join(path, "pyvenv.cfg"), "w", encoding="utf-8") as file:
        file.write("home = /nowhere\n")
    return path


def test_trees_of_uv(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> None:
    base = os.path.realpath(tmp_path)
    above, active, given, tool = (
        _venv(base, *parts) for parts in ((".venv",), ("a",), ("b",), ("t", "ruff"))
    )
    project = os.path.join(base, "project")
    os.makedirs(os.path.join(project, "venv-of-nobody"))
    monkeypatch.chdir(project)
    environment = {"VIRTUAL_ENV": active, "UV_TOOL_DIR": os.path.join(base, "t")}

    # The one that uv may be about to make is among them; a directory that is no venv is not.
    found = set(uv_trees(["sync"], environment))
    assert {above, active, os.path.join(project, ".venv")} <= found
    assert not {given, tool} & found
    assert given in set(uv_trees(["pip", "install", f"--python={given}/bin/python", "x"], environment))
    assert given in set(uv_trees(["pip", "install", "-p", given, "x"], environment))
    assert tool in set(uv_trees(["tool", "install", "ruff"], environment))
    assert "t" in set(uv_trees(["pip", "install", "--target", "t", "x"], environment))
    names = {"UV_PROJECT_ENVIRONMENT": "venv-of-nobody"}
    assert os.path.join(project, "venv-of-nobody") not in set(uv_trees(["sync"], names))
    assert "/opt/all" in set(uv_trees(["sync"], {"UV_PROJECT_ENVIRONMENT": "/opt/all"}))


def test_the_system_is_no_tree_to_look_at() -> None:
    with pytest.raises(RequestError, match="--tree"):
        list(uv_trees(["pip", "install", "--system", "x"], {}))
