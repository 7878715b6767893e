"""Where an installer may install to, from its words and the environment.

Several places may come into question. Which one it was is not guessed: all are looked at before and after.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence

from nixpatch.errors import RequestError
from nixpatch.fs import read_head
from nixpatch.installed import python_layout

# Options of uv run with a value, from `uv run --help` of uv 0.13: what follows is not the command.
_UV_RUN_VALUES = frozenset(
    {
        "--extra", "--no-extra", "--group", "--no-group", "--only-group", "--no-editable-package",
        "--env-file", "-w", "--with", "--with-editable", "--with-requirements", "--package",
        "--python-platform", "--index", "--default-index", "-i", "--index-url", "--extra-index-url", "-f",
        "--find-links", "--index-strategy", "--keyring-provider", "-P", "--upgrade-package",
        "--upgrade-group", "--resolution", "--prerelease", "--prerelease-package", "--fork-strategy",
        "--exclude-newer", "--exclude-newer-package", "--no-sources-package", "--reinstall-package",
        "--link-mode", "-C", "--config-setting", "--config-settings-package",
        "--no-build-isolation-package", "--no-build-package", "--no-binary-package", "--cache-dir",
        "--refresh-package", "-p", "--python", "--color", "--allow-insecure-host", "--directory",
        "--project", "--config-file",
    }
)  # fmt: skip
# Those that say what the command is: there is nothing to install first for a script from elsewhere.
_UV_RUN_OTHER = frozenset({"-s", "--script", "--gui-script", "-h", "--help", "--no-sync", "--isolated"})
_SCRIPT_HEAD = 64 << 10


def venv_of_pip(python: str | None, environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the venv that pip works on and its Python: of ``--python``, VIRTUAL_ENV, or ``./.venv``.

    Raises:
        RequestError: there is none, or it is no venv.

    """
    for name, given in (("--python", python), ("VIRTUAL_ENV", environment.get("VIRTUAL_ENV"))):
        if given:
            venv = _venv_of(given, environment)
            if venv is None:
                raise RequestError(
                    f"{name} {given}: in no venv (there is no {python_layout.NAME}); for another Python use "
                    "nixpatch wrap --tree DIR -- PYTHON -m pip ..."
                )
            return venv, os.path.join(venv, "bin", "python")
    venv = os.path.abspath(".venv")
    if python_layout.read_config(venv) is None:
        raise RequestError("no venv: activate one, name its Python with --python, or make one in ./.venv")
    return venv, os.path.join(venv, "bin", "python")


def active_venv(environment: Mapping[str, str]) -> str:
    """Return the venv that is active, else ``./.venv``, which an installer may be about to make."""
    return environment.get("VIRTUAL_ENV") or os.path.abspath(".venv")


def pip_targets(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the directories that ``pip install`` was told to install to instead of the venv."""
    yield from _values(arguments, ("-t", "--target", "--prefix"))


def uv_trees(arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Yield what uv may write to (docs.astral.sh/uv, "Using environments" and "Project environment path").

    That is where ``--target``, ``--prefix`` and ``--python`` lead, the active venv, the venv of the project
    or workspace, which is in one of the directories above, and the venvs of ``uv tool``.

    Raises:
        RequestError: uv is to install into whatever Python it finds, which may be all of /usr.

    """
    if "pip" in arguments and ("--system" in arguments or environment.get("UV_SYSTEM_PYTHON")):
        raise RequestError("uv pip --system installs into no venv: name what it installs to with --tree")
    words = _values(arguments, ("--directory", "--project"))
    bases = [os.path.abspath(base) for base in (".", *words, environment.get("UV_PROJECT", "."))]
    if "pip" in arguments:
        yield from _values(arguments, ("--target", "--prefix"))
    pythons = [*_values(arguments, ("-p", "--python")), environment.get("UV_PYTHON", "")]
    pythons.append(environment.get("VIRTUAL_ENV", ""))
    for python in filter(None, pythons):
        venv = _venv_of(python, environment)
        if venv is not None:
            yield venv
    if "tool" in arguments:
        yield from _tools(environment)
    named = environment.get("UV_PROJECT_ENVIRONMENT", "")
    if os.path.isabs(named):
        yield named  # a prefix that is no venv, such as /usr/local, will do for uv
    names = [".venv", *([named] if named and not os.path.isabs(named) else [])]
    for base in bases:
        for directory in _upwards(base):
            for name in names:
                # The one that uv is about to make is not there yet.
                venv = os.path.join(directory, name)
                if not os.path.lexists(venv) or python_layout.read_config(venv) is not None:
                    yield venv


def uv_run_preparation(arguments: Sequence[str]) -> tuple[str, ...] | None:
    """Return what makes ``uv run`` install the same and run nothing; None if these are no words of uv run.

    It must be patched before the command starts, and uv itself installs and starts in one go.
    """
    words = list(arguments)
    run = _first_word(words, 0)
    if run is None or words[run] != "run" or _UV_RUN_OTHER & set(words[: _first_word(words, run + 1)]):
        return None
    command = _first_word(words, run + 1)
    if command is None or _has_own_environment(words[command]):
        return None
    options = (word for word in words[:command] if word not in {"-m", "--module", "--"})
    return (*options, "--", "python", "-c", "")


def _has_own_environment(command: str) -> bool:
    """Whether it is a script with inline metadata (PEP 723): uv makes it an environment in its cache."""
    try:
        return command.endswith(".py") and b"\n# /// script" in b"\n" + read_head(
            os.path.realpath(command), _SCRIPT_HEAD
        )
    except OSError:
        return False


def _first_word(words: Sequence[str], start: int) -> int | None:
    """Return the index of the first word that is neither an option nor the value of one."""
    position = start
    while position < len(words):
        word = words[position]
        if word == "--":
            return position + 1 if position + 1 < len(words) else None
        if not word.startswith("-") or word == "-":
            return position
        position += 2 if word in _UV_RUN_VALUES else 1
    return None


def _values(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the values of some options: ``--x V``, ``--x=V``, ``-xV``."""
    found: list[str] = []
    for position, word in enumerate(arguments):
        for name in names:
            if word == name:
                found += arguments[position + 1 : position + 2]
            elif name.startswith("--") and word.startswith(f"{name}="):
                found.append(word.partition("=")[2])
            elif not name.startswith("--") and word.startswith(name):
                found.append(word.removeprefix(name))
    return found


def _venv_of(python: str, environment: Mapping[str, str]) -> str | None:
    """Return the venv that ``python`` is, or is the interpreter of; None where that is in no venv."""
    path = python
    if "/" not in python and not os.path.isdir(python):
        path = shutil.which(python, path=environment.get("PATH")) or python
    path = os.path.abspath(path)
    # Not resolved: bin/python of a venv is a link to the Python that it was made of.
    above = os.path.dirname(os.path.dirname(path))
    return next((place for place in (path, above) if python_layout.read_config(place) is not None), None)


def _tools(environment: Mapping[str, str]) -> Iterator[str]:
    data = environment.get("XDG_DATA_HOME") or os.path.join(environment.get("HOME", ""), ".local", "share")
    tools = environment.get("UV_TOOL_DIR") or os.path.join(data, "uv", "tools")
    if os.path.isdir(tools):
        with os.scandir(tools) as entries:
            yield from sorted(entry.path for entry in entries if entry.is_dir())


def _upwards(directory: str) -> Iterator[str]:
    while True:
        yield directory
        parent = os.path.dirname(directory)
        if parent == directory:
            return
        directory = parent
