"""Which trees a path means: layouts of installers and environment managers, made by hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nixpatch.errors import RequestError
from nixpatch.installed.tree_roots import default_tree, enclosing, find_roots, real_name
from nixpatch.model import TreeKind
from support.installed_trees import ELF, SITE, dist, write


def venv(path: str) -> str:
    write(os.path.join(path, "pyvenv.cfg"), b"home = /usr/bin\nversion = 3.11.7\n")
    dist(os.path.join(path, SITE), "pkg", {"pkg/m.so": ELF})
    write(os.path.join(path, "bin/python"), mode=0o755)
    return path


def prefix(path: str) -> str:
    dist(os.path.join(path, SITE), "pkg", {"pkg/m.so": ELF})
    write(os.path.join(path, "bin/python3.11"), mode=0o755)
    return path


def conda(path: str) -> str:
    write(os.path.join(path, "conda-meta/history"), b"")
    return prefix(path)


def target(path: str) -> str:
    dist(path, "pkg", {"pkg/m.so": ELF})
    return path


def linked(path: str, elsewhere: str) -> str:
    os.symlink(os.path.relpath(venv(elsewhere), os.path.dirname(path)), path)
    return path


Make = Callable[[str], object]

ABOVE: dict[str, tuple[dict[str, Make], list[str]]] = {
    "a project with .venv and src": ({".venv": venv, "src/build": lambda p: write(f"{p}/m.so")}, [".venv"]),
    "a project with venvs of two versions": ({"venv": venv, "env-3.12": venv}, ["env-3.12", "venv"]),
    "a monorepo": ({"a/.venv": venv, "libs/b/.venv": venv}, ["a/.venv", "libs/b/.venv"]),
    "direnv": ({".direnv/python-3.11": venv}, [".direnv/python-3.11"]),
    "tox": (
        {".tox/py311": venv, ".tox/lint": venv, ".tox/.pkg": venv},
        [".tox/.pkg", ".tox/lint", ".tox/py311"],
    ),
    "nox": ({".nox/tests-3-11": venv, ".nox/lint": venv}, [".nox/lint", ".nox/tests-3-11"]),
    "pre-commit's cache": (
        {
            "repo1ab/py_env-python3.11": venv,
            "repo2cd/py_env-python3": venv,
            "repo3/node_env-default": os.makedirs,
        },
        ["repo1ab/py_env-python3.11", "repo2cd/py_env-python3"],
    ),
    "pipx": ({"pipx/venvs/ruff": venv, "pipx/shared": venv}, ["pipx/shared", "pipx/venvs/ruff"]),
    "UV_TOOL_DIR": ({"ruff": venv, "ty": venv, ".lock": lambda p: write(p, b"")}, ["ruff", "ty"]),
    "uv's cache": (
        {
            "CACHEDIR.TAG": lambda p: write(p, b"Signature: 8a477f597d28d172789f06886806bc55"),
            "archive-v0/AbC": target,
            "environments-v2/script-1a2b": venv,
            "archive-v0/XyZ": venv,
        },
        ["archive-v0/XyZ", "environments-v2/script-1a2b"],
    ),
    "poetry": ({"virtualenvs/app-Ab1-py3.11": venv, "cache/x": os.makedirs}, ["virtualenvs/app-Ab1-py3.11"]),
    "hatch": ({"hatch/env/virtual/app/Xy12/app": venv}, ["hatch/env/virtual/app/Xy12/app"]),
    "pdm": ({"pdm/venvs/app-1a-3.11": venv}, ["pdm/venvs/app-1a-3.11"]),
    "PEP 582": ({"__pypackages__/3.11/lib": target}, ["__pypackages__/3.11"]),
    "virtualenvwrapper": (
        {".virtualenvs/a": venv, ".virtualenvs/b": venv},
        [".virtualenvs/a", ".virtualenvs/b"],
    ),
    "an older virtualenv, without pyvenv.cfg": ({"old": prefix}, ["old"]),
    "pyenv with pyenv-virtualenv": (
        {
            "versions/3.11.7": prefix,
            "versions/3.11.7/envs/app": venv,
            "versions/app": lambda p: os.symlink("3.11.7/envs/app", p),
        },
        ["versions/3.11.7", "versions/3.11.7/envs/app"],
    ),
    "uv's Pythons": ({"cpython-3.11.7-linux-x86_64-gnu": prefix}, ["cpython-3.11.7-linux-x86_64-gnu"]),
    "conda": (
        {
            "pkgs/urls.txt": lambda p: write(p, b""),
            "pkgs/numpy-1-py311": target,
            "pkgs/python-3.11.7-0": prefix,
            "envs/science": conda,
            "envs/tools": conda,
        },
        ["envs/science", "envs/tools"],
    ),
    "pip install --target": ({"vendor": target}, ["vendor"]),
    "a venv that is a link to another in the tree": (
        {".venv": lambda p: linked(p, f"{p}-elsewhere/venvs/x")},
        [".venv-elsewhere/venvs/x"],
    ),
    "a venv that is a link out of the tree": (
        {".venv": lambda p: linked(p, f"{os.path.dirname(p)}-elsewhere")},
        [".venv"],
    ),
    "no Python there": (
        {
            "node_modules/x/.venv": venv,
            ".git/.venv": venv,
            "result": lambda p: os.symlink(prefix(f"{p}-store/.git/x"), p),
            "windows": lambda p: write(f"{p}/pyvenv.cfg", b"home = C:"),
            ".venv": venv,
        },
        [".venv"],
    ),
}


@pytest.mark.parametrize("layout", ABOVE)
def test_a_directory_above_trees_means_each_of_them(layout: str, tmp_path: Path) -> None:
    places, expected = ABOVE[layout]
    for name, make in places.items():
        path = os.path.join(tmp_path, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        make(path)

    roots = find_roots(str(tmp_path))

    assert [os.path.relpath(root, tmp_path) for root in roots.roots] == expected
    assert roots.is_above


@pytest.mark.parametrize(
    "part",
    [
        ".",
        "lib",
        SITE,
        f"{SITE}/pkg",
        f"{SITE}/pkg/m.so",
        "bin",
        f"{SITE}/setuptools/_vendor",
    ],
)
def test_a_tree_and_a_part_of_it_mean_themselves(part: str, tmp_path: Path) -> None:
    root = venv(os.path.join(tmp_path, "venv"))
    dist(os.path.join(root, SITE, "setuptools/_vendor"), "jaraco", {"jaraco/m.py": b""})
    path = os.path.join(root, part)

    roots = find_roots(path)

    assert (roots.roots, roots.is_above) == ((path,), False)
    found = enclosing(path)
    assert found is not None
    assert (found.root, found.kind) == (os.path.realpath(root), TreeKind.VENV)


def test_the_home_of_pip_user_has_trees_below_it(tmp_path: Path) -> None:
    local = os.path.join(tmp_path, ".local")
    dist(os.path.join(local, SITE), "pkg", {"pkg/m.so": ELF, "../../../bin/tool": ELF})
    tool = venv(os.path.join(local, "share/uv/tools/ruff"))
    write(os.path.join(local, "share/app/plugin.so"))

    assert find_roots(local).roots == (local, tool)
    assert find_roots(os.path.join(local, "share")).roots == (tool,)
    assert enclosing(os.path.join(local, "share/app/plugin.so")) is None
    owner = enclosing(os.path.join(local, "bin/tool"))
    assert owner is not None
    assert owner.root == os.path.realpath(local)


def test_a_directory_of_elf_files_means_itself(tmp_path: Path) -> None:
    write(os.path.join(tmp_path, "deep/libx.so"))

    assert find_roots(str(tmp_path)).roots == (str(tmp_path),)
    assert find_roots(os.path.join(tmp_path, "nowhere")).roots == (os.path.join(tmp_path, "nowhere"),)


@pytest.mark.parametrize("path", ["/", "/usr", "/usr/lib", "/opt", "~"])
def test_a_directory_of_the_system_is_not_searched(path: str, tmp_path: Path) -> None:
    venv(os.path.join(tmp_path, ".venv"))
    path = str(tmp_path) if path == "~" else path

    assert find_roots(path, str(tmp_path)).roots == (path,)


def test_what_lies_too_deep_is_counted(tmp_path: Path) -> None:
    os.makedirs(os.path.join(tmp_path, *"abcdefghijklmnop"))
    venv(os.path.join(tmp_path, ".venv"))

    roots = find_roots(str(tmp_path))

    assert (len(roots.roots), roots.unsearched) == (1, 1)


def test_a_link_from_a_venv_into_a_cache_means_the_file_of_the_venv(tmp_path: Path) -> None:
    root, cache = venv(os.path.join(tmp_path, "venv")), target(os.path.join(tmp_path, "cache/archive-v0/Ab"))
    base = prefix(os.path.join(tmp_path, "base"))
    links = {
        f"{SITE}/linked.so": f"{cache}/pkg/m.so",
        "bin/tool": f"{cache}/pkg/m.so",
        f"{SITE}/inner.so": f"{root}/{SITE}/pkg/m.so",
        "bin/python3": f"{base}/bin/python3.11",
        "bin/other": f"{base}/bin/python3.11",
    }
    for name, leads_to in links.items():
        os.symlink(leads_to, os.path.join(root, name))

    names = {name for name, leads_to in links.items() if real_name(os.path.join(root, name)) != leads_to}

    assert names == {f"{SITE}/linked.so", "bin/tool"}


def test_links_are_not_followed_to_what_is_no_venv(tmp_path: Path) -> None:
    prefix(os.path.join(tmp_path, "elsewhere/of-mine"))
    os.makedirs(os.path.join(tmp_path, "project"))
    os.symlink("../elsewhere/of-mine", os.path.join(tmp_path, "project/venv"))
    os.symlink("..", os.path.join(tmp_path, "project/up"))

    assert not find_roots(os.path.join(tmp_path, "project")).is_above


def test_without_a_path_the_active_venv_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    active, local = venv(os.path.join(tmp_path, "active")), venv(os.path.join(tmp_path, ".venv"))

    assert default_tree({"VIRTUAL_ENV": active}) == active
    assert default_tree({}) == local
    assert default_tree({"CONDA_PREFIX": conda(os.path.join(tmp_path, "conda"))}) == local


def test_without_a_path_and_a_venv_the_message_names_one_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        RequestError, match=r"no \./\.venv: name a tree: nixpatch PATH, or see nixpatch --help"
    ):
        default_tree({})
    with pytest.raises(RequestError, match="nowhere: no venv"):
        default_tree({"VIRTUAL_ENV": "/nowhere"})
    venv(os.path.join(tmp_path, "myenv"))
    with pytest.raises(RequestError, match="nixpatch myenv"):
        default_tree({})
    active = conda(os.path.join(tmp_path, "conda"))
    assert default_tree({"CONDA_PREFIX": active}) == active
