"""Find, write and remove ``_manylinux``, by which a Python accepts or rejects manylinux wheels (PEP 600).

A module of nixpatch has a mark and a digest of its contents. Any other one, an edited one too, is left alone.
"""

from __future__ import annotations

import enum
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nixpatch.errors import MachineError, RequestError
from nixpatch.escape import reason, shown
from nixpatch.fs import read_regular, replace_bytes
from nixpatch.fs import remove as remove_file
from nixpatch.installed.manylinux_parser import ATTRIBUTES, FUNCTION, Answers, answers
from nixpatch.installed.sys_path import SysPathEntry

NAME = "_manylinux"
_FILE = f"{NAME}.py"
_MARK = "# Written by nixpatch manylinux "
_DIGEST = "# sha256 of what follows: "
_MAX_SIZE = 1 << 16  # bytes; a module with constant answers has a hundred


class Mode(enum.Enum):
    """The answers of a module that nixpatch writes: the name of the command."""

    ALLOW = "allow"
    DENY = "deny"
    HONEST = "honest"


class Maker(enum.Enum):
    """The author of a module. The value is the text people read."""

    OURS = "written by nixpatch manylinux"
    EDITED = "written by nixpatch manylinux and changed since"
    OTHER = "not written by nixpatch"


@dataclass(frozen=True)
class ManylinuxModule:
    """A ``_manylinux`` module on ``sys.path`` of a target."""

    path: str
    entry: SysPathEntry
    maker: Maker
    mode: str
    """the ``Mode`` that nixpatch wrote; "" for others"""
    answers: Answers


def find(sys_path: Iterable[SysPathEntry]) -> tuple[ManylinuxModule, ...]:
    """Return every ``_manylinux`` on the path, in order; Python imports the first."""
    return tuple(module for entry in sys_path for module in _modules_in(entry))


def source(mode: Mode, arch: str, limit: tuple[int, int] | None) -> bytes:
    """Return the source of a module: attributes for pip of 2016, a function for newer installers.

    It imports nothing, and runs on the Pythons of old installers.

    Args:
        mode: the answers.
        arch: the machine, as ``platform.machine()`` names it.
        limit: for ``HONEST``, the highest glibc of a policy that is kept on ``arch``; None if none is.

    """
    answer = {
        Mode.ALLOW: "True",
        Mode.DENY: "False",
        Mode.HONEST: f'arch == "{arch}" and (major, minor) <= {limit}' if limit else "False",
    }[mode]
    comment = {
        Mode.ALLOW: "Every manylinux wheel is welcome that the version of glibc allows.",
        Mode.DENY: "No manylinux wheel is welcome.",
        Mode.HONEST: "What the libraries at hand kept when this was written.",
    }[mode]
    lines = [
        '"""Tells installers which manylinux wheels to take (PEP 513, 571, 599, 600)."""',
        "",
        f"# {comment}",
    ]
    for version, attribute in ATTRIBUTES.items():
        is_kept = mode is Mode.ALLOW or (mode is Mode.HONEST and limit is not None and version <= limit)
        lines.append(f"{attribute} = {is_kept}")
    lines += ["", "", f"def {FUNCTION}(major, minor, arch):", f"    return {answer}", ""]
    body = "\n".join(lines).encode("ascii")
    digest = hashlib.sha256(body).hexdigest()
    head = f"{_MARK}{mode.value}; `nixpatch manylinux reset` takes it away.\n{_DIGEST}{digest}\n"
    return head.encode("ascii") + body


def write(site: str, data: bytes) -> str:
    """Write a module into a site directory and return its path.

    Raises:
        RequestError: there is one that nixpatch did not write, or that was changed since.
        MachineError: it cannot be written.

    """
    path = _ours_or_none(site) or os.path.join(site, _FILE)
    try:
        replace_bytes(path, data, keep_times=False)  # Python compares the time with that in the bytecode
        _remove_bytecode(site)
    except OSError as error:
        raise MachineError(f"{shown(path)}: cannot be written: {reason(error)}") from error
    return path


def remove(site: str) -> str | None:
    """Remove the module of nixpatch and return its path; None if there is none.

    Raises:
        RequestError: there is one that nixpatch did not write, or that was changed since.
        MachineError: it cannot be removed.

    """
    path = _ours_or_none(site)
    try:
        if path is not None:
            remove_file(path)
            _remove_bytecode(site)
    except OSError as error:
        raise MachineError(f"{shown(str(path))}: cannot be removed: {reason(error)}") from error
    return path


def _ours_or_none(site: str) -> str | None:
    for module in _modules_in(SysPathEntry(site, "")):
        if module.maker is not Maker.OURS:
            raise RequestError(f"{shown(module.path)}: {module.maker.value}, so it stays; remove it yourself")
        return module.path
    return None


def _modules_in(entry: SysPathEntry) -> Iterator[ManylinuxModule]:
    """Yield what ``import _manylinux`` would find in a directory, in the order of CPython's FileFinder."""
    try:
        names = set(os.listdir(entry.directory))
    except OSError:
        return
    package = os.path.join(entry.directory, NAME, "__init__.py")
    if NAME in names and os.path.isfile(package):
        yield _read(package, entry)
    for name in sorted(names):
        if name.startswith(f"{NAME}.") and name.endswith(".so"):
            yield _unknown(os.path.join(entry.directory, name), entry, "it is compiled")
    if _FILE in names:
        yield _read(os.path.join(entry.directory, _FILE), entry)
    elif f"{NAME}.pyc" in names:
        yield _unknown(os.path.join(entry.directory, f"{NAME}.pyc"), entry, "it is compiled")


def _read(path: str, entry: SysPathEntry) -> ManylinuxModule:
    try:
        # Python follows a link; but nixpatch did not write the file behind one.
        data = read_regular(os.path.realpath(path), _MAX_SIZE)
    except (OSError, ValueError) as error:
        return _unknown(path, entry, f"it cannot be read: {reason(error)}")
    maker, mode = (Maker.OTHER, "") if os.path.islink(path) else _maker(data)
    return ManylinuxModule(path, entry, maker, mode, answers(data))


def _unknown(path: str, entry: SysPathEntry, text: str) -> ManylinuxModule:
    return ManylinuxModule(path, entry, Maker.OTHER, "", Answers(computed=text))


def _maker(data: bytes) -> tuple[Maker, str]:
    first, _, rest = data.partition(b"\n")
    second, _, body = rest.partition(b"\n")
    if not first.startswith(_MARK.encode()):
        return Maker.OTHER, ""
    mode = first.removeprefix(_MARK.encode()).partition(b";")[0].decode("ascii", "replace")
    is_unchanged = second == _DIGEST.encode() + hashlib.sha256(body).hexdigest().encode()
    return (Maker.OURS if is_unchanged else Maker.EDITED), mode


def _remove_bytecode(site: str) -> None:
    """Remove the bytecode of an earlier module."""
    cache = os.path.join(site, "__pycache__")
    for name in os.listdir(cache) if os.path.isdir(cache) and not os.path.islink(cache) else ():
        if name.startswith(f"{NAME}.") and name.endswith(".pyc"):
            remove_file(os.path.join(cache, name))
