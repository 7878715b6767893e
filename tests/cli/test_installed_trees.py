"""Trees that real installers make, in every mode: one command, then verify, then restore."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from support.shop import Call, Shop, make_wheel
from support.world import shared

pytestmark = pytest.mark.gcc


@dataclass(frozen=True)
class Place:
    """Where to install what."""

    root: str
    wheel: str
    pip: str
    """a Python with pip"""

    def run(self, *command: str, **environ: str) -> None:
        done = subprocess.run(
            command, cwd=self.root, env={**os.environ, **environ}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)


def _install(place: Place, venv: str, mode: str = "copy") -> None:
    python = os.path.join(venv, "bin", "python")
    place.run("uv", "pip", "install", "--no-index", "--link-mode", mode, "--python", python, place.wheel)


def stdlib_venv(place: Place) -> str:
    place.run(sys.executable, "-m", "venv", "--without-pip", "env")
    _install(place, place.path("env"))
    return place.path("env")


def copied_venv(place: Place) -> str:
    place.run(sys.executable, "-m", "venv", "--without-pip", "--copies", "env")
    _install(place, place.path("env"))
    return place.path("env")


def uv_venv(*options: str, mode: str = "copy") -> Callable[[Place], str]:
    def make(place: Place) -> str:
        place.run("uv", "venv", "--python", sys.executable, *options, "env")
        _install(place, place.path("env"), mode)
        return place.path("env")

    return make


def project(place: Place) -> str:
    with open(place.path("pyproject.toml"), "w", encoding="utf-8") as file:
        links = f"[tool.uv]\nno-index = true\nfind-links = [{os.path.dirname(place.wheel)!r}]\n"
        text = '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3"\ndependencies = ["one"]\n'
        file.write(text + links)
    os.makedirs(place.path("src/app"))
    place.run("uv", "sync", "--python", sys.executable)
    return place.root


def uv_target(place: Place) -> str:
    place.run(
        *("uv", "pip", "install", "--no-index", "--python", sys.executable, "--target", "lib"), place.wheel
    )
    return place.path("lib")


def pip_target(place: Place) -> str:
    place.run(place.pip, "-m", "pip", "install", "-q", "--no-index", "--target", "lib", place.wheel)
    return place.path("lib")


def pip_prefix(place: Place) -> str:
    place.run(place.pip, "-m", "pip", "install", "-q", "--no-index", "--prefix", "prefix", place.wheel)
    return place.path("prefix")


def pip_user(place: Place) -> str:
    python = os.path.realpath(sys.executable)
    pip = glob.glob(os.path.join(os.path.dirname(os.path.dirname(place.pip)), "lib/python3*/site-packages"))
    environ = {"PYTHONUSERBASE": place.path("user"), "PYTHONPATH": pip[0]}
    options = ["--no-index", "--break-system-packages", "--ignore-installed"]
    place.run(python, "-m", "pip", "install", "-q", "--user", *options, place.wheel, **environ)
    return place.path("user")


def uv_tool(place: Place) -> str:
    environ = {"UV_TOOL_DIR": place.path("tools"), "UV_TOOL_BIN_DIR": place.path("bin")}
    place.run("uv", "tool", "install", "--no-index", "--python", sys.executable, place.wheel, **environ)
    return place.path("tools")


def command_of_uv_tool(place: Place) -> str:
    """The link to a program of a tool, as it lies on PATH."""
    uv_tool(place)
    return place.path("tools/one")


MAKERS: dict[str, Callable[[Place], str]] = {
    "venv": stdlib_venv,
    "venv --copies": copied_venv,
    "uv venv": uv_venv(),
    "uv venv --relocatable": uv_venv("--relocatable"),
    "uv pip --link-mode hardlink": uv_venv(mode="hardlink"),
    "uv pip --link-mode clone": uv_venv(mode="clone"),
    "uv pip --link-mode symlink": uv_venv(mode="symlink"),
    "uv sync": project,
    "uv pip --target": uv_target,
    "pip --target": pip_target,
    "pip --prefix": pip_prefix,
    "pip --user": pip_user,
    "uv tool install": uv_tool,
    "a tool of uv": command_of_uv_tool,
}


@pytest.fixture
def place(shop: Shop, pip_venv: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty directory, and a wheel with an extension module and a program."""
    monkeypatch.delenv("VIRTUAL_ENV")
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    library = os.path.join(shop.world.library, "libanswer.so.1")
    extension = shared("extension.c", os.path.join(shop.world.root, "ext.so"), library)
    with open(shop.world.program, "rb") as program:
        script = program.read()
    wheel = make_wheel(
        shop.wheels,
        "one",
        "1.0",
        extension,
        {
            "one-1.0.data/scripts/one-tool": script,
            # uv tool install wants an entry point.
            "one-1.0.dist-info/entry_points.txt": b"[console_scripts]\none = one:main\n",
        },
    )
    root = os.path.join(shop.world.root, "home")
    os.mkdir(root)
    monkeypatch.chdir(root)
    return Place(root, wheel, os.path.join(pip_venv, "bin", "python"))


def _state(root: str) -> dict[str, str]:
    state = {}
    for directory, folders, names in os.walk(root):
        for path in (os.path.join(directory, name) for name in (*folders, *names)):
            if os.path.islink(path):
                state[path] = os.readlink(path)
            elif os.path.isfile(path) and not path.endswith(".pyc"):
                with open(path, "rb") as file:
                    state[path] = hashlib.sha256(file.read()).hexdigest()
    return state


def _below(root: str, name: str) -> str:
    """Return the file of a name in a tree; links to directories are not followed."""
    return next(os.path.join(directory, name) for directory, _, names in os.walk(root) if name in names)


def _ask(extension: str) -> str:
    code = f"import ctypes; print(ctypes.CDLL({extension!r}).ask())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def _check(place: Place, named: str, call: Call) -> None:
    extension, tool = _below(place.root, "_ext.so"), _below(place.root, "one-tool")
    before, cache = _state(place.root), _state(os.environ["UV_CACHE_DIR"])
    assert "cannot open shared object file" in _ask(extension)

    code, out, err = call(named)

    assert code == 0, (out, err)
    assert _ask(extension) == "42"
    assert subprocess.run([tool], check=False).returncode == 42
    assert call("verify", named)[0] == 0
    assert call("patch", "--check", named)[0] == 0
    assert cache == _state(os.environ["UV_CACHE_DIR"])
    assert call("restore", named)[0] == 0
    assert _state(place.root) == before


@pytest.mark.parametrize("maker", MAKERS)
def test_before_after_verify_restore(maker: str, place: Place, call: Call) -> None:
    _check(place, MAKERS[maker](place), call)


@pytest.mark.pypi
@pytest.mark.parametrize("options", [(), ("--copies",), ("--app-data", "data")])
def test_virtualenv(options: tuple[str, ...], place: Place, call: Call, pip_venv: str) -> None:
    tools = place.path("tools-of-test")
    shutil.copytree(pip_venv, tools, symlinks=True)
    pip = [os.path.join(tools, "bin", "python"), "-m", "pip", "install", "-q", "--target", f"{tools}/x"]
    done = subprocess.run([*pip, "virtualenv"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("no index")
    virtualenv = [sys.executable, "-m", "virtualenv", "-q", "--no-download", "--without-pip"]
    place.run(*virtualenv, *options, "env", PYTHONPATH=f"{tools}/x")
    shutil.rmtree(tools)
    _install(place, place.path("env"))

    _check(place, place.path("env"), call)
