"""The Python whose process will load the tree: found by what the tree says, read and never run.

From a name of a Python to the ELF file behind it: links and wrapper scripts, read and never run.

The C library that a dynamic loader brings along.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from nixpatch.errors import MachineError, RequestError
from nixpatch.escape import of_the_machine, shown, why
from nixpatch.fs import read_head
from nixpatch.installed import python_layout
from nixpatch.model import ElfFacts, Libc, Machine, Skip, Target, Tree
from nixpatch.model.elf import ELF_MAGIC

_LAUNCHER_HEAD = 4 << 10
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
    config = python_layout.read_config(tree.prefix)
    if config is not None:
        yield from (_Start(path, python_layout.NAME) for path in _of_venv(tree, config))
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
    if found_by == python_layout.NAME:
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
                named = python_of_script(read_head(path, _LAUNCHER_HEAD))
                if named is not None:
                    found[named] = None
        except OSError:
            continue
    yield from found


def _present(directory: str, names: tuple[str, ...]) -> list[str]:
    paths = (os.path.join(directory, name) for name in dict.fromkeys(names))
    return [path for path in paths if os.path.lexists(path)]


_MAX_HOPS = 8
_SCRIPT_HEAD = 64 << 10
_MAX_LINE = 8 << 10

# Nix's wrapProgram moves the program itself to ".python3.11-wrapped".
_PYTHON_NAME = re.compile(r"\.*((?:python|pypy)\d*(?:\.\d+)?t?)(?:-wrapped)*")


class Unusable(Exception):  # noqa: N818 - the answer to "is it this one?", not an error
    """A file cannot be the target; the message says why, to be read after the file's name."""


def unreadable(path: str, error: OSError | ValueError) -> Unusable:
    """Return what a Python that cannot be read comes to.

    Raises:
        MachineError: that is no fault of the file, and another Python would be a guess.

    """
    if of_the_machine(error):
        text = f"cannot be read: {why(error)}; mend this and run nixpatch again"
        raise MachineError(f"{path}: {text}") from error
    return Unusable(f"cannot be read: {why(error)}")


def follow(start: str) -> str:
    """Return the real path of the ELF file that runs when ``start`` is called.

    Raises:
        Unusable: it does not exist, or leads to something else than an ELF file.
        MachineError: the disk fails, or there are no more descriptors.

    """
    path = start
    for _ in range(_MAX_HOPS):
        try:
            real = os.path.realpath(path)
            head = read_head(real, _SCRIPT_HEAD)
        except FileNotFoundError as error:
            reason = "does not exist" if path == start else f"leads to {shown(path)}, which does not exist"
            raise Unusable(reason) from error
        except (OSError, ValueError) as error:
            raise unreadable(path, error) from error
        if head.startswith(ELF_MAGIC):
            return real
        named = python_of_script(head)
        if named is None:
            raise Unusable("is a script that names no Python" if head.startswith(b"#!") else "is no program")
        path = named
    raise Unusable(f"is a chain of more than {_MAX_HOPS} scripts")


def python_of_script(head: bytes) -> str | None:
    """Return the Python that a script says it is run by, from its first bytes.

    That is the absolute path in ``#!/.../python3.11``, else in the first ``exec ... "/.../bin/python3.11"``
    of a shell script: a wrapper made by Nix, or what pip writes where the path is too long for a ``#!``
    line. None where it names none, as ``#!/usr/bin/env python3`` and pyenv's shims.
    """
    if not head.startswith(b"#!"):
        return None
    first, *lines = os.fsdecode(head).split("\n")
    words = first.removeprefix("#!").split()
    if words and _is_python(words[0]):
        return words[0]
    return next(
        (word for line in lines if "exec" in line for word in _executed(line) if _is_python(word)), None
    )


def version_of(python: str) -> tuple[int, int] | None:
    """Return the version of an interpreter by its name, else by the ``lib/pythonX.Y`` beside it."""
    name = _PYTHON_NAME.fullmatch(os.path.basename(python))
    version = python_layout.version_in_name(name[1]) if name else None
    return version or python_layout.only_version(os.path.dirname(os.path.dirname(python)))


def _is_python(word: str) -> bool:
    return word.startswith("/") and _PYTHON_NAME.fullmatch(os.path.basename(word)) is not None


def _executed(line: str) -> Iterator[str]:
    """Yield the words after ``exec`` of one line of shell."""
    if len(line) > _MAX_LINE:
        return
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a string that goes on in the next line
        return
    if "exec" in words:
        yield from words[words.index("exec") + 1 :]


Reader = Callable[[str], ElfFacts | Skip]
"""Reads the headers of one ELF file; may raise OSError."""

_GLIBC = "libc.so.6"
_GLIBC_VERSION = re.compile(r"GLIBC_([0-9]{1,9}(?:\.[0-9]{1,9})+)")

# What nix-ld, whose own loader stands at the FHS path, starts unless NIX_LD says otherwise.
_NIX_LD_DEFAULT = "/run/current-system/sw/share/nix-ld/lib/ld.so"


@dataclass(frozen=True, slots=True)
class LibcFacts:
    """The fields of a ``Target`` that describe its libc."""

    libc: Libc
    version: tuple[int, ...]
    versions: frozenset[str]
    directory: str


def libc_of(loader: str, machine: Machine, read: Reader) -> LibcFacts:
    """Find the libc that programs with this PT_INTERP get.

    musl is loader and libc in one file and has no symbol versions, so ``version`` is empty for it.

    Raises:
        Unusable: no libc.so.6 of this machine lies where this loader looks.

    """
    if os.path.basename(loader).startswith("ld-musl-"):
        return LibcFacts(Libc.MUSL, (), frozenset(), os.path.dirname(os.path.realpath(loader)))
    for directory in dict.fromkeys(_directories(loader, machine)):
        try:
            facts = read(os.path.join(directory, _GLIBC))
        except OSError:
            continue
        if isinstance(facts, Skip) or facts.machine != machine:
            continue
        numbers = [found[1] for name in facts.version_defs if (found := _GLIBC_VERSION.fullmatch(name))]
        if numbers:
            version = max(tuple(map(int, number.split("."))) for number in numbers)
            return LibcFacts(Libc.GLIBC, version, frozenset(facts.version_defs), directory)
    raise Unusable(f"has the dynamic loader {shown(loader)}, but no {_GLIBC} of {machine.name} belongs to it")


def _directories(loader: str, machine: Machine) -> Iterator[str]:
    """Where its libc may lie, the surest first."""
    yield os.path.dirname(loader)
    yield os.path.dirname(os.path.realpath(loader))
    # /lib64/ld-linux-x86-64.so.2 is the name in every program; the distribution chooses where libc is.
    base = os.path.dirname(os.path.dirname(loader)).rstrip("/")
    name = machine.arch.multiarch
    for place in (f"lib/{name}", f"usr/lib/{name}", "lib64", "usr/lib64", "lib", "usr/lib"):
        yield f"{base}/{place}"
    yield os.path.dirname(os.path.realpath(_NIX_LD_DEFAULT))
