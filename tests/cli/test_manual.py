"""What is made from the command line: the man page, the completions, the pages of the Python API."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from nixpatch.cli.app import command_line, run

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
DOCS = os.path.join(ROOT, "docs")
SHELLS = ("bash", "fish", "zsh")


def flat(group: Any) -> Iterator[Any]:
    """Yield every command, those of groups within it too."""
    for command in group.commands.values():
        yield from flat(command) if hasattr(command, "commands") else [command]


def test_the_committed_man_page_and_completions_are_those_of_this_command_line(tmp_path: Path) -> None:
    subprocess.run([sys.executable, os.path.join(DOCS, "manual.py"), str(tmp_path)], check=True)
    made = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert made == ["docs/nixpatch.1", *(f"src/nixpatch/data/completions/{shell}" for shell in SHELLS)]
    for name in made:
        text = (tmp_path / name).read_text("utf-8")
        assert text == Path(ROOT, name).read_text("utf-8"), f"run python docs/manual.py: {name} is old"


def test_the_man_page_has_every_option_of_every_command() -> None:
    with open(os.path.join(DOCS, "nixpatch.1"), encoding="utf-8") as file:
        page = file.read()
    group: Any = typer.main.get_command(command_line())
    for command in flat(group):
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0].replace("-", r"\-") in page, parameter.opts


OFFERED = [
    ("miss", {"missing"}),
    ("verify --lo", {"--locked", "--load"}),
    ("plan --append", {"--append-rpath"}),
    (".venv --append", {"--append-rpath"}),  # patch was left out
    ("patch --writer ", {"inplace", "lief"}),
    ("manylinux al", {"allow"}),
    ("completion z", {"zsh"}),
]


def script(shell: str) -> str:
    return os.path.join(ROOT, "src", "nixpatch", "data", "completions", shell)


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"not installed: {shell}")


@pytest.mark.parametrize(("line", "offered"), OFFERED)
def test_bash_completes_words(line: str, offered: set[str]) -> None:
    words = ["nixpatch", *line.split(" ")]
    quoted = " ".join(f"'{word}'" for word in words)
    code = f"""
    source {script("bash")}
    COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
    _nixpatch 2>/dev/null
    echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


@pytest.mark.shells
@pytest.mark.parametrize(("line", "offered"), OFFERED)
def test_fish_completes_words(line: str, offered: set[str]) -> None:
    needs("fish")
    code = f"source {script('fish')}; complete -C 'nixpatch {line}'"
    done = subprocess.run(["fish", "--no-config", "-c", code], capture_output=True, text=True, check=True)
    assert {text.split("\t")[0] for text in done.stdout.splitlines()} == offered


# zsh completes on a terminal only (zshmodules(1), zsh/zpty). What it offers is what compadd is called with.
ZPTY = """
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'PS1= PS2=; autoload -U compinit; compinit -u -D; source {script}; compdef _nixpatch nixpatch
compadd() {{
  if [[ ${{@[1,(i)(-|--)]}} == *-(O|A|D)\\ * ]]; then builtin compadd "$@"; return; fi
  local -a found
  builtin compadd -O found "$@"
  print -rl -- $found >>{log}
  builtin compadd "$@"
}}
print REA""DY'
zpty -r z output '*READY*'
zpty -w -n z $'nixpatch {line}\\t'
for ((count = 0; count < 100; count++)); do [[ -s {log} ]] && break; sleep 0.1; done
zpty -d z
"""


@pytest.mark.shells
@pytest.mark.parametrize(("line", "offered"), OFFERED)
def test_zsh_completes_words(line: str, offered: set[str], tmp_path: Path) -> None:
    needs("zsh")
    log = tmp_path / "offered"
    code = ZPTY.format(script=script("zsh"), line=line, log=log)
    subprocess.run(["zsh", "-f", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert set(log.read_text("utf-8").split()) >= offered


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_printed(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert run(["completion", shell]) == 0
    assert capfd.readouterr().out == Path(script(shell)).read_text("utf-8")


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
