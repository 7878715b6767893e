"""The table of installers: every row is usable, and the command lines of installers are understood."""

from __future__ import annotations

import os
import time

import pytest

from nixpatch.cli import installer_table
from nixpatch.cli.installer_table import Installer, install_first, installers, recognize


def _environment(path: str) -> str:
    os.makedirs(os.path.join(path, "lib", "python3.11", "site-packages"))
    with open(os.path.join(path, "pyvenv.cfg"), "w", encoding="utf-8") as file:
        file.write("home = /nowhere\n")
    return path


@pytest.mark.parametrize("row", installers().values(), ids=lambda row: row.name)
def test_a_row_is_complete(
    row: Installer, tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its source and a place; a place that it names is seen as soon as an environment is in it."""
    base = os.path.realpath(tmp_path)
    monkeypatch.chdir(base)
    variables = {word for place in (*row.environments, *row.pythons) for word in _variables(place)}
    environ = {name: os.path.join(base, name) for name in variables | {"HOME"}}
    assert row.source.startswith("https://")
    assert row.environments or row.pythons
    for pattern in row.environments:
        path = installer_table.places([Installer(row.name, "", environments=(pattern,))], environ)[0]
        if path.startswith(base):
            made = _environment(path.replace("*", "x"))
            assert made in installer_table.environments([row], environ), pattern


def _variables(place: str) -> list[str]:
    return [word.partition("/")[0] for word in place.split("$")[1:]]


def test_a_variable_that_is_not_set_leaves_a_place_out_but_xdg_has_defaults() -> None:
    row = Installer("x", "", environments=("$X_HOME/*", "$XDG_CACHE_HOME/x/*"))

    assert installer_table.places([row], {"HOME": "/h"}) == ["/h/.cache/x/*"]
    assert installer_table.places([row], {"X_HOME": "/o", "XDG_CACHE_HOME": "/c"}) == ["/o/*", "/c/x/*"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("poetry install", "poetry"),
        ("/opt/bin/pipx install x", "pipx"),
        ("python3.11 -m tox", "tox"),
        ("/v/bin/python -m pre_commit run", "pre-commit"),
        ("python -m pip install x", None),
        ("make venv", None),
    ],
)
def test_an_installer_is_known_by_its_program_or_module(words: str, name: str | None) -> None:
    call = recognize(words.split())

    assert (call.installer.name if call else None) == name


@pytest.mark.parametrize(
    ("words", "first", "then"),
    [
        ("tox", "tox --notest", "tox --skip-pkg-install"),
        ("tox run -e a -- -x", "tox run -e a --notest -- -x", "tox run -e a --skip-pkg-install -- -x"),
        ("tox -e a,b", "tox -e a,b --notest", "tox -e a,b --skip-pkg-install"),
        ("tox config -k x", None, None),
        ("tox --version", None, None),
        ("nox -s tests -- -k x", "nox -s tests --install-only -- -k x", "nox -s tests -R -- -k x"),
        ("nox -l", None, None),
        ("python -m nox", "python -m nox --install-only", "python -m nox -R"),
        ("pre-commit run ruff -c f -a", "pre-commit install-hooks -c f", "pre-commit run ruff -c f -a"),
        ("pre-commit", "pre-commit install-hooks", "pre-commit"),
        ("pre-commit install-hooks", None, None),
        ("pre-commit install", None, None),
        ("hatch run a b", "hatch run true", "hatch run a b"),
        ("hatch -e x run +py=3.11 t:a b", "hatch -e x run +py=3.11 t:true", "hatch -e x run +py=3.11 t:a b"),
        ("hatch run ruff --version", "hatch run true", "hatch run ruff --version"),
        ("hatch run --help", None, None),
        ("hatch test -py 3.12 tests", "hatch test -py 3.12 tests --version", "hatch test -py 3.12 tests"),
        ("hatch test --help", None, None),
        (
            "hatch -p x --data-dir=d fmt --check",
            "hatch env create hatch-static-analysis -p x --data-dir=d",
            "hatch -p x --data-dir=d fmt --check",
        ),
        ("hatch build", None, None),
        ("pipx run --with a b -c", "pipx run --with a --spec b python -c ?", "pipx run --with a b -c"),
        ("pipx run --spec=a b -c", "pipx run --spec=a python -c ?", "pipx run --spec=a b -c"),
        ("pipx run --no-cache a", None, None),
        ("pipx run --backend=uv a", None, None),
        ("hatch run script.py", None, None),
        ("pipx run script.py", None, None),
        ("pipx run", None, None),
        ("pipx install a", None, None),
        ("poetry run x", None, None),
    ],
)
def test_what_installs_and_runs_at_once_installs_first(
    words: str, first: str | None, then: str | None
) -> None:
    call = recognize(words.split())
    assert call is not None

    split = install_first(call, {})

    if split is None:
        assert (first, then) == (None, None)
    else:
        words_of = (" ".join(word or "?" for word in command) for command in (split.install, split.run))
        assert tuple(words_of) == (first, then)


def test_a_setting_of_the_user_may_not_allow_it() -> None:
    call = recognize(("pipx", "run", "tool"))
    assert call is not None
    assert install_first(call, {"PIPX_DEFAULT_BACKEND": "pip"}) == install_first(call, {})
    assert install_first(call, {"PIPX_DEFAULT_BACKEND": "uv"}) is None


def test_an_environment_of_an_unknown_installer_is_seen(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = os.path.realpath(tmp_path)
    home, work, named = (os.path.join(base, name) for name in ("home", "work", "srv/envs"))
    for directory in (home, work, named):
        os.makedirs(directory)
    monkeypatch.chdir(work)
    places = [f"{home}/.some-tool/env", f"{home}/.cache/t/env", f"{work}/a/env", f"{named}/env"]
    for path in places:
        _environment(path)

    def changed(begin: float, *words: str) -> set[str]:
        return set(installer_table.changed_since(int(begin * 1e9), words, {"HOME": home}))

    assert changed(time.time(), "setup", f"--prefix={named}") == set(places)
    assert changed(time.time(), "setup") == set(places[:3])
    assert changed(time.time() + 60, "setup", named) == set()
