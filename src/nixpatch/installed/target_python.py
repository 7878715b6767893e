"""The Python that loads a tree, with its dynamic loader and libc: found by reading files, never run."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from nixpatch.errors import MachineError, PythonGone, RequestError
from nixpatch.escape import is_machine_error, reason, shown
from nixpatch.fs import read_head
from nixpatch.installed import python_layout
from nixpatch.model import ElfFacts, Libc, Machine, Skip, Target, Tree
from nixpatch.model.elf import ELF_MAGIC

ReadElf = Callable[[str], ElfFacts | Skip]
"""reads the headers of one ELF file; may raise OSError"""

_LAUNCHER_HEAD = 4 << 10
_MAX_HOPS = 8
_SCRIPT_HEAD = 64 << 10
_MAX_LINE = 8 << 10

# Nix's wrapProgram moves the program itself to ".python3.11-wrapped".
_PYTHON_NAME = re.compile(r"\.*((?:python|pypy)\d*(?:\.\d+)?t?)(?:-wrapped)*")

_GLIBC = "libc.so.6"
_GLIBC_VERSION = re.compile(r"GLIBC_([0-9]{1,9}(?:\.[0-9]{1,9})+)")

# nix-ld puts its own loader at the FHS path; unless NIX_LD is set, it starts this one.
_NIX_LD_DEFAULT = "/run/current-system/sw/share/nix-ld/lib/ld.so"

_BY_TREE = "the tree"
_BY_PROVENANCE = "provenance"
_BY_STDENV = "stdenv"


@dataclass(frozen=True, slots=True)
class _Start:
    """A path that may lead to the target, and the source of that path."""

    path: str
    found_by: str


def stdenv_loader(environ: Mapping[str, str]) -> str | None:
    """Return the dynamic loader of nixpkgs' stdenv, for programs without Python; None outside of one."""
    path = os.path.join(environ.get("NIX_BINTOOLS", ""), "nix-support", "dynamic-linker")
    try:
        return os.fsdecode(read_head(os.path.realpath(path), _LAUNCHER_HEAD)).strip() or None
    except OSError:
        return None


