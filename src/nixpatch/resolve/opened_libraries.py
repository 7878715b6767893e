"""Which names in a file are libraries that it opens, and the file whose search path ld.so looks into. Pure.

ld.so(8) searches the RUNPATH of the object that calls dlopen. That is the file itself, or the library that it
calls instead: ``QLibrary::load`` calls dlopen inside of QtCore.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from nixpatch.elf.dlopen_strings import DLOPEN
from nixpatch.model import DlopenStrings, OpenedNeed, TreeFile
from nixpatch.policy import Policy, matches
from nixpatch.resolve.context import ResolutionContext

_HASH = re.compile(r"-[0-9a-f]{8}(?=\.|$)")
"""what auditwheel puts into the name of a bundled library"""
_CFFI = "_cffi_backend."
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


def needs_by_caller(
    context: ResolutionContext,
    strings: Mapping[str, DlopenStrings],
    is_known: Callable[[str], bool],
    cffi: Sequence[OpenedNeed] = (),
) -> dict[str, tuple[OpenedNeed, ...]]:
    """Return what is opened by name in a tree, by the file in whose search path ld.so looks.

    Args:
        context: the tree.
        strings: by path, for the files that open libraries by name.
        is_known: as for :func:`opened_libraries`.
        cffi: what Python sources open by ``ffi.dlopen``: the cffi backend of the tree calls dlopen for them.

    """
    files = {file.path: file for file in context.tree.files}
    beside: dict[tuple[str, ...], set[str]] = {}
    for file in files.values():
        beside.setdefault(file.owners, set()).add(os.path.basename(file.path))
    needs: dict[str, dict[OpenedNeed, None]] = {}
    for path, held in sorted(strings.items()):
        file, facts = files[path], context.facts[path]
        opening = OpeningFile(path, facts.soname, facts.needed, held, frozenset(beside[file.owners]))
        for library in opened_libraries(opening, context.policy, is_known)[0]:
            need = OpenedNeed(library.sonames, path, library.reason)
            for caller in _caller_files(context, file, library.callers):
                needs.setdefault(caller, {})[need] = None
    for path in sorted(files):
        if os.path.basename(path).startswith(_CFFI) and path in context.facts:
            needs.setdefault(path, {}).update(dict.fromkeys(cffi))
    return {path: tuple(of_file) for path, of_file in needs.items() if of_file}


def _caller_files(context: ResolutionContext, file: TreeFile, callers: Sequence[str]) -> Iterator[str]:
    """Yield the files of the tree that call dlopen for a file: itself, and libraries that it needs."""
    for caller in callers:
        if not caller:
            yield file.path
        else:
            paths = context.files_of_own_dist(file, caller) or context.files_of_any_dist(file, caller)
            yield from (path for path in paths[:1] if path in context.facts)


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
