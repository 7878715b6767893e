"""Which names in a file are libraries that it opens, and the file whose search path ld.so looks into. Pure.

ld.so(8) searches the RUNPATH of the object that calls dlopen. That is the file itself, or the library that it
calls instead: ``QLibrary::load`` calls dlopen inside of QtCore.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from nixpatch.elf.dlopen_strings import DLOPEN
from nixpatch.model import DlopenStrings
from nixpatch.policy import Policy, matches

_HASH = re.compile(r"-[0-9a-f]{8}(?=\.|$)")
"""what auditwheel puts into the name of a bundled library"""
UNKNOWN = "neither the tree nor a provider nor nixpkgs has a library of that name"


@dataclass(frozen=True, slots=True)
class OpeningFile:
    """An ELF file that opens libraries, as far as the rules ask."""

    path: str
    soname: str | None
    needed: tuple[str, ...]
    strings: DlopenStrings
    beside: frozenset[str] = frozenset()
    """file names of the libraries in its dist"""


@dataclass(frozen=True, slots=True)
class OpenedLibrary:
    """A library that a file opens by name."""

    sonames: tuple[str, ...]
    """alternatives, the best first: the highest version, the name without one last"""
    callers: tuple[str, ...]
    """those of the file's needs that call dlopen for it; ``""`` is the file itself"""
    reason: str = ""
    """of the row in the tables, for a name that does not stand in the file"""


@dataclass(frozen=True, slots=True)
class LeftOutName:
    """A string that looks like a library and does not become a need."""

    name: str
    reason: str


def opened_libraries(
    file: OpeningFile, policy: Policy, is_known: Callable[[str], bool]
) -> tuple[tuple[OpenedLibrary, ...], tuple[LeftOutName, ...]]:
    """Decide over every name that a file holds.

    Args:
        file: the file, with what :func:`nixpatch.elf.dlopen_strings` read.
        policy: the tables.
        is_known: whether the tree, a provider or the catalog of nixpkgs has a library of that name. Without
            it every string that ends in ``.so`` would be reported as missing.

    Returns:
        The libraries, in the order of their first names in the file, and the names that are left out.

    """
    names: dict[str, None] = {}
    left_out: list[LeftOutName] = []
    in_text = (next(filter(is_known, _tails(text)), text) for text in file.strings.in_text)
    for name in dict.fromkeys((*file.strings.names, *in_text)):
        reason = _objection(name, file, policy)
        if not reason and not policy.is_driver(name) and not is_known(name):
            reason = UNKNOWN
        if reason:
            left_out.append(LeftOutName(name, reason))
        else:
            names[name] = None
    callers = callers_of(file, policy)
    opened = [OpenedLibrary(group, callers) for group in alternatives(names)]
    for row in policy.dlopen.names:
        if fnmatchcase(file.path, row.file):
            rest = [name for name in row.sonames if name not in names and name not in file.needed]
            opened += [OpenedLibrary(group, callers, row.reason) for group in alternatives(rest)]
    return tuple(opened), tuple(left_out)


def callers_of(file: OpeningFile, policy: Policy) -> tuple[str, ...]:
    """Return which objects call dlopen for a file: ``""`` for itself, else names out of its DT_NEEDED."""
    callers = dict.fromkeys([""] if any(symbol in DLOPEN for symbol in file.strings.symbols) else [])
    for row in policy.dlopen.openers:
        if any(matches(symbol, row.symbols) for symbol in file.strings.symbols):
            callers.update(dict.fromkeys(need for need in file.needed if matches(need, row.libraries)))
    return tuple(callers)


def alternatives(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Group names that differ only in the version: code that lists them takes the first that opens."""
    order: dict[str, list[str]] = {}
    for name in names:
        order.setdefault(_stem(name), []).append(name)
    return tuple(tuple(sorted(dict.fromkeys(group), key=_version, reverse=True)) for group in order.values())


def _objection(name: str, file: OpeningFile, policy: Policy) -> str:
    """Return why a name is no need of its own; "" where nothing speaks against it."""
    stem = _stem(name)
    own = {_stem(_HASH.sub("", other)) for other in (file.soname, os.path.basename(file.path)) if other}
    if stem in own:
        return "the file's own name"
    if name in file.needed:
        return "needed by the file already"
    if any(policy.libc_of(spelled) is not None for spelled in (name, *(f"{stem}.so.{n}" for n in "6210"))):
        return "a part of libc"
    if name in file.beside:
        return "a file of the same dist, which finds it in a way of its own"
    return next(
        (
            row.reason
            for row in policy.dlopen.never
            if matches(name, row.sonames) and fnmatchcase(file.path, row.file)
        ),
        "",
    )


def _stem(name: str) -> str:
    return name.partition(".so")[0]


def _version(name: str) -> tuple[int, ...]:
    """Return what orders the versions of a library; a name without one comes before all of them."""
    return tuple(map(int, re.findall(r"\d+", name.partition(".so")[2])))


def _tails(text: str) -> Iterator[str]:
    """Yield what may be the name in ``...lib...lib....so.1``, the longest first."""
    for match in re.finditer("lib", text):
        yield text[match.start() :]
