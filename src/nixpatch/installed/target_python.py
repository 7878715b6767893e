"""The Python whose process will load the tree: found by what the tree says, read and never run."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nixpatch.errors import RequestError
from nixpatch.escape import shown
from nixpatch.fs import read_head
from nixpatch.installed import pyvenv
from nixpatch.installed.interpreter import Unusable, follow, python_of_script, unreadable, version_of
from nixpatch.installed.libc import Reader, libc_of
from nixpatch.model import Skip, Target, Tree

_SCRIPT_HEAD = 4 << 10
_BY_TREE = "the tree"


@dataclass(frozen=True, slots=True)
class _Start:
    """A name under which the target may be found."""

    path: str
    found_by: str


def find_target(tree: Tree, python: str | None, search_path: str | None, read: Reader) -> Target:
    """Return the target of a tree.

    ``python`` is a path, a directory that has ``bin/python3``, or a name on ``search_path``, the value of
    PATH; it is the only one asked where it is given. A venv is asked alone, too: where its Python is gone,
    another one of the same version need not have the same libc. Else the tree is asked, then PATH.

    Raises:
        RequestError: none of them leads to a dynamically linked Python; the message says what was tried.

    """
    tried: list[str] = []
    refused: set[str] = set()
    for start in _starts(tree, python, search_path, tried):
        try:
            real = follow(start.path)
            if real in refused:  # python, python3 and python3.11 are most often one file
                continue
            refused.add(real)
            return _read(tree, real, start.found_by, read)
        except Unusable as reason:
            tried.append(f"{shown(start.path)} {reason}")
    what = "; ".join(dict.fromkeys(tried))
    advice = "name another with --python" if python is not None else "name it with --python"
    raise RequestError(f"no usable Python for {shown(tree.root)}: {what}; {advice}")


def _starts(tree: Tree, python: str | None, search_path: str | None, tried: list[str]) -> Iterator[_Start]:
    """Yield the names in order of precedence. What is not on PATH at all is told in ``tried``."""
    if python is not None:
        path = _named(python) if "/" in python else _on_path(python, search_path)
        if path is None:
            tried.append(f"{shown(python)} is not on PATH")
        else:
            yield _Start(path, "--python")
        return
    config = pyvenv.read_config(tree.prefix)
    if config is not None:
        yield from (_Start(path, pyvenv.NAME) for path in _of_venv(tree, config))
        return
    yield from (_Start(path, _BY_TREE) for path in _of_tree(tree))
    name = _names(tree)[0] if tree.python_version else "python3"
    path = _on_path(name, search_path)
    if path is None:
        tried.append(f"{name} is not on PATH")
    else:
        yield _Start(path, "PATH")


def _read(tree: Tree, real: str, found_by: str, read: Reader) -> Target:
    version = version_of(real)
    if found_by == pyvenv.NAME:
        version = version or tree.python_version
    if found_by == _BY_TREE and version and tree.python_version and version != tree.python_version:
        raise Unusable(f"is Python {version[0]}.{version[1]}, not that of the tree")
    try:
        facts = read(real)
    except OSError as error:
        raise unreadable(real, error) from error
    if isinstance(facts, Skip):
        raise Unusable(f"cannot serve: {facts.detail or facts.reason.value}")
    loader = facts.current.interp
    if loader is None:
        raise Unusable("is statically linked: it has no dynamic loader, so it loads no shared libraries")
    if not os.path.isabs(loader) or not os.path.isfile(loader):
        raise Unusable(f"needs the dynamic loader {shown(loader)}, which does not exist")
    libc = libc_of(loader, facts.machine, read)
    return Target(
        python=real,
        found_by=found_by,
        version=version,
        machine=facts.machine,
        loader=loader,
        libc=libc.libc,
        libc_version=libc.version,
        libc_versions=libc.versions,
        libc_dir=libc.directory,
    )


def _names(tree: Tree) -> tuple[str, ...]:
    """Return what the interpreter may be called, the most telling name first."""
    if tree.python_version is None:
        return ("python3", "python")
    major, minor = tree.python_version
    return (f"python{major}.{minor}", "python3", "python")


def _named(python: str) -> str:
    path = os.path.abspath(python)
    return os.path.join(path, "bin", "python3") if os.path.isdir(path) else path


def _on_path(name: str, search_path: str | None) -> str | None:
    """Return the file that a shell would run.

    Relative entries are left out: they mean the current directory, whoever may write to that.
    """
    for directory in (search_path or "").split(":"):
        path = os.path.join(directory, name)
        if os.path.isabs(directory) and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def _of_venv(tree: Tree, config: Mapping[str, str]) -> Iterator[str]:
    """``bin/python`` is a link or copy of what ``home`` names; virtualenv writes two more keys (PEP 405)."""
    names = _names(tree)
    bin_directory = os.path.join(tree.prefix, "bin")
    yield from _present(bin_directory, ("python", *names)) or [os.path.join(bin_directory, "python")]
    for key in ("base-executable", "executable"):
        if os.path.isabs(config.get(key, "")):
            yield config[key]
    home = config.get("home", "")
    if os.path.isabs(home):
        yield from _present(home, names)


def _of_tree(tree: Tree) -> Iterator[str]:
    """Yield a Python in the tree, else the Pythons that run the tree's scripts."""
    bin_directory = os.path.join(tree.prefix, "bin")
    yield from _present(bin_directory, _names(tree))
    found: dict[str, None] = {}
    try:
        names = sorted(os.listdir(bin_directory))
    except OSError:
        return
    for name in names:
        path = os.path.join(bin_directory, name)
        try:
            if stat.S_ISREG(os.lstat(path).st_mode):
                named = python_of_script(read_head(path, _SCRIPT_HEAD))
                if named is not None:
                    found[named] = None
        except OSError:
            continue
    yield from found


def _present(directory: str, names: tuple[str, ...]) -> list[str]:
    paths = (os.path.join(directory, name) for name in dict.fromkeys(names))
    return [path for path in paths if os.path.lexists(path)]
