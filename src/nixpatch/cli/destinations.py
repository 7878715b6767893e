"""The directories that an installer may install to, from its arguments and the environment.

There may be several. nixpatch does not guess which one was used: it compares all of them before and after.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence

from nixpatch.errors import RequestError
from nixpatch.fs import read_head
from nixpatch.installed import python_layout

# Options of `uv run` with a value, from `uv run --help` of uv 0.13. uv installs and starts the command in one
# process; to patch in between, nixpatch has to know which word is the command and which is an option's value.
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
# Options that change what the command is or where it runs: then there is no environment to patch first.
_UV_RUN_OTHER = frozenset({"-s", "--script", "--gui-script", "-h", "--help", "--no-sync", "--isolated"})
_SCRIPT_HEAD = 64 << 10
"""bytes of a script that are searched for inline metadata"""


def venv_of_pip(python: str | None, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the venv that pip installs to, and its Python: ``--python``, VIRTUAL_ENV or ``./.venv``.

    Raises:
        RequestError: there is none, or it is no venv.

    """
    for name, given in (("--python", python), ("VIRTUAL_ENV", environ.get("VIRTUAL_ENV"))):
        if given:
            venv = _venv_of(given, environ)
            if venv is None:
                raise RequestError(
                    f"{name} {given}: not in a venv (no {python_layout.NAME}); for another Python use "
                    "nixpatch wrap --tree DIR -- PYTHON -m pip ..."
                )
            return venv, os.path.join(venv, "bin", "python")
    venv = os.path.abspath(".venv")
    if python_layout.read_config(venv) is None:
        raise RequestError("no venv: activate one, pass its Python with --python, or create ./.venv")
    return venv, os.path.join(venv, "bin", "python")


def active_venv(environ: Mapping[str, str]) -> str:
    """Return the active venv, else ``./.venv``, which an installer may create."""
    return environ.get("VIRTUAL_ENV") or os.path.abspath(".venv")


def pip_targets(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the directories that ``pip install`` installs to instead of the venv."""
    yield from _values(arguments, ("-t", "--target", "--prefix"))


def uv_trees(arguments: Sequence[str], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the directories that uv may install to.

    These are ``--target``, ``--prefix``, the venv of ``--python``, the active venv, the venv of the project
    or workspace, which is in this directory or one above, and the venvs of ``uv tool``. See
    https://docs.astral.sh/uv/pip/environments/ and
    https://docs.astral.sh/uv/concepts/projects/config/#project-environment-path.

    Raises:
        RequestError: uv would install into a Python outside any venv, which may be all of /usr.

    """
    if "pip" in arguments and ("--system" in arguments or environ.get("UV_SYSTEM_PYTHON")):
        raise RequestError("uv pip --system does not install into a venv: pass the directory with --tree")
    projects = _values(arguments, ("--directory", "--project"))
    bases = [os.path.abspath(base) for base in (".", *projects, environ.get("UV_PROJECT", "."))]
    if "pip" in arguments:
        yield from _values(arguments, ("--target", "--prefix"))
    pythons = [*_values(arguments, ("-p", "--python")), environ.get("UV_PYTHON", "")]
    pythons.append(environ.get("VIRTUAL_ENV", ""))
    for python in filter(None, pythons):
        venv = _venv_of(python, environ)
        if venv is not None:
            yield venv
    if "tool" in arguments:
        yield from _tools(environ)
    project_environment = environ.get("UV_PROJECT_ENVIRONMENT", "")
    names = [".venv"]
    if os.path.isabs(project_environment):
        yield project_environment  # uv also accepts a prefix that is no venv, such as /usr/local
    elif project_environment:
        names.append(project_environment)
    for base in bases:
        for directory in _with_parents(base):
            for name in names:
                # A venv that uv is about to create does not exist yet.
                venv = os.path.join(directory, name)
                if not os.path.lexists(venv) or python_layout.read_config(venv) is not None:
                    yield venv


def uv_run_preparation(arguments: Sequence[str]) -> tuple[str, ...] | None:
    """Return arguments that make ``uv run`` install the same and run nothing; None for other commands.

    The environment has to be patched before the command starts, but uv installs and starts it in one process.
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
    """Return whether it is a script with inline metadata (PEP 723), for which uv makes an environment."""
    try:
        return command.endswith(".py") and b"\n# /// script" in b"\n" + read_head(
            os.path.realpath(command), _SCRIPT_HEAD
        )
    except OSError:
        return False


def _first_word(words: Sequence[str], start: int) -> int | None:
    """Return the index of the first word that is neither an option nor the value of an option."""
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
    """Return the values of options, spelled ``--x V``, ``--x=V`` or ``-xV``."""
    values: list[str] = []
    for position, word in enumerate(arguments):
        for name in names:
            if word == name:
                values += arguments[position + 1 : position + 2]
            elif name.startswith("--") and word.startswith(f"{name}="):
                values.append(word.partition("=")[2])
            elif not name.startswith("--") and word.startswith(name):
                values.append(word.removeprefix(name))
    return values


def _venv_of(python: str, environ: Mapping[str, str]) -> str | None:
    """Return the venv of a Python, or ``python`` itself if it is a venv; None outside a venv."""
    path = python
    if "/" not in python and not os.path.isdir(python):
        path = shutil.which(python, path=environ.get("PATH")) or python
    path = os.path.abspath(path)
    # Links stay unresolved: bin/python of a venv is a link to the Python that created it.
    candidates = (path, os.path.dirname(os.path.dirname(path)))
    return next((venv for venv in candidates if python_layout.read_config(venv) is not None), None)


def _tools(environ: Mapping[str, str]) -> Iterator[str]:
    data = environ.get("XDG_DATA_HOME") or os.path.join(environ.get("HOME", ""), ".local", "share")
    tools = environ.get("UV_TOOL_DIR") or os.path.join(data, "uv", "tools")
    if os.path.isdir(tools):
        with os.scandir(tools) as entries:
            yield from sorted(entry.path for entry in entries if entry.is_dir())


def _with_parents(directory: str) -> Iterator[str]:
    while True:
        yield directory
        parent = os.path.dirname(directory)
        if parent == directory:
            return
        directory = parent
