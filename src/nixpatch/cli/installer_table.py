"""The table of installers (``data/installers.toml``): where each puts its environments, and how to ask it."""

from __future__ import annotations

import contextlib
import glob
import os
import string
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from nixpatch.cli.destinations import ask, option_values
from nixpatch.installed import python_layout
from nixpatch.installed.system_trees import is_system_directory
from nixpatch.installed.tree_roots import find_roots

_CONDA = "conda-meta"
_NOT_A_RUN = frozenset({"-h", "--help", "-V", "--version", "-l", "--list"})
# https://specifications.freedesktop.org/basedir/latest/
_DEFAULTS = {"XDG_DATA_HOME": ".local/share", "XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config"}

_PATIENCE = 5.0
"""seconds to look for environments of an installer that is not in the table"""
_CLOCK_ERROR_NS = 2_000_000_000
"""how far the clock of a file system may be behind that of the system"""

EnvironmentStamp = tuple[tuple[int, ...], ...]
"""changes when a dist is added to an environment, removed, or installed again"""


@dataclass(frozen=True, slots=True)
class InstallFirst:
    """How a command that installs and runs at once is made to install alone."""

    commands: tuple[str, ...]
    insert: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    spec: str = ""
    values: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Preparation:
    """Two command lines for one that installs and runs at once."""

    install: tuple[str, ...]
    run: tuple[str, ...]
    """the user's command, which finds everything installed"""
    quiet: bool = False
    """what the first one prints, and whether it fails, does not matter"""
    environ: Mapping[str, str] = field(default_factory=dict)
    """variables for both"""


@dataclass(frozen=True, slots=True)
class Installer:
    """One row of the table; its fields are explained there."""

    name: str
    source: str
    ask: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    pythons: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()
    install: tuple[InstallFirst, ...] = ()


@dataclass(frozen=True, slots=True)
class WrappedCall:
    """A command line of an installer of the table."""

    installer: Installer
    program: tuple[str, ...]
    """``poetry``, or ``python -m poetry``"""
    arguments: tuple[str, ...]


@cache
def installers() -> Mapping[str, Installer]:
    """Return the table."""
    data = resources.files("nixpatch").joinpath("data", "installers.toml").read_text(encoding="utf-8")
    return {name: _installer(name, row) for name, row in tomllib.loads(data).items()}


def recognize(words: Sequence[str]) -> WrappedCall | None:
    """Return the installer that a command line starts, by the name of its program or module."""
    table = installers()
    program = os.path.basename(words[0])
    if program in table:
        return WrappedCall(table[program], (words[0],), tuple(words[1:]))
    if is_python(program) and len(words) > 2 and words[1] == "-m":
        name = words[2].replace("_", "-")
        if name in table:
            return WrappedCall(table[name], tuple(words[:3]), tuple(words[3:]))
    return None


def is_python(program: str) -> bool:
    """Return whether the name of a program is that of a Python."""
    return program in {"python", "pypy"} or python_layout.is_python_name(program)


def environments(rows: Iterable[Installer], environ: Mapping[str, str]) -> list[str]:
    """Return the environments that are in the documented places."""
    paths = (path for row in rows for pattern in row.environments for path in _matches(pattern, environ))
    return sorted({os.path.realpath(path) for path in paths if _is_environment(path)})


def pythons(rows: Iterable[Installer], environ: Mapping[str, str]) -> list[str]:
    """Return the prefixes of the Pythons that installers have downloaded."""
    paths = (path for row in rows for pattern in row.pythons for path in _matches(pattern, environ))
    return sorted({os.path.realpath(path) for path in paths if os.path.isdir(os.path.join(path, "bin"))})


def places(rows: Iterable[Installer], environ: Mapping[str, str]) -> list[str]:
    """Return the documented places for a message, without what the globs match."""
    patterns = (_expanded(pattern, environ) for row in rows for pattern in row.environments)
    return list(dict.fromkeys(pattern for pattern in patterns if pattern is not None))


