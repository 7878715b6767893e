"""Where pip and uv may install to, and what uv starts in a new environment."""

from __future__ import annotations

import os
import sys

import pytest
from uv import find_uv_bin

from nixpatch.cli.destinations import UvStart, pip_trees, uv_start, uv_trees
from nixpatch.errors import RequestError


def _start(words: str) -> UvStart | None:
    return uv_start(words.split(), os.environ, find_uv_bin())


def _is(before: str, command: str, *, is_python: bool = False) -> UvStart:
    return UvStart(tuple(before.split()), tuple(command.split()), is_python)


@pytest.mark.parametrize(
    ("words", "start"),
    [
        ("run pytest -x", _is("run", "pytest -x")),
        ("run --extra test --frozen pytest --with x", _is("run --extra test --frozen", "pytest --with x")),
        ("--project d -q run -p 3 --with=x -- a b", _is("--project d -q run -p 3 --with=x --", "a b")),
        ("run -p3.12 -wsix -qw six -i ruff", None),
        ("run -qw six ruff", _is("run -qw six", "ruff")),
        ("run -m pytest -p no:x", _is("run -m", "pytest -p no:x", is_python=True)),
        ("run -qm pytest", _is("run -qm", "pytest", is_python=True)),
        ("run --script tool", _is("run --script", "tool", is_python=True)),
        ("run - x", _is("run", "- x", is_python=True)),
        ("run https://host/s.py", _is("run", "https://host/s.py", is_python=True)),
        ("run --with six -- python -m x", _is("run --with six --", "python -m x")),
        ("tool run ruff check", _is("tool run --from ruff", "ruff check")),
        ("tool run --with x ruff@0.6 check", _is("tool run --from ruff@0.6 --with x", "ruff check")),
        ("tool run a[b]>=2 -x", _is("tool run --from a[b]>=2", "a -x")),
        ("tool run -- ruff --help", _is("tool run --from ruff --", "ruff --help")),
        ("tool run --from a b c", _is("tool run --from a", "b c")),
        ("tool run git+https://host/x", _is("tool run --from git+https://host/x", "")),
        ("run", None),
        ("run --help", None),
        ("run -h x", None),
        ("tool run", None),
        ("tool run --version", None),
        ("tool install run", None),
        ("sync --script tool", None),
        ("pip install run", None),
        ("", None),
    ],
)  # fmt: skip
def test_what_uv_starts_is_known_from_its_own_options(words: str, start: UvStart | None) -> None:
    assert _start(words) == start


def test_a_file_that_uv_starts_a_python_for(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = os.path.realpath(tmp_path)
    for name in ("tool.py", "package/__main__.py", "else/x"):
        os.makedirs(os.path.dirname(os.path.join(base, name)), exist_ok=True)
        with open(os.path.join(base, name), "w", encoding="utf-8") as file:
            file.write("print(1)\n")
    monkeypatch.chdir(base)

    answers = [_start(f"run {name}") for name in ("tool.py", "package", "else", "missing.py")]

    assert [answer and answer.is_python for answer in answers] == [True, True, False, False]
    monkeypatch.chdir("/")
    answer = _start(f"--directory {base} run tool.py x")
    assert answer is not None
    assert answer.is_python


class TestPip:
    """Where pip installs to, besides the venv."""

    @staticmethod
    def _trees(words: str, **environ: str) -> list[str]:
        return pip_trees(words.split(), sys.executable, {**os.environ, **environ})[0]

    def test_in_every_spelling(self) -> None:
        words = "download -t a --target b --target=c -td --prefix=e x"

        assert sorted(self._trees(words)) == ["a", "b", "c", "d", "e"]

    def test_variables_and_files_of_pip(self, tmp_path: os.PathLike[str]) -> None:
        config = os.path.join(tmp_path, "pip.conf")
        with open(config, "w", encoding="utf-8") as file:
            file.write("[install]\nprefix = /srv/p\n")

        assert self._trees("install x", PIP_TARGET="/srv/t") == ["/srv/t"]
        assert self._trees("install x", PIP_CONFIG_FILE=config) == ["/srv/p"]
        trees = self._trees("install --root /srv/r --prefix=/usr x")
        assert trees == ["/srv/r/usr", f"/srv/r{sys.prefix}"]

    def test_the_site_of_the_user(self, tmp_path: os.PathLike[str]) -> None:
        base = os.path.realpath(tmp_path)
        (site,) = self._trees("install --user x", PYTHONUSERBASE=base)
        assert site.startswith(os.path.join(base, "lib", "python3."))
        assert self._trees("install x", PYTHONUSERBASE=base, PIP_USER="yes") == [site]
        assert self._trees("install x", PYTHONUSERBASE=base, PIP_USER="no") == []


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
