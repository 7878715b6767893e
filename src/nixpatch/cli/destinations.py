"""The directories that an installer may install to, from its arguments and the environment.

There may be several. nixpatch does not guess which one was used: it compares all of them before and after.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nixpatch.errors import RequestError
from nixpatch.installed import python_layout

_PIP_DESTINATIONS = frozenset({"target", "prefix", "root", "user", "python"})
"""options of ``pip install`` that lead out of the venv, as pip's configuration spells them"""
_OFF = frozenset({"0", "no", "off", "false", "n", "f"})
_HELP_OPTION = re.compile(r" {2,}(?:(-\w), +)?(--[\w-]+)(.*)")
_PACKAGE_WORD = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?(?:[@<>=!~; ].*)?")
_PYTHON_WORDS = ("-m", "--module", "-s", "--script", "--gui-script")
_INSTALLING = frozenset({"install", "sync", "add", "upgrade"})
_ONLY_LOOKING = frozenset({"--dry-run", "--help", "-h", "--no-sync", "download", "uninstall", "python"})
_TIMEOUT = 60
"""seconds that an installer has to answer a question"""


@dataclass(frozen=True, slots=True)
class UvStart:
    """The command that ``uv run`` or ``uv tool run`` installs for and starts."""

    before: tuple[str, ...]
    """the arguments of uv before the command"""
    command: tuple[str, ...]
    """empty if uv alone knows how the command is called"""
    is_python: bool = False
    """uv reads it, a script or module, and starts a Python with it"""


