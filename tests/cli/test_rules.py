"""What the user adds to the rules: --policy, [tool.nixpatch], --runtime-dep."""

from __future__ import annotations

import os
import pathlib

import pytest

from nixpatch import elf
from nixpatch.model import ElfFacts
from support.world import Run, World, record_row, shared

pytestmark = pytest.mark.gcc


@pytest.fixture
def lacking(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world, with a file that needs what nobody has, and its own current directory."""
    gone = os.path.join(world.root, "libgone.so.3")
    shared("library.c", gone, "-Wl,-soname,libgone.so.3")
    shared("extension.c", os.path.join(world.site, "pkg", "_other.so"), gone)
    monkeypatch.chdir(world.root)
    return world


def write(world: World, name: str, text: str) -> str:
    """Write a file beside the venv."""
    path = os.path.join(world.root, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


IGNORE = '[[{}ignore]]\nfile = "*/pkg/*"\nsonames = ["libgone.*"]\nreason = "optional, says its author"\n'


def test_a_policy_file(lacking: World, nixpatch: Run) -> None:
    assert nixpatch("plan", lacking.venv)[0] == 1
    path = write(lacking, "rules.toml", IGNORE.format(""))

    code, out, _ = nixpatch("plan", "-vv", lacking.venv, "--policy", path)

    assert code == 0
    assert "libgone.so.3: ignored (optional, says its author)" in out


def test_the_project_in_the_current_directory(lacking: World, nixpatch: Run) -> None:
    write(lacking, "pyproject.toml", "[project]\nname = 'x'\n" + IGNORE.format("tool.nixpatch."))

    assert nixpatch("plan", lacking.venv)[0] == 0


def test_the_project_that_the_tree_is_in(
    lacking: World, nixpatch: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From wherever it is called: the rules of a venv's project hold, and the report names it."""
    monkeypatch.chdir(tmp_path)
    project = write(lacking, "pyproject.toml", IGNORE.format("tool.nixpatch."))
    code, out, _ = nixpatch("plan", lacking.venv)
    assert code == 0
    assert f"{project}: its [tool.nixpatch] adds rules" in out.replace("../pyproject.toml", project)

    # The tree's project comes before that of the current directory, and one without the table is passed over.
    (tmp_path / "pyproject.toml").write_text("[tool.nixpatch]\nnonsense = 1\n")
    assert nixpatch("plan", lacking.venv)[0] == 0
    os.unlink(project)
    write(lacking, "pyproject.toml", "[project]\nname = 'x'\ndependencies = ['nixpatch']\n")
    code, _, err = nixpatch("plan", lacking.venv)
    assert code == 2
    assert "nonsense: no such table; there are dlopen, drivers, ignore, runtime, system" in err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[", "not TOML"),
        ("lib = ['/opt/lib']", "lib: no such table; there are dlopen, drivers, ignore, runtime, system"),
        ("[ignored]", "ignored: no such table"),
        ("[libc]\nglibc = ['libz.so.1']", "libc: "),
        ('[[ignore]]\nfile = "*"\nsonames = ["x"]', "ignore, row 1: reason is missing"),
    ],
)
def test_a_policy_that_is_none(lacking: World, nixpatch: Run, text: str, why: str) -> None:
    code, out, err = nixpatch(lacking.venv, "--policy", write(lacking, "rules.toml", text))

    assert (code, out) == (2, "")
    assert "rules.toml: " in err
    assert why in err


def test_a_policy_that_does_not_exist(lacking: World, nixpatch: Run) -> None:
    code, _, err = nixpatch(lacking.venv, "--policy", "/no/such/rules.toml")

    assert code == 2
    assert "/no/such/rules.toml: cannot be read" in err


def test_a_library_that_a_file_opens_at_run_time(world: World, nixpatch: Run) -> None:
    lonely = shared("library.c", os.path.join(world.site, "pkg", "_lonely.so"), "-Wl,-soname,_lonely.so")

    code, _, _ = nixpatch(world.venv, "--runtime-dep", "libanswer.so.1@*/_lonely.so")

    assert code == 0
    facts = elf.read(lonely)
    assert isinstance(facts, ElfFacts)
    assert facts.current.search_path == world.library
    assert nixpatch("verify", world.venv)[0] == 0


def test_a_runtime_dep_that_is_none(world: World, nixpatch: Run) -> None:
    code, _, err = nixpatch(world.venv, "--runtime-dep", "lib/libx.so")

    assert code == 2
    assert "--runtime-dep lib/libx.so: not SONAME" in err


def test_verify_knows_what_a_file_without_an_edit_may_miss(lacking: World, nixpatch: Run) -> None:
    """The rule holds for a verify without it; nothing else is written, and all of it goes again."""
    other = os.path.join(lacking.site, "pkg", "_other.abi3.so")
    os.rename(os.path.join(lacking.site, "pkg", "_other.so"), other)
    lacking.write_record(record_row(other, lacking.site))
    before = lacking.snapshot()
    ignoring = ("--ignore-missing", "libgone*")
    assert nixpatch("plan", "--check", *ignoring, other)[0] == 1

    assert nixpatch(other, *ignoring)[0] == 0

    code, out, _ = nixpatch("verify", "-v", other)
    assert (code, "needs libgone.so.3, which may be missing by a rule of the run" in out) == (0, True), out
    changed = {name for name, data in lacking.snapshot().items() if before.get(name) != data}
    info = os.path.relpath(lacking.info, lacking.venv)
    assert changed == {f"{info}/RECORD", f"{info}/nixpatch.json"}
    after = lacking.snapshot()
    assert nixpatch("plan", "--check", *ignoring, other)[0] == 0
    assert nixpatch(lacking.venv, *ignoring)[0] == 0
    assert nixpatch("verify", lacking.venv)[0] == 0
    assert nixpatch("restore", lacking.extension)[0] == 0
    assert nixpatch("restore", lacking.program)[0] == 0
    assert lacking.snapshot() == after

    assert nixpatch("restore", lacking.venv)[0] == 0
    assert lacking.snapshot() == before
    # Without the rule the entry goes, and the library is missing again.
    nixpatch(other, *ignoring)
    assert nixpatch(other)[0] == 1
    assert lacking.snapshot() == before
    assert nixpatch("verify", lacking.venv)[0] == 1


@pytest.mark.parametrize(
    "ignored", ["[]", '{"pkg/_other.so": "libgone.so.3"}', '{"pkg/_other.so": [3]}', '{"\\u0000": []}']
)
def test_provenance_that_is_damaged_there_is_not_believed(
    ignored: str, lacking: World, nixpatch: Run
) -> None:
    document = f'{{"version": 1, "tool": "x", "files": {{}}, "ignored": {ignored}}}'
    write(lacking, os.path.join(lacking.info, "nixpatch.json"), document)

    code, out, _ = nixpatch("verify", lacking.venv)

    assert code == 1
    assert "cannot be used: " in out
