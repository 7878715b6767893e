"""One command for any tree that a user has: before, after, verify, restore.

Layouts of tools are made by hand of copies of one venv; the Python and the loader are real.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources

import jsonschema
import pytest

from support.world import Run, World

pytestmark = pytest.mark.gcc

SCHEMA = json.loads(resources.files("nixpatch").joinpath("data/report.schema.json").read_text("utf-8"))
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
SITE = f"lib/python{VERSION}/site-packages"
REFUSED = "cannot open shared object file"

Make = Callable[[World, str], World]
"""makes a tree at a path"""


def venv(world: World, path: str) -> World:
    shutil.copytree(world.venv, path, symlinks=True)
    return replace(world, venv=path)


def without_config(world: World, path: str) -> World:
    """What virtualenv made before version 20: a copy of the interpreter, and no pyvenv.cfg."""
    made = venv(world, path)
    os.unlink(os.path.join(path, "pyvenv.cfg"))
    return made


def conda(world: World, path: str) -> World:
    made = without_config(world, path)
    os.mkdir(os.path.join(path, "conda-meta"))
    return made


def user_base(world: World, path: str) -> World:
    """What pip --user makes: no interpreter."""
    made = without_config(world, path)
    for name in os.listdir(os.path.join(path, "bin")):
        if name.startswith("python"):
            os.unlink(os.path.join(path, "bin", name))
    return made


@dataclass(frozen=True)
class Flat(World):
    """A directory with the packages themselves."""

    @property
    def site(self) -> str:
        return self.venv

    @property
    def program(self) -> str:
        return os.path.join(self.venv, "bin", "pkg-tool")


def target(world: World, path: str) -> World:
    """What pip --target makes."""
    shutil.copytree(world.site, path, symlinks=True)
    flat = Flat(world.root, path, world.store, world.library)
    os.mkdir(os.path.join(path, "bin"))
    shutil.copy(world.program, flat.program)
    flat.write_record()
    return flat


@dataclass(frozen=True)
class Packages(Flat):
    """A directory with the packages, and one for programs beside it."""

    @property
    def program(self) -> str:
        return os.path.join(os.path.dirname(self.venv), "bin", "pkg-tool")


def packages(world: World, path: str) -> World:
    """PEP 582, as pdm makes it."""
    flat = Packages(world.root, path, world.store, world.library)
    shutil.copytree(world.site, path, symlinks=True)
    os.mkdir(os.path.dirname(flat.program))
    shutil.copy(world.program, flat.program)
    flat.write_record()
    return flat


def linked(world: World, path: str) -> World:
    """A venv that lies elsewhere."""
    made = venv(world, os.path.join(world.root, "elsewhere", "venv"))
    os.symlink(made.venv, path)
    return made


def of_bin(world: World, path: str) -> World:
    """A venv whose bin is a link within it."""
    made = venv(world, path)
    os.rename(os.path.join(path, "bin"), os.path.join(path, "scripts"))
    os.symlink("scripts", os.path.join(path, "bin"))
    return made


def of_site(world: World, path: str) -> World:
    """A venv whose site-packages is a link within it."""
    made = venv(world, path)
    os.rename(made.site, os.path.join(path, "packages"))
    os.symlink("../../packages", made.site)
    return made


# kind -> the trees by path, the path that is named ("" is the directory above all), with an optional ":"
KINDS: dict[str, tuple[dict[str, Make], str]] = {
    "a venv": ({"env": venv}, "./env"),
    "./.venv of the current directory": ({".venv": venv}, "-"),
    "a project with .venv": ({".venv": venv}, ""),
    "a project with venvs of other names": ({"venv": venv, "env": venv}, ""),
    "a monorepo": ({"apps/a/.venv": venv, "libs/b/.venv": venv}, ""),
    "a site-packages": ({"env": venv}, f"env/{SITE}"),
    "the lib of a venv": ({"env": venv}, "env/lib"),
    "direnv": ({f".direnv/python-{VERSION}": venv}, ""),
    "tox": ({".tox/py311": venv, ".tox/lint": venv}, ".tox"),
    "nox": ({".nox/tests-3-11": venv}, ".nox"),
    "pre-commit's cache": ({"repo1ab/py_env-python3.11": venv, "repo2cd/py_env-python3": venv}, ""),
    "pipx": ({"pipx/venvs/ruff": venv, "pipx/shared": venv}, "pipx"),
    "a venv of pipx": ({"pipx/venvs/ruff": venv}, "pipx/venvs/ruff"),
    "UV_TOOL_DIR": ({"tools/ruff": venv, "tools/ty": venv}, "tools"),
    "poetry": ({"pypoetry/virtualenvs/app-Ab1-py3.11": venv}, "pypoetry"),
    "hatch": ({"hatch/env/virtual/app/Xy12/app": venv}, "hatch"),
    "pdm": ({"pdm/venvs/app-1a-3.11": venv}, "pdm"),
    "virtualenvwrapper": ({".virtualenvs/a": venv}, ".virtualenvs"),
    "PEP 582": ({f"__pypackages__/{VERSION}/lib": packages}, ""),
    "virtualenv before version 20": ({"old": without_config}, "old"),
    "below: virtualenv before version 20": ({"old": without_config}, ""),
    "a conda environment": ({"conda": conda}, "conda"),
    "below: conda environments": ({"conda/envs/a": conda, "conda/envs/b": conda}, "conda"),
    "pip install --target": ({"vendor": target}, "vendor"),
    "below: pip install --target": ({"vendor": target, ".venv": venv}, ""),
    "pip install --user": ({".local": user_base}, ".local"),
    "~/.local with tools in it": ({".local": user_base, ".local/share/uv/tools/ruff": venv}, ".local"),
    "a venv that is a link": ({".venv": linked}, ".venv"),
    "below: a venv that is a link": ({".venv": linked}, ""),
    "a venv with a linked bin": ({"env": of_bin}, "./env"),
    "a venv with a linked site-packages": ({"env": of_site}, "./env"),
    "pyenv and pyenv-virtualenv": (
        {"versions/3.11.7": without_config, "versions/3.11.7/envs/app": venv},
        "versions",
    ),
}


@pytest.fixture
def home(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """The current directory, empty."""
    home = os.path.join(world.root, "home")
    os.mkdir(home)
    monkeypatch.chdir(home)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.setenv("PATH", f"{os.path.dirname(os.path.realpath(sys.executable))}:{os.environ['PATH']}")
    return home


@pytest.mark.parametrize("kind", KINDS)
def test_before_after_verify_restore(kind: str, world: World, nixpatch: Run, home: str) -> None:
    trees, named = KINDS[kind]
    made = []
    for name, make in trees.items():
        path = os.path.join(home, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        made.append(make(world, path))
    words = [] if named == "-" else [named or "."]
    before = [tree.snapshot() for tree in made]
    above = sorted(os.listdir(home))
    assert all(REFUSED in tree.ask() for tree in made)

    code, out, err = nixpatch(*words)

    assert code == 0, (out, err)
    assert [tree.ask() for tree in made] == ["42"] * len(made)
    if not named.endswith("/lib"):
        assert [tree.run_program() for tree in made] == [42] * len(made)
    if len(made) > 1:
        assert f"{len(made)} trees: Patched" in out
    assert sorted(os.listdir(home)) == above
    assert nixpatch("verify", *words)[0] == 0
    assert nixpatch("patch", "--check", *words)[0] == 0
    assert nixpatch("restore", *words)[0] == 0
    assert [tree.snapshot() for tree in made] == before


def test_each_tree_has_one_line_and_all_have_a_sum(world: World, nixpatch: Run, home: str) -> None:
    for name in (".tox/py311", ".tox/lint"):
        venv(world, os.path.join(home, name))

    code, out, err = nixpatch(".tox")

    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert [line.partition(": ")[0] for line in lines] == [".tox/lint", ".tox/py311", "2 trees"]
    assert all("Patched 2 of 2 ELF files" in line for line in lines[:2])
    assert "Patched 4 of 4 ELF files" in lines[2]
    assert nixpatch(".tox", "-q") == (0, "", "")
    assert (
        nixpatch("verify", ".tox")[1].splitlines()[-1] == "2 trees: OK: checked 4 patched files: no errors."
    )


def test_a_line_on_several_trees_names_the_tree(world: World, nixpatch: Run, home: str) -> None:
    """The file has the same name below each of them."""
    for name in ("a/.venv", "b/.venv"):
        venv(world, os.path.join(home, name))
    extension = os.path.relpath(world.extension, world.venv)
    nixpatch(".")
    os.unlink(os.path.join(home, "b/.venv", extension))

    code, out, _ = nixpatch("verify", ".")
    assert code == 1
    of_a, *of_b, _ = out.splitlines()
    assert of_a.startswith("a/.venv: OK")
    assert {line.partition(":")[0] for line in of_b} == {f"b/.venv/{extension}", "b/.venv"}

    nixpatch("restore", ".")
    os.unlink(os.path.join(world.library, "libanswer.so.1"))
    for command in ("plan", "missing", "tree"):
        code, out, _ = nixpatch(command, ".")
        assert code == 1
        for name in ("a/.venv", "b/.venv"):
            assert re.search(rf"^{re.escape(name)}(:|$)", out, re.MULTILINE), out


def test_one_tree_has_no_sum(world: World, nixpatch: Run, home: str) -> None:
    made = venv(world, os.path.join(home, "project", ".venv"))

    for command in ("patch", "verify", "restore"):
        code, out, _ = nixpatch(command, "project")
        assert (code, out.count("\n"), out.partition(": ")[0]) == (0, 1, "project/.venv")
    os.unlink(os.path.join(made.venv, "pyvenv.cfg"))
    shutil.rmtree(os.path.join(made.venv, "bin"))
    assert "1 tree" not in "".join(nixpatch("verify", "project")[1:])


def test_a_tree_that_cannot_be_used_does_not_stop_the_others(world: World, nixpatch: Run, home: str) -> None:
    good, broken = venv(world, os.path.join(home, "a/.venv")), venv(world, os.path.join(home, "b/.venv"))
    for name in os.listdir(os.path.join(broken.venv, "bin")):
        if name.startswith("python"):
            os.unlink(os.path.join(broken.venv, "bin", name))
    with open(os.path.join(broken.venv, "pyvenv.cfg"), "w", encoding="utf-8") as file:
        file.write("home = /nowhere/bin\n")
    before = broken.snapshot()

    code, out, err = nixpatch(".")

    assert (code, good.ask(), broken.snapshot()) == (2, "42", before)
    assert err.startswith("nixpatch: ")
    assert err.count("\n") == 1
    assert "b/.venv" in err
    assert "2 trees: Patched 2 of 2" in out
    assert "1 tree left as found" in out
    for command in ("plan", "tree", "missing"):
        code, out, _ = nixpatch(command, "--json", ".")
        document = json.loads(out)
        jsonschema.validate(document, SCHEMA)
        assert (code, len(document["trees"])) == (2, 1)
        assert [entry["path"] for entry in document["refused"]] == ["b/.venv"]
    code, out, _ = nixpatch("verify", "--json", ".")
    document = json.loads(out)
    jsonschema.validate(document, SCHEMA)
    assert (code, [tree["summary"]["errors"] for tree in document["trees"]]) == (1, [0, 1])
    # One that is named stops the run before anything is written.
    nixpatch("restore", good.venv)
    assert nixpatch(good.venv, broken.venv)[0] == 2
    assert REFUSED in good.ask()


@pytest.mark.parametrize("linked", ["lib", f"lib/python{VERSION}", SITE])
def test_a_site_packages_elsewhere_is_named_with_the_command(
    linked: str, world: World, nixpatch: Run, home: str
) -> None:
    inner = venv(world, os.path.join(home, ".venv"))
    elsewhere = os.path.join(world.root, "elsewhere", linked)
    os.makedirs(os.path.dirname(elsewhere))
    os.rename(os.path.join(inner.venv, linked), elsewhere)
    os.symlink(elsewhere, os.path.join(inner.venv, linked))
    real = os.path.realpath(inner.site)

    code, out, _ = nixpatch()

    command = f"nixpatch {real} --python {inner.venv}/bin/python"
    assert code == 1
    assert f"{real}: site-packages is a link to it, out of {inner.venv}" in out
    assert command in out
    assert nixpatch(*command.split()[1:])[0] == 0
    assert inner.ask() == "42"
    assert nixpatch()[0] == 0


def test_loose_files_beside_venvs_stay(world: World, nixpatch: Run, home: str) -> None:
    inner = venv(world, os.path.join(home, ".venv"))
    loose = os.path.join(home, "src", "_ext.so")
    os.mkdir(os.path.dirname(loose))
    shutil.copy(world.extension, loose)

    assert nixpatch(".")[0] == 0

    assert inner.ask() == "42"
    with open(loose, "rb") as changed, open(world.extension, "rb") as original:
        assert changed.read() == original.read()


@pytest.mark.parametrize("kind", ["a directory", "a prefix"])
def test_in_a_build_the_loose_files_of_the_output_are_patched_too(
    kind: str, world: World, nixpatch: Run, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIX_BUILD_TOP", home)
    out = os.path.join(home, "out")
    inner = venv(world, os.path.join(out, "libexec/app"))
    vendored = target(world, os.path.join(out, "share/app/vendor"))
    loose = Flat(world.root, os.path.join(out, "lib"), world.store, world.library)
    os.makedirs(os.path.dirname(loose.extension))
    shutil.copy(world.extension, loose.extension)
    if kind == "a prefix":
        user_base(world, os.path.join(out, "usr"))
        for name in ("bin", "lib"):
            shutil.copytree(os.path.join(out, "usr", name), os.path.join(out, name), dirs_exist_ok=True)
        shutil.rmtree(os.path.join(out, "usr"))
    trees = (inner, vendored, loose)

    code, text, err = nixpatch(out, "--lib", world.library)

    assert (code, [tree.ask() for tree in trees]) == (0, ["42"] * 3), (text, err)
    assert nixpatch("verify", out)[0] == 0
    for tree in (inner, vendored):
        assert not os.path.exists(os.path.join(tree.venv, ".nixpatch.json"))
        assert os.path.exists(os.path.join(tree.info, "nixpatch.json"))
    with open(os.path.join(out, ".nixpatch.json"), encoding="utf-8") as file:
        assert list(json.load(file)["files"]) == ["lib/pkg/_ext.so"]


@pytest.mark.parametrize("command", ["tree", "missing", "plan", "verify"])
def test_commands_that_read_take_directories_above(
    command: str, world: World, nixpatch: Run, home: str
) -> None:
    for name in ("a/.venv", "b/.venv"):
        venv(world, os.path.join(home, name))
    nixpatch(".")

    code, out, _ = nixpatch(command, "--json", ".")

    assert (code, len(json.loads(out)["trees"])) == (0, 2)


@pytest.mark.parametrize(
    "words",
    [
        ("verify",),
        ("tree",),
        ("missing",),
        ("plan",),
        ("restore", "--dry-run"),
        ("lock", "-o", "l"),
        ("env", "--print"),
        ("manylinux", "status"),
    ],
)
def test_without_a_path_every_command_takes_the_active_venv_or_the_one_here(
    words: tuple[str, ...], world: World, nixpatch: Run, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = nixpatch(*words)
    assert code == 2
    assert "no active venv (VIRTUAL_ENV) and no ./.venv" in err
    local = venv(world, os.path.join(home, ".venv"))
    assert nixpatch()[0] == 0
    assert local.ask() == "42"
    # What Python claims is not met by this small store, and that is what manylinux says.
    expected = 1 if words[0] == "manylinux" else 0
    assert nixpatch(*words)[0] == expected
    monkeypatch.setenv("VIRTUAL_ENV", world.venv)
    assert nixpatch()[0] == 0
    assert world.ask() == "42"
    assert nixpatch(*words)[0] == expected


def test_commands_for_one_tree_want_one_named(world: World, nixpatch: Run, home: str) -> None:
    for name in ("a", "b"):
        venv(world, os.path.join(home, name))

    code, _, err = nixpatch("lock", ".")

    assert code == 2
    assert ".: has 2 trees: name one of them: a, b" in err