def venv_of_pip(python: str | None, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the venv that pip installs to, and its Python: ``--python``, VIRTUAL_ENV or ``./.venv``.

    Raises:
        RequestError: there is none, or it is no venv.

    """
    for name, given in (("--python", python), ("VIRTUAL_ENV", environ.get("VIRTUAL_ENV"))):
        if given:
            venv = venv_of(given, environ)
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


def lacks_pip(interpreter: str) -> bool:
    """Whether a Python that starts has no pip."""
    command = [interpreter, "-c", "import importlib.util as u; print(u.find_spec('pip') is None)"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() == "True"


def active_venv(environ: Mapping[str, str]) -> str:
    """Return the active venv, else ``./.venv``, which an installer may create."""
    return environ.get("VIRTUAL_ENV") or os.path.abspath(".venv")


def pip_trees(
    arguments: Sequence[str], interpreter: str, environ: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Return the directories that ``pip install`` installs to instead of the venv.

    pip is asked for its configuration, which has the variables and files, too:
    https://pip.pypa.io/en/stable/topics/configuration/.

    Returns:
        Directories, and what of the arguments and the configuration names them.

    """
    values = {
        "target": option_values(arguments, ("-t", "--target")),
        "prefix": option_values(arguments, ("--prefix",)),
        "root": option_values(arguments, ("--root",)),
        "python": option_values(arguments, ("--python",)),
        "user": ["1"] if "--user" in arguments else [],
    }
    if not {"install", "uninstall"}.isdisjoint(arguments):
        for key, value in _pip_settings(interpreter, environ):
            values[key].append(value)
    prefixes = [os.path.expanduser(path) for path in values["prefix"]]
    if values["root"]:
        prefixes.append(ask([interpreter, "-c", "import sys; print(sys.prefix)"], environ).strip())
        roots = map(os.path.expanduser, values["root"])
        prefixes = [os.path.join(root, prefix.lstrip("/")) for root in roots for prefix in prefixes]
    trees = [*map(os.path.expanduser, values["target"]), *prefixes]
    trees += filter(None, (venv_of(python, environ) for python in values["python"]))
    if any(value.lower() not in _OFF for value in values["user"]):
        # `python -m site` fails where the site is not in sys.path, as in a venv.
        code = "import site; print(site.getusersitepackages())"
        trees += filter(None, [ask([interpreter, "-c", code], environ).strip()])
    return trees, [key for key, given in values.items() if given]


def _pip_settings(interpreter: str, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the settings of pip that name a destination: lines such as ``global.target='/srv/site'``."""
    for line in ask([interpreter, "-m", "pip", "config", "list"], environ).splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key in _PIP_DESTINATIONS:
            with contextlib.suppress(ValueError, SyntaxError):
                yield key, str(ast.literal_eval(value))


def ask(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return what a program prints; nothing if it fails."""
    try:
        done = subprocess.run(
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return os.fsdecode(done.stdout) if done.returncode == 0 else ""


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
    projects = option_values(arguments, ("--directory", "--project"))
    bases = [os.path.abspath(base) for base in (".", *projects, environ.get("UV_PROJECT", "."))]
    if "pip" in arguments:
        yield from option_values(arguments, ("--target", "--prefix"))
    pythons = [*option_values(arguments, ("-p", "--python")), environ.get("UV_PYTHON", "")]
    pythons.append(environ.get("VIRTUAL_ENV", ""))
    for python in filter(None, pythons):
        venv = venv_of(python, environ)
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


def installs(arguments: Sequence[str]) -> bool:
    """Return whether the command of pip or uv is there to install something."""
    return not _INSTALLING.isdisjoint(arguments) and _ONLY_LOOKING.isdisjoint(arguments)


def uv_start(arguments: Sequence[str], environ: Mapping[str, str], program: str = "uv") -> UvStart | None:
    """Return what ``uv run`` or ``uv tool run`` starts; None for other commands, and where it starts nothing.

    uv is asked which of its options take a value, since its versions differ.
    """
    if not {"run", "uvx"}.intersection(arguments):
        return None
    values = _uv_values(program, "run", environ)
    run, _ = _first_word(arguments, 0, values)
    if run < len(arguments) and arguments[run] == "tool":
        run, _ = _first_word(arguments, run + 1, values)
        if run < len(arguments) and arguments[run] in {"run", "uvx"}:
            return _uv_tool_start(arguments, run, _uv_values(program, "tool run", environ))
        return None
    if run >= len(arguments) or arguments[run] != "run":
        return None
    start, options = _first_word(arguments, run + 1, values)
    if start >= len(arguments) or not {"-h", "--help"}.isdisjoint(options):
        return None
    before, command = tuple(arguments[:start]), tuple(arguments[start:])
    directory = next(iter(option_values(before, ("--directory",))), ".")
    is_python = not options.isdisjoint(_PYTHON_WORDS) or _is_script(os.path.join(directory, command[0]))
    return UvStart(before, command, is_python or command[0] == "-" or "://" in command[0])


def _uv_tool_start(arguments: Sequence[str], run: int, values: frozenset[str]) -> UvStart | None:
    start, options = _first_word(arguments, run + 1, values)
    if start >= len(arguments) or not {"-h", "--help", "-V", "--version"}.isdisjoint(options):
        return None
    word, rest = arguments[start], arguments[start + 1 :]
    if "--from" in options:
        return UvStart(tuple(arguments[:start]), (word, *rest))
    name = _PACKAGE_WORD.fullmatch(word)
    before = list(arguments[:start])
    # The options of uv end at "--", if it was given.
    before[run + 1 : run + 1] = ["--from", word]
    return UvStart(tuple(before), (name[1], *rest) if name else ())


def _is_script(path: str) -> bool:
    """Return whether ``uv run`` starts a Python for a path: a script, a package directory or a zip file."""
    if os.path.isdir(path):
        return os.path.exists(os.path.join(path, "__main__.py"))
    if not os.path.isfile(path):
        return False
    return path.lower().endswith((".py", ".pyw", ".pyc")) or zipfile.is_zipfile(path)


def _uv_values(program: str, command: str, environ: Mapping[str, str]) -> frozenset[str]:
    """Return the options of a uv command that take a value, from its help: ``-w, --with <WITH>``."""
    text = ask([program, *command.split(), "--help"], {**environ, "NO_COLOR": "1"})
    matches = filter(None, (_HELP_OPTION.fullmatch(line) for line in text.splitlines()))
    return frozenset(
        name for match in matches if match[3].startswith(" <") for name in (match[1], match[2]) if name
    )


def _first_word(arguments: Sequence[str], start: int, values: frozenset[str]) -> tuple[int, frozenset[str]]:
    """Return the index of the first word that is neither an option nor the value of one, and the options.

    Without such a word the index is the number of the arguments.
    """
    options: set[str] = set()
    position = start
    while position < len(arguments):
        word = arguments[position]
        if word == "--":
            return position + 1, frozenset(options)
        if not word.startswith("-") or word == "-":
            return position, frozenset(options)
        position += 1
        if word.startswith("--"):
            name, equals, _ = word.partition("=")
            options.add(name)
            position += name in values and not equals
            continue
        for index, letter in enumerate(word[1:], 2):  # -qm, -p3.12
            options.add(f"-{letter}")
            if f"-{letter}" in values:
                position += index == len(word)
                break
    return len(arguments), frozenset(options)


def option_values(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
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


def venv_of(python: str, environ: Mapping[str, str]) -> str | None:
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