def asked(call: WrappedCall, environ: Mapping[str, str]) -> list[str]:
    """Return the environments that an installer answers it works on."""
    if not call.installer.ask:
        given = option_values(call.arguments, call.installer.passed)
        return [os.path.realpath(path) for path in given if _is_environment(path)]
    options = _kept(call.arguments, call.installer.passed)
    output = ask([*call.program, *options, *call.installer.ask], environ)
    paths = (line.rpartition(" = ")[2].strip() for line in output.splitlines())
    prefixes = (_prefix(path) for path in paths if os.path.isabs(path))
    return sorted({os.path.realpath(path) for path in prefixes if _is_environment(path)})


def changed_since(begin_ns: int, words: Iterable[str], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield environments that changed since a time, where an installer that is not in the table may put them.

    Looked through are the directories that its command line names, the current directory, and below the home
    directory what is hidden: data, caches, and directories of single tools.
    """
    deadline = time.monotonic() + _PATIENCE
    seen: set[str] = set()
    for directory in _likely(words, environ):
        if time.monotonic() > deadline:
            return
        for root in find_roots(directory).roots:
            real = os.path.realpath(root)
            if real not in seen and os.path.isdir(real) and _changed_ns(real) >= begin_ns - _CLOCK_ERROR_NS:
                yield real
            seen.add(real)


def _likely(words: Iterable[str], environ: Mapping[str, str]) -> Iterator[str]:
    home = environ.get("HOME")
    named = (path for word in words for path in (word, word.rpartition("=")[2]))
    directories = [path for path in named if path and os.path.isdir(path)]
    directories.append(os.getcwd())
    if home:
        directories += (os.path.join(home, *below.split("/")) for below in _DEFAULTS.values())
        directories += sorted(glob.iglob(os.path.join(glob.escape(home), ".[!.]*")))
    directories += filter(None, (environ.get(name) for name in _DEFAULTS))
    for directory in dict.fromkeys(map(os.path.realpath, directories)):
        if os.path.isdir(directory) and not is_system_directory(directory, home):
            yield directory


def _changed_ns(environment: str) -> int:
    """Return when an environment, or what is installed in it, was changed (st_ctime_ns)."""
    sites = python_layout.site_directories(environment) or (environment,)
    with contextlib.suppress(OSError):
        return max(os.stat(path).st_ctime_ns for path in sites)
    return 0


def install_first(call: WrappedCall, environ: Mapping[str, str]) -> Preparation | None:
    """Return how to install alone, and what to run then; None where this is not possible."""
    arguments = call.arguments
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    for rule in call.installer.install:
        position = _subcommand(options, call, rule.commands)
        if position is not None:
            if any(environ.get(name, value) != value for name, value in rule.environ.items()):
                return None
            return _preparation(call, rule, options, position)
    return None


def script_of(call: WrappedCall) -> str | None:
    """Return the real path of the script that a call starts in an environment of its own; None for none."""
    position = _subcommand(call.arguments, call, call.installer.scripts)
    words = () if position is None else call.arguments[position + 1 :]
    word = next((word for word in words if not word.startswith("-")), "")
    return os.path.realpath(word) if word.endswith(".py") and os.path.isfile(word) else None


def _preparation(
    call: WrappedCall, rule: InstallFirst, options: tuple[str, ...], position: int
) -> Preparation | None:
    """Return the preparation by a rule; ``position`` is that of the subcommand in the options."""
    whole = (*call.program, *call.arguments)
    if rule.command:
        shortened = _with_command(call.arguments, position + 1, rule)
        if shortened is None:
            return None
        return Preparation((*call.program, *shortened), whole, rule.quiet, rule.environ)
    if not _NOT_A_RUN.isdisjoint(options):
        return None
    if rule.instead:
        before = (*call.program, *rule.instead, *_kept(options, rule.keep))
        return Preparation(before, whole, rule.quiet)
    rest = call.arguments[len(options) :]
    before = (*call.program, *options)
    return Preparation((*before, *rule.insert, *rest), (*before, *rule.then, *rest), rule.quiet)


def stamp(environment: str) -> EnvironmentStamp:
    """Return a stamp of an environment from its directories: installers rename into them, or remove."""
    sites = python_layout.site_directories(environment) or (environment,)
    paths = (*sites, *(os.path.join(environment, name) for name in (python_layout.NAME, "bin", _CONDA)))
    return tuple(_directory_stamp(path) for path in paths)


def _directory_stamp(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_mtime_ns)


def _installer(name: str, row: Mapping[str, Any]) -> Installer:
    values = _with_tuples(row)
    if "install" in values:
        rules = values["install"] if isinstance(values["install"], tuple) else (values["install"],)
        values["install"] = tuple(InstallFirst(**_with_tuples(rule)) for rule in rules)
    return Installer(name, **values)


def _with_tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def _matches(pattern: str, environ: Mapping[str, str]) -> Iterator[str]:
    path = _expanded(pattern, environ)
    if path is not None:
        yield from glob.iglob(path, include_hidden=True)


def _expanded(pattern: str, environ: Mapping[str, str]) -> str | None:
    home = environ.get("HOME", "")
    defaults = {name: os.path.join(home, below) for name, below in _DEFAULTS.items()} if home else {}
    values = {**defaults, **{name: glob.escape(value) for name, value in environ.items() if value}}
    try:
        return os.path.abspath(string.Template(pattern).substitute(values))
    except KeyError:
        return None


def _is_environment(path: str) -> bool:
    return (
        python_layout.read_config(path) is not None
        or os.path.isdir(os.path.join(path, _CONDA))
        or bool(python_layout.site_directories(os.path.realpath(path)))
        or python_layout.has_dist_info(path)
    )


def _prefix(path: str) -> str:
    """Return the environment of a site-packages or interpreter that an installer names."""
    above = python_layout.prefix_of_site(path) or path
    if os.path.basename(os.path.dirname(above)) == "bin":
        above = os.path.dirname(os.path.dirname(above))
    return above


def _kept(arguments: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """Yield the options of these names, with their values, as they were given."""
    for position, word in enumerate(arguments):
        if word in names:
            yield from arguments[position : position + 2]
        elif word.startswith("--") and word.partition("=")[0] in names:
            yield word


def _subcommand(arguments: Sequence[str], call: WrappedCall, commands: Sequence[str]) -> int | None:
    """Return the index of the subcommand, that of the end if there is none; None if it is another one."""
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if word in commands:
            return position
        is_value = position and arguments[position - 1].startswith("-")  # perhaps: -s tests
        if not word.startswith("-") and not ("" in commands and is_value):
            return None
        position += 2 if word in call.installer.passed else 1
    return len(arguments) if "" in commands else None


def _with_command(arguments: Sequence[str], start: int, rule: InstallFirst) -> tuple[str, ...] | None:
    """Replace the command in ``[OPTIONS] [ENV:]COMMAND...`` by another one.

    None if there is none, or if the options or a script, whose environment has another name, do not allow it.
    """
    position = start
    while position < len(arguments) and arguments[position].startswith(("-", "+")):
        position += 2 if arguments[position] in rule.values else 1
    options = arguments[:position]
    names = {option.partition("=")[0] for option in options}
    if position >= len(arguments) or not {*rule.never, *_NOT_A_RUN}.isdisjoint(names):
        return None
    word = arguments[position]
    if word.endswith(".py"):
        return None
    if not rule.spec:
        environment, colon, _ = word.partition(":")
        first, *others = rule.command
        return (*options, f"{environment}:{first}" if colon else first, *others)
    if option_values(options, (rule.spec,)):
        return (*options, *rule.command)
    return None if os.path.exists(word) else (*options, rule.spec, word, *rule.command)
