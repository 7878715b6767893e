"""How the command line takes words: options first, misspelled commands, quiet runs, pipes that close."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib import resources

import jsonschema
import pytest

from support.world import Run, World

pytestmark = pytest.mark.gcc

SCHEMA = json.loads(resources.files("nixpatch").joinpath("data/report.schema.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["--json", "plan", "VENV"], "plan"),
        (["-q", "--json", "restore", "VENV"], "restore"),
        (["--python", sys.executable, "--json", "plan", "VENV"], "plan"),
        (["--python=" + sys.executable, "-j", "1", "patch", "--json", "VENV"], "patch"),
        (["--lib", "plan", "missing", "--json", "VENV"], "missing"),
        (["-j", "1", "--json", "VENV"], "patch"),
        (["--json", "--", "VENV"], "patch"),
    ],
)
def test_options_come_before_the_command(
    words: list[str], command: str, world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.symlink(world.library, os.path.join(world.root, "plan"))
    monkeypatch.chdir(world.root)

    code, out, err = nixpatch(*(world.venv if word == "VENV" else word for word in words))

    assert code == 0, err
    assert json.loads(out)["command"] == command
    assert json.loads(out)["trees"][0]["tree"]["root"] == world.venv


@pytest.mark.parametrize(
    ("word", "command"),
    [("verfy", "verify"), ("mising", "missing"), ("restor", "restore"), ("manylinx", "manylinux")],
)
def test_a_misspelled_command(word: str, command: str, nixpatch: Run) -> None:
    code, out, err = nixpatch(word, "--json")

    assert code == 2
    assert f"{word}: no such command, and no such path: did you mean nixpatch {command}?" in err
    assert "did you mean" in json.loads(out)["error"]


def test_a_word_that_is_nothing(nixpatch: Run) -> None:
    for word in ("frobnicate", "-v frobnicate", "run"):
        code, out, err = nixpatch(*word.split())
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"nixpatch: {word.split()[-1]}: no such command, and no such path: ")
    assert "nixpatch --help" in nixpatch("frobnicate")[2]


def test_a_path_with_the_look_of_a_command_is_a_path(
    world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.rename(world.venv, os.path.join(world.root, "verfy"))
    monkeypatch.chdir(world.root)
    assert nixpatch("verfy")[0] == 0
    assert "no-such-thing cannot be read" in nixpatch("no-such-thing")[2]


@pytest.mark.parametrize(
    "words",
    [
        ["/no/where"],
        ["plan", "/no/where"],
        ["verify", "/no/where"],
        ["restore", "/no/where"],
        ["missing", "/no/where"],
        ["tree", "/no/where"],
        ["lock", "/no/where"],
        ["manylinux", "status", "/no/where"],
        ["plan", "--bogus"],
        ["verify", "--python"],
        ["patch", "--writer", "pen", "."],
        ["diff", "/no/where", "/no/where"],
        ["diff"],
    ],
)
def test_every_refused_request_has_a_json_document(words: list[str], world: World, nixpatch: Run) -> None:
    code, out, err = nixpatch(*words, "--json") if words[-1] != "--python" else nixpatch("--json", *words)

    document = json.loads(out)
    jsonschema.validate(document, SCHEMA)
    assert code == 2
    assert document["error"]
    assert err
    assert document["command"] == (words[0] if words[0] != "/no/where" else "patch")


def test_quiet_is_silent_if_all_is_well(world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.root)
    for words in (["plan"], ["patch"], ["patch"], ["verify"], ["tree"], ["restore"], ["lock", "-o", "l"]):
        assert nixpatch(*words, "-q", world.venv) == (0, "", ""), words
    os.unlink(os.path.join(world.library, "libanswer.so.1"))
    code, out, _ = nixpatch("plan", "-q", world.venv)
    assert code == 1
    assert "libanswer.so.1" in out


def test_plan_has_a_help_of_its_own(nixpatch: Run) -> None:
    code, out, _ = nixpatch("plan", "--help")

    assert code == 0
    assert "Usage: nixpatch plan" in out
    assert "write nothing" in out
    assert "--writer" not in out
    assert "--unvendor" in out


@pytest.mark.parametrize("words", [["--help"], ["plan", "-vv"], ["plan", "--json"], ["tree"], ["verify"]])
def test_a_reader_that_closes_the_pipe_ends_the_run_quietly(words: list[str], world: World) -> None:
    command = [sys.executable, "-c", "from nixpatch.cli import run; import sys; sys.exit(run(sys.argv[1:]))"]
    tree = [] if words == ["--help"] else [world.venv]
    environ = {**os.environ, "NIX_STORE_DIR": world.store}
    with subprocess.Popen(
        [*command, *words, *tree], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        err = run.stderr.read()
    assert err == b""
    assert run.returncode in {0, 1}


def test_store_paths_are_not_broken(world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")

    out = "".join(nixpatch(command, world.venv)[1] for command in ("plan", "patch", "verify", "restore"))

    assert os.path.realpath(sys.executable) in out


def test_titles_of_the_table(world: World, nixpatch: Run) -> None:
    assert nixpatch(world.venv)[1].splitlines()[1].split()[:4] == ["dist", "patched", "ok", "skipped"]
    assert nixpatch("restore", world.venv)[1].splitlines()[0].split()[:4] == [
        "dist",
        "restored",
        "ok",
        "skipped",
    ]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("app.pyz", "a zip archive that is run, which is not patched itself"),
        ("app.pex", "build it with --venv"),
    ],
)
@pytest.mark.parametrize("command", ["patch", "plan", "tree", "verify", "restore", "missing"])
def test_an_archive_is_refused_with_what_to_do(
    name: str, advice: str, command: str, world: World, nixpatch: Run
) -> None:
    path = os.path.join(world.root, name)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.py", "")

    code, _, err = nixpatch(command, path)

    assert (code, err.count("\n")) == (2, 1)
    assert f"{path} is " in err
    assert advice in err
