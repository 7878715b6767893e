"""Files that are loaded by themselves: modules that Python imports, programs, and what code names."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Collection

from nixpatch.elf.symbols import read_symbols
from nixpatch.errors import FileRefused
from nixpatch.installed.scan import DistSources
from nixpatch.model import Dist, ElfFacts, Target, Tree, TreeFile
from nixpatch.resolve.stopped_imports import module_name

_LITERAL = re.compile(r"""["'](?:[^"'\r\n]*/)?([\w.+*?{}%-]{4,255})["']""")
_PLACEHOLDER = re.compile(r"\{\w*[^{}]*\}|%[sdr]")
_MAX_PATTERNS = 1000


class StartingFiles:
    """Decides whether a file is loaded by itself, and not only because another one needs it."""

    def __init__(self, tree: Tree, target: Target | None) -> None:
        self._dists = {dist.info: dist for dist in tree.dists}
        self._files: dict[str, list[str]] = {}
        for file in tree.files:
            for info in file.owners:
                self._files.setdefault(info, []).append(os.path.basename(file.path))
        self._target = target
        self._named: dict[str, frozenset[str]] = {}

    def __call__(self, file: TreeFile, facts: ElfFacts | None) -> bool:
        """Return whether a file is a program, a module, or named in the code of its dist.

        So is every file of no dist: nothing says what it is for.
        """
        owners = [self._dists[info] for info in file.owners if info in self._dists]
        if not owners or (facts is not None and _is_program(facts)):
            return True
        name = os.path.basename(file.path)
        return _is_module(file.path, self._target) or any(name in self._named_by(dist) for dist in owners)

    def _named_by(self, dist: Dist) -> frozenset[str]:
        """Return the names of ELF files of a dist that its sources have as a text, read once."""
        if dist.info not in self._named:
            literals: set[str] = set()
            sources = DistSources(dist)
            for name in sources:
                source = sources.get(name, b"")
                literals.update(_LITERAL.findall(source.decode("utf-8", "surrogateescape")))
            self._named[dist.info] = named_files(self._files.get(dist.info, ()), literals)
        return self._named[dist.info]


def named_files(files: Collection[str], literals: Collection[str]) -> frozenset[str]:
    """Return the files that literals name, with or without ``.so`` and version.

    A pattern (``lib*.so``, ``f"lib{name}.so"``) that fits several names none: code may choose among them.

    Args:
        files: names of the ELF files of a dist.
        literals: texts of its sources, without directories.

    """
    named = {file for file in files if file in literals or file.partition(".so")[0] in literals}
    patterns = {
        _PLACEHOLDER.sub("*", literal)
        for literal in literals
        if ".so" in literal and any(mark in literal for mark in "*?{%")
    }
    for pattern in sorted(patterns)[:_MAX_PATTERNS]:
        fitting = fnmatch.filter(files, pattern)
        if len(set(fitting)) == 1:
            named.update(fitting)
    return frozenset(named)


def _is_program(facts: ElfFacts) -> bool:
    # Old linkers do not mark PIE. A library with an interpreter, such as libc or libQt6Core, has a soname.
    return facts.executable or (facts.original.interp is not None and facts.soname is None)


def _is_module(path: str, target: Target | None) -> bool:
    name = module_name(path, target)
    if name is None or name[1]:
        return name is not None
    try:
        symbols = read_symbols(path)
    except (FileRefused, OSError):
        return True  # nothing shows that it is none
    if name[0].isascii():
        return f"PyInit_{name[0]}" in symbols.defined
    return any(symbol.startswith("PyInitU_") for symbol in symbols.defined)  # PEP 489
