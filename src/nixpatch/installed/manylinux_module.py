"""``_manylinux``: the module by which a Python tells installers what wheels to take.

It is found, written and taken away. Ours carries a mark and a digest of itself, so that an edited one is
someone else's. Those are left alone.
"""

from __future__ import annotations

import enum
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nixpatch.errors import MachineError, RequestError
from nixpatch.escape import shown, why
from nixpatch.fs import read_regular, replace_bytes
from nixpatch.installed.manylinux_parser import ATTRIBUTES, FUNCTION, Answers, answers
from nixpatch.installed.sys_path import Place

NAME = "_manylinux"
_FILE = f"{NAME}.py"
_MARK = "# Written by nixpatch manylinux "
_DIGEST = "# sha256 of what follows: "
_MAX_SIZE = 1 << 16  # bytes; one that says yes or no has a hundred


class Mode(enum.Enum):
    """What one that nixpatch writes says."""

    ALLOW = "allow"
    DENY = "deny"
    HONEST = "honest"


class Maker(enum.Enum):
    """Whose a module is. The value is the text people read."""

    OURS = "written by nixpatch manylinux"
    EDITED = "written by nixpatch manylinux and changed since"
    OTHER = "not written by nixpatch"


@dataclass(frozen=True)
class Switch:
    """One ``_manylinux`` on the path of a target."""

    path: str
    place: Place
    maker: Maker
    mode: str
    """of one that is ours: the command that wrote it"""
    answers: Answers


def find(places: Iterable[Place]) -> tuple[Switch, ...]:
    """Return every ``_manylinux`` on the path, in order: the first is the one that is imported."""
    return tuple(switch for place in places for switch in _here(place))


def source(mode: Mode, arch: str, limit: tuple[int, int] | None) -> bytes:
    """Return the module that answers by ``mode``: for pip of 2016 by attributes, for today's by a function.

    ``limit`` is for ``HONEST``: the highest glibc of a policy that is kept on ``arch``; None where none is.
    It is data in the module, which needs nothing of nixpatch. It has to run on the Pythons of old installers.
    """
    said = {
        Mode.ALLOW: "True",
        Mode.DENY: "False",
        Mode.HONEST: f'arch == "{arch}" and (major, minor) <= {limit}' if limit else "False",
    }[mode]
    told = {
        Mode.ALLOW: "Every manylinux wheel is welcome that the version of glibc allows.",
        Mode.DENY: "No manylinux wheel is welcome.",
        Mode.HONEST: "What the libraries at hand kept when this was written.",
    }[mode]
    lines = [
        '"""Tells installers which manylinux wheels to take (PEP 513, 571, 599, 600)."""',
        "",
        f"# {told}",
    ]
    for version, attribute in ATTRIBUTES.items():
        kept = mode is Mode.ALLOW or (mode is Mode.HONEST and limit is not None and version <= limit)
        lines.append(f"{attribute} = {kept}")
    lines += ["", "", f"def {FUNCTION}(major, minor, arch):", f"    return {said}", ""]
    body = "\n".join(lines).encode("ascii")
    digest = hashlib.sha256(body).hexdigest()
    head = f"{_MARK}{mode.value}; `nixpatch manylinux reset` takes it away.\n{_DIGEST}{digest}\n"
    return head.encode("ascii") + body


def write(site: str, data: bytes) -> str:
    """Put a module of ours into a site directory and return its path.

    Raises:
        RequestError: there is one that is not ours, or not as we wrote it.
        MachineError: it cannot be written.

    """
    path = _ours_or_none(site) or os.path.join(site, _FILE)
    try:
        replace_bytes(path, data)
        # replace_bytes keeps the time of the old file, by which Python tells whether its bytecode is stale.
        os.utime(path)
        _forget_bytecode(site)
    except OSError as error:
        raise MachineError(f"{shown(path)}: cannot be written: {why(error)}") from error
    return path


def remove(site: str) -> str | None:
    """Take ours away and return where it was; None where there is none.

    Raises:
        RequestError: there is one that is not ours, or not as we wrote it.
        MachineError: it cannot be removed.

    """
    path = _ours_or_none(site)
    try:
        if path is not None:
            os.unlink(path)
            _forget_bytecode(site)
    except OSError as error:
        raise MachineError(f"{shown(str(path))}: cannot be removed: {why(error)}") from error
    return path


def _ours_or_none(site: str) -> str | None:
    for switch in _here(Place(site, "")):
        if switch.maker is not Maker.OURS:
            raise RequestError(f"{shown(switch.path)}: {switch.maker.value}, so it stays; remove it yourself")
        return switch.path
    return None


def _here(place: Place) -> Iterator[Switch]:
    """Yield what ``import _manylinux`` finds in a directory, in the order of CPython's finder."""
    try:
        names = set(os.listdir(place.directory))
    except OSError:
        return
    directory = os.path.join(place.directory, NAME)
    if NAME in names and os.path.isfile(os.path.join(directory, "__init__.py")):
        yield _read(os.path.join(directory, "__init__.py"), place)
    for name in sorted(names):
        if name.startswith(f"{NAME}.") and name.endswith(".so"):
            path = os.path.join(place.directory, name)
            yield Switch(path, place, Maker.OTHER, "", Answers(computed="it is compiled"))
    if _FILE in names:
        yield _read(os.path.join(place.directory, _FILE), place)
    elif f"{NAME}.pyc" in names:
        path = os.path.join(place.directory, f"{NAME}.pyc")
        yield Switch(path, place, Maker.OTHER, "", Answers(computed="it is compiled"))


def _read(path: str, place: Place) -> Switch:
    try:
        # Through a link, as Python does; but what is behind a link is not ours.
        data = read_regular(os.path.realpath(path), _MAX_SIZE)
    except (OSError, ValueError) as error:
        return Switch(path, place, Maker.OTHER, "", Answers(computed=f"it cannot be read: {why(error)}"))
    maker, mode = (Maker.OTHER, "") if os.path.islink(path) else _maker(data)
    return Switch(path, place, maker, mode, answers(data))


def _maker(data: bytes) -> tuple[Maker, str]:
    first, _, rest = data.partition(b"\n")
    second, _, body = rest.partition(b"\n")
    if not first.startswith(_MARK.encode()):
        return Maker.OTHER, ""
    mode = first.removeprefix(_MARK.encode()).partition(b";")[0].decode("ascii", "replace")
    whole = second == _DIGEST.encode() + hashlib.sha256(body).hexdigest().encode()
    return (Maker.OURS if whole else Maker.EDITED), mode


def _forget_bytecode(site: str) -> None:
    """Remove what Python compiled of an earlier one."""
    cache = os.path.join(site, "__pycache__")
    for name in os.listdir(cache) if os.path.isdir(cache) else ():
        if name.startswith(f"{NAME}.") and name.endswith(".pyc"):
            os.unlink(os.path.join(cache, name))
