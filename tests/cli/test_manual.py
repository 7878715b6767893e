"""What is made from the command line: the man page, the completions, the pages of the Python API."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from nixpatch.cli.app import command_line

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
DOCS = os.path.join(ROOT, "docs")


def flat(group: Any) -> Iterator[Any]:
    """Yield every command, those of groups within it too."""
    for command in group.commands.values():
        yield from flat(command) if hasattr(command, "commands") else [command]


def test_the_committed_man_page_and_completions_are_those_of_this_command_line(tmp_path: str) -> None:
    subprocess.run([sys.executable, os.path.join(DOCS, "manual.py"), str(tmp_path)], check=True)
    made = sorted(os.listdir(tmp_path))
    assert made == ["_nixpatch", "nixpatch.1", "nixpatch.bash", "nixpatch.fish"]
    for name in made:
        with open(os.path.join(tmp_path, name)) as new, open(os.path.join(DOCS, name)) as committed:
            assert new.read() == committed.read(), f"run python docs/manual.py: {name} is old"


def test_the_man_page_has_every_option_of_every_command() -> None:
    with open(os.path.join(DOCS, "nixpatch.1"), encoding="utf-8") as file:
        page = file.read()
    group: Any = typer.main.get_command(command_line())
    for command in flat(group):
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0].replace("-", r"\-") in page, parameter.opts


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["nixpatch", "miss"], "missing"),
        (["nixpatch", "verify", "--lo"], "--locked --load"),
        (["nixpatch", "plan", "--append"], "--append-rpath"),
        (["nixpatch", ".venv", "--append"], "--append-rpath"),  # patch was left out
        (["nixpatch", "patch", "--writer", ""], "inplace lief"),
    ],
)
def test_bash_completes_words(words: list[str], offered: str) -> None:
    line = " ".join(f"'{word}'" for word in words)
    script = f"""
    source {DOCS}/nixpatch.bash
    COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}
    _nixpatch_completion {os.path.dirname(sys.executable)}/nixpatch
    echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == sorted(offered.split())


def test_the_api_renders_as_a_page_with_types_and_errors(tmp_path: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pdoc", "--output-directory", str(tmp_path), "nixpatch.api"],
        check=True,
        capture_output=True,
    )
    with open(os.path.join(tmp_path, "nixpatch", "api.html"), encoding="utf-8") as file:
        page = file.read()
    for name in ("plan", "apply", "restore", "verify", "missing", "summary", "as_document"):
        assert f'id="{name}"' in page
    assert "Decide what to do with a tree" in page
    assert "Raises" in page