def find_target(
    tree: Tree,
    python: str | None,
    path_env: str | None,
    read: ReadElf,
    *,
    loader: str | None = None,
    recorded: Iterable[str] = (),
    replacement: Callable[[str], str | None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> Target:
    """Return the target of a tree.

    With ``python`` nothing else is tried. Nor is anything but ``pyvenv.cfg`` tried for a venv: if its Python
    is gone, another one of the same version may have another libc. Otherwise the tree is searched, then
    ``recorded``, then PATH. If there is no Python at all, the target is a process that ``loader`` starts.

    A Python whose loader is not here, as one that uv downloads on NixOS, is taken as it will be once it is
    patched: ``replacement`` has another loader, and ``Target.cannot_start`` the reason.

    Args:
        tree: the tree, as scanned.
        python: a path, a directory that has ``bin/python3``, or a name on PATH.
        path_env: the value of PATH.
        read: reads ELF headers.
        loader: the loader for programs without Python, as ``stdenv_loader`` returns it.
        recorded: loaders that the files of the tree were linked for.
        replacement: returns the loader of the store for a file name; None if there is none.
        note: called with each path that was looked at, whether there is a file or not. ELF files that were
            read are left to ``read``.

    Raises:
        PythonGone: the tree is a venv, and its Python is not there.
        RequestError: none of these leads to a dynamically linked Python; the message lists what was tried.

    """
    tried: list[str] = []
    refused: set[str] = set()
    gone: list[str] = []
    for start in _starts(tree, python, path_env, tried, loader, recorded, note):
        try:
            note(start.path)
            real = follow(start.path, note)
            if real in refused:  # python, python3 and python3.11 are usually one file
                continue
            refused.add(real)
            return _target(tree, start, real, read, loader, replacement)
        except Unusable as unusable:
            tried.append(f"{shown(start.path)} {unusable}")
            if isinstance(unusable, Absent) and start.found_by == python_layout.NAME:
                gone.append(os.path.realpath(start.path))
    if gone and len(gone) == len(tried):
        prefix, places = shown(tree.prefix), " and ".join(map(shown, dict.fromkeys(gone)))
        text = f"the Python of {prefix} is gone: {places} (deleted, or garbage collected)"
        command = f"python3 -m venv --clear {shlex.quote(prefix)}"
        raise PythonGone(
            f"{text}; name another with --python, or make the venv anew and install again: {command}"
        )
    attempts = "; ".join(dict.fromkeys(tried))
    advice = "name another with --python" if python is not None else "name it with --python"
    raise RequestError(f"no usable Python for {shown(tree.root)}: {attempts}; {advice}")


def _without_python(loader: str, read: ReadElf, found_by: str) -> Target:
    """Return the target of programs that need no Python."""
    try:
        facts = read(os.path.realpath(loader))
    except OSError as error:
        raise unreadable(loader, error) from error
    if isinstance(facts, Skip):
        raise Unusable(f"is no dynamic loader: {facts.detail or facts.reason.value}")
    libc = libc_of(loader, facts.machine, read)
    return libc.target(loader, found_by, None, facts.machine, loader)


def _starts(
    tree: Tree,
    python: str | None,
    path_env: str | None,
    tried: list[str],
    loader: str | None,
    recorded: Iterable[str],
    note: Callable[[str], None],
) -> Iterator[_Start]:
    """Yield the paths in order of precedence; add names that are not on PATH to ``tried``."""
    if python is not None:
        path = _named(python, note) if "/" in python else _on_path(python, path_env, note)
        if path is None:
            tried.append(f"{shown(python)} is not on PATH")
        else:
            yield _Start(path, "--python")
        return
    config = python_layout.read_config(tree.prefix)
    if config is not None:
        yield from (_Start(path, python_layout.NAME) for path in _of_venv(tree, config, note))
        return
    yield from (_Start(path, _BY_TREE) for path in _of_tree(tree, note))
    yield from (_Start(path, _BY_PROVENANCE) for path in recorded)
    name = _names(tree)[0] if tree.python_version else "python3"
    path = _on_path(name, path_env, note)
    if path is None:
        tried.append(f"{name} is not on PATH")
    else:
        yield _Start(path, "PATH")
    if loader is not None:
        yield _Start(loader, _BY_STDENV)


def _target(
    tree: Tree,
    start: _Start,
    real: str,
    read: ReadElf,
    loader: str | None,
    replacement: Callable[[str], str | None],
) -> Target:
    if start.found_by in {_BY_STDENV, _BY_PROVENANCE}:
        return _without_python(start.path, read, start.found_by)
    # Another one on PATH is as good as one that has to be patched first.
    mended = replacement if start.found_by != "PATH" else lambda _: None
    target = _read(tree, real, start.found_by, read, mended)
    if start.found_by == "PATH" and loader and not _fits(target, loader, read):
        raise Unusable(f"is for {target.machine.name}, not for the machine that the stdenv builds for")
    return target


def _fits(target: Target, loader: str, read: ReadElf) -> bool:
    """Whether the stdenv builds for the machine of a Python from PATH, which may be the build platform's."""
    try:
        return _without_python(loader, read, _BY_STDENV).machine == target.machine
    except Unusable:
        return True


def _read(
    tree: Tree, real: str, found_by: str, read: ReadElf, replacement: Callable[[str], str | None]
) -> Target:
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
    cannot_start = ""
    try:
        libc = libc_of_start(loader, facts.machine, read)
    except Unusable as unusable:
        other = replacement(os.path.basename(loader))
        if other is None:
            raise
        loader, cannot_start = other, str(unusable)
        libc = libc_of_start(loader, facts.machine, read)
    return libc.target(real, found_by, version, facts.machine, loader, cannot_start)


def libc_of_start(loader: str, machine: Machine, read: ReadElf) -> LibcFacts:
    """Return the libc of a program by its loader, as ``libc_of`` does.

    Raises:
        Unusable: the loader does not exist, or is none, as the program that NixOS puts there.

    """
    if not os.path.isabs(loader) or not os.path.isfile(loader):
        raise Unusable(f"needs the dynamic loader {shown(loader)}, which does not exist")
    return libc_of(loader, machine, read)


def _names(tree: Tree) -> tuple[str, ...]:
    """Return possible names of the interpreter, the most specific first."""
    if tree.python_version is None:
        return ("python3", "python")
    major, minor = tree.python_version
    return (f"python{major}.{minor}", "python3", "python")


def _named(python: str, note: Callable[[str], None]) -> str:
    path = os.path.abspath(python)
    note(path)
    return os.path.join(path, "bin", "python3") if os.path.isdir(path) else path


def _on_path(name: str, path_env: str | None, note: Callable[[str], None]) -> str | None:
    """Return the file that a shell would run.

    Relative entries are left out: they mean the current directory, which others may be able to write.
    """
    for directory in (path_env or "").split(":"):
        path = os.path.join(directory, name)
        note(path)
        if os.path.isabs(directory) and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def _of_venv(tree: Tree, config: Mapping[str, str], note: Callable[[str], None]) -> Iterator[str]:
    """Yield ``bin/python``, a link or copy of the one in ``home`` (PEP 405); then virtualenv's two keys."""
    names = _names(tree)
    bin_directory = os.path.join(tree.prefix, "bin")
    yield from _present(bin_directory, ("python", *names), note) or [os.path.join(bin_directory, "python")]
    for key in ("base-executable", "executable"):
        if os.path.isabs(config.get(key, "")):
            yield config[key]
    home = config.get("home", "")
    if os.path.isabs(home):
        yield from _present(home, names, note)


def _of_tree(tree: Tree, note: Callable[[str], None]) -> Iterator[str]:
    """Yield a Python in the tree, that of nixpkgs' Python packages, then those that run the scripts."""
    bin_directory = os.path.join(tree.prefix, "bin")
    yield from _present(bin_directory, _names(tree), note)
    yield from _of_nix_support(tree, note)
    pythons: dict[str, None] = {}
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
                    pythons[named] = None
        except OSError:
            continue
    yield from pythons


def _of_nix_support(tree: Tree, note: Callable[[str], None]) -> Iterator[str]:
    """Yield the Pythons among the inputs that an output of nixpkgs' stdenv propagates."""
    path = os.path.join(tree.prefix, "nix-support", "propagated-build-inputs")
    with contextlib.suppress(OSError):
        for package in os.fsdecode(read_head(path, _SCRIPT_HEAD)).split():
            yield from _present(os.path.join(package, "bin"), _names(tree), note)


def _present(directory: str, names: tuple[str, ...], note: Callable[[str], None]) -> list[str]:
    paths = [os.path.join(directory, name) for name in dict.fromkeys(names)]
    for path in paths:
        note(path)
    return [path for path in paths if os.path.lexists(path)]


class Unusable(Exception):  # noqa: N818 - an answer, not an error
    """A file cannot be the target; the message is the reason, to be put after the name of the file."""


class Absent(Unusable):
    """The file, or the one that it leads to, does not exist."""


def unreadable(path: str, error: OSError | ValueError) -> Unusable:
    """Return the exception for a Python that cannot be read.

    Raises:
        MachineError: the file is not to blame, and to take another Python would be a guess.

    """
    if is_machine_error(error):
        text = f"cannot be read: {reason(error)}; mend this and run nixpatch again"
        raise MachineError(f"{path}: {text}") from error
    return Unusable(f"cannot be read: {reason(error)}")


def follow(start: str, note: Callable[[str], None] = lambda _: None) -> str:
    """Return the real path of the ELF file that runs when ``start`` is called; ``note`` gets the way there.

    Raises:
        Unusable: it does not exist, or does not lead to an ELF file.
        MachineError: the disk fails, or the run may open no more files.

    """
    path = start
    for _ in range(_MAX_HOPS):
        try:
            real = os.path.realpath(path)
            head = read_head(real, _SCRIPT_HEAD)
        except FileNotFoundError as error:
            text = "does not exist" if path == start else f"leads to {shown(path)}, which does not exist"
            raise Absent(text) from error
        except (OSError, ValueError) as error:
            raise unreadable(path, error) from error
        if head.startswith(ELF_MAGIC):
            return real
        named = python_of_script(head)
        if named is None:
            raise Unusable("is a script that names no Python" if head.startswith(b"#!") else "is no program")
        path = named
        note(path)
    raise Unusable(f"is a chain of more than {_MAX_HOPS} scripts")


def python_of_script(head: bytes) -> str | None:
    """Return the Python that runs a script, from its first bytes; None if it names none by absolute path.

    That is the path in ``#!/.../python3.11``, or in the first ``exec ... "/.../bin/python3.11"`` of a shell
    script: a wrapper made by Nix, or by pip for a path that is too long for a ``#!`` line. pyenv's shims and
    ``#!/usr/bin/env python3`` name none.
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


@dataclass(frozen=True, slots=True)
class LibcFacts:
    """The fields of a ``Target`` that describe its libc."""

    libc: Libc
    version: tuple[int, ...]
    versions: frozenset[str]
    directory: str

    def target(
        self,
        python: str,
        found_by: str,
        version: tuple[int, int] | None,
        machine: Machine,
        loader: str,
        cannot_start: str = "",
    ) -> Target:
        """Return the target with this libc."""
        return Target(
            python=python,
            found_by=found_by,
            version=version,
            machine=machine,
            loader=loader,
            libc=self.libc,
            libc_version=self.version,
            libc_versions=self.versions,
            libc_dir=self.directory,
            cannot_start=cannot_start,
        )


def libc_of(loader: str, machine: Machine, read: ReadElf) -> LibcFacts:
    """Return the libc of programs with this PT_INTERP.

    musl is loader and libc in one file, and has no symbol versions: ``version`` is empty for it.

    Raises:
        Unusable: there is no libc.so.6 of this machine where this loader searches.

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
        numbers = [match[1] for name in facts.version_defs if (match := _GLIBC_VERSION.fullmatch(name))]
        if numbers:
            version = max(tuple(map(int, number.split("."))) for number in numbers)
            return LibcFacts(Libc.GLIBC, version, frozenset(facts.version_defs), directory)
    raise Unusable(f"has the dynamic loader {shown(loader)}, but no {_GLIBC} of {machine.name} belongs to it")


def _directories(loader: str, machine: Machine) -> Iterator[str]:
    """Yield the directories that may hold its libc, the most likely first."""
    yield os.path.dirname(loader)
    yield os.path.dirname(os.path.realpath(loader))
    # Every program names /lib64/ld-linux-x86-64.so.2; each distribution puts libc into a directory of its
    # own.
    base = os.path.dirname(os.path.dirname(loader)).rstrip("/")
    name = machine.arch.multiarch
    for directory in (f"lib/{name}", f"usr/lib/{name}", "lib64", "usr/lib64", "lib", "usr/lib"):
        yield f"{base}/{directory}"
    yield os.path.dirname(os.path.realpath(_NIX_LD_DEFAULT))
