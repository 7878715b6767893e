"""Which file answers a symbol, before and after the store's libraries replace vendored ones.

The rules are ld.so's. The scope of a library that Python opens is the program itself, then the library and
its needs, breadth first, each soname once (dl-deps.c); a reference matches a definition by its version as in
check_match (dl-lookup.c). The files of the program answer first before and after, and are left out. A library
is bound in the scope of the first file that loads it, so every file of the tree counts as one that may be
opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from nixpatch.model import Definition, Reference, SymbolKind, Symbols

# Every linker defines these in every file, and no file takes them from another one.
_LINKER_MADE = frozenset({"_init", "_fini", "_edata", "_end", "__bss_start", "_IO_stdin_used", "__end__"})


class ServedNeed(NamedTuple):
    """A need and the file that serves it; libc and unmet needs are left out."""

    name: str
    path: str


class Substitute(NamedTuple):
    """The library of the store in place of a vendored one."""

    soname: str
    path: str


@dataclass(frozen=True)
class LinkedFiles:
    """The needs and symbols of files, by real path: those of the tree and those of the store."""

    needs: Callable[[str], tuple[ServedNeed, ...]]
    symbols: Callable[[str], Symbols]
    in_tree: Callable[[str], bool]
    is_libc: Callable[[str], bool]
    """whether a soname is a part of libc"""
    programs: frozenset[str] = frozenset()
    unreadable: Callable[[str], str | None] = lambda _: None
    """returns why the symbols of a file are not known; ``symbols`` has none for it then"""
    _closures: dict[str, frozenset[str]] = field(default_factory=dict, init=False)

    def closure(self, path: str) -> frozenset[str]:
        """Return a file of the store and its needs, transitively."""
        if path not in self._closures:
            self._closures[path] = frozenset(scope(path, self, {}))
        return self._closures[path]


@dataclass(frozen=True, slots=True)
class BindingConflict:
    """A symbol that would be bound to the wrong file."""

    text: str
    replaced: frozenset[str]
    """the vendored libraries whose substitutes cause it"""
    direct: bool
    """the substitute itself does not serve, rather than something that it loads"""


def scope(root: str, files: LinkedFiles, substitutes: Mapping[str, Substitute]) -> tuple[str, ...]:
    """Return the files in which the symbols of ``root`` and of all that it loads are looked up, in order."""
    order = [root]
    seen = {root}
    by_name: dict[str, str] = {}
    for path in order:
        for need in files.needs(path):
            name, serving = substitutes.get(need.path, need)
            serving = by_name.setdefault(name, serving)
            if serving not in seen:
                seen.add(serving)
                order.append(serving)
    return tuple(order)


def conflicts(
    roots: Iterable[str], files: LinkedFiles, substitutes: Mapping[str, Substitute]
) -> Iterator[BindingConflict]:
    """Yield each symbol that would be bound to a wrong file in the scope of one of ``roots``."""
    for root in roots:
        before = scope(root, files, {})
        if any(path in substitutes for path in before):
            after = scope(root, files, substitutes)
            yield from _ScopeChange(root, before, after, files, substitutes).conflicts()


def match(reference: Reference, symbols: Symbols) -> Definition | None:
    """Return the definition of a file that ld.so would take for a reference, None if none (check_match)."""
    definitions = symbols.defined.get(reference.name)
    if not definitions:
        return None
    if not symbols.versioned:
        return definitions[0]
    if reference.version is not None:
        exact = next((d for d in definitions if d.version == reference.version), None)
        return exact or next((d for d in definitions if d.version is None and not d.hidden), None)
    oldest = next((d for d in definitions if d.index <= 2), None)
    visible = [d for d in definitions if not d.hidden]
    return oldest or (visible[0] if len(visible) == 1 else None)


@dataclass(frozen=True, slots=True)
class _ScopeChange:
    """The scope of one file that may be opened, before and after."""

    root: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    files: LinkedFiles
    substitutes: Mapping[str, Substitute]

    def conflicts(self) -> Iterator[BindingConflict]:
        """Yield each symbol that would be bound to a wrong file."""
        for path in dict.fromkeys((*self.before, *self.after)):
            reason = self.files.unreadable(path)
            if reason is not None:
                # Its imports and exports are not known, so none of them is known to stay the same.
                replaced = frozenset({path}) if path in self.substitutes else self._replaced_by_loading(path)
                yield BindingConflict(f"the symbols of {path} cannot be read: {reason}", replaced, True)
        before, after = set(self.before), set(self.after)
        for path in self.before:
            if path in after:
                yield from self._check_old_file(path)
        for path in self.after:
            if path not in before:
                yield from self._check_new_file(path)
        if self.root in self.files.programs:
            yield from self._check_copies(self.root)

    def _answer(self, reference: Reference, paths: tuple[str, ...]) -> tuple[str, Definition] | None:
        for path in paths:
            definition = match(reference, self.files.symbols(path))
            if definition is not None:
                return path, definition
        return None

    def _replaced_by_loading(self, path: str) -> frozenset[str]:
        """Return the vendored libraries whose substitutes load a file; all of the scope, if none does."""
        replaced = [vendored for vendored in self.before if vendored in self.substitutes]
        loading = [
            vendored for vendored in replaced if path in self.files.closure(self.substitutes[vendored].path)
        ]
        return frozenset(loading or replaced)

    def _check_old_file(self, path: str) -> Iterator[BindingConflict]:
        """Check that imports from a vendored library move to its substitute, and others stay the same."""
        in_tree = self.files.in_tree(path)
        for reference in self.files.symbols(path).wanted:
            if reference.soname is not None and self.files.is_libc(reference.soname):
                continue
            old = self._answer(reference, self.before)
            new = self._answer(reference, self.after)
            if old is None and new is None:
                continue
            name = _symbol_name(reference)
            if old is not None and old[0] in self.substitutes:
                replaced = frozenset({old[0]})
                expected = self.substitutes[old[0]].path
                if new is None:
                    text = f"{name}, imported by {path}, is not exported by {expected}"
                    yield BindingConflict(text, replaced, True)
                elif new[0] != expected:
                    text = f"{name}, imported by {path}, would come from {new[0]}"
                    yield BindingConflict(text, replaced, True)
                elif (difference := _difference(old[1], new[1])) is not None:
                    text = f"{name}, imported by {path}: {difference}"
                    yield BindingConflict(text, replaced, True)
            elif new is None:
                assert old is not None
                text = (
                    f"{name}, imported by {path}, would no longer be found: {old[0]} is not loaded any more"
                )
                yield BindingConflict(text, self._replaced_by_loading(old[0]), False)
            elif (old is None or new[0] != old[0]) and (in_tree or self.files.in_tree(new[0])):
                was = f"not from {old[0]}" if old else "where so far nothing answers"
                text = f"{name}, imported by {path}, would come from {new[0]}, {was}"
                yield BindingConflict(text, self._replaced_by_loading(new[0]), False)

    def _check_new_file(self, path: str) -> Iterator[BindingConflict]:
        """Check that no file of the tree answers for a file of the store that is now loaded."""
        symbols = self.files.symbols(path)
        for reference in symbols.wanted:
            if reference.soname is None or not self.files.is_libc(reference.soname):
                answer = self._answer(reference, self.after)
                if answer is not None and self.files.in_tree(answer[0]):
                    text = f"{_symbol_name(reference)}, imported by {path}, would come from {answer[0]}"
                    yield BindingConflict(text, self._replaced_by_loading(path), False)
        for name, definitions in symbols.defined.items():
            if name in _LINKER_MADE:
                continue
            own = definitions[0]
            if own.version == name and own.size == 0:
                continue  # ld defines a symbol for the name of each version, to have something to number
            answer = self._answer(Reference(name, own.version, None), self.after)
            # Vague linkage: C++ has equal copies of inline functions in many files, and any of them serves.
            if answer is not None and self.files.in_tree(answer[0]) and not (own.vague and answer[1].vague):
                text = f"{name}, which {path} exports, would be answered by {answer[0]}"
                yield BindingConflict(text, self._replaced_by_loading(path), False)

    def _check_copies(self, program: str) -> Iterator[BindingConflict]:
        """Check the sizes of data that a program has a copy of (R_*_COPY), fixed when it was linked."""
        copied = self.files.symbols(program).defined
        for vendored, substitute in self.substitutes.items():
            if vendored not in self.before:
                continue
            new_definitions = self.files.symbols(substitute.path).defined
            for name, old in self.files.symbols(vendored).defined.items():
                if name in copied and old[0].kind is SymbolKind.DATA:
                    new = new_definitions.get(name)
                    if new is None or new[0].size != old[0].size:
                        text = f"{name}, copied into {program}, is not of the same size"
                        yield BindingConflict(text, frozenset({vendored}), True)


def _symbol_name(reference: Reference) -> str:
    return reference.name if reference.version is None else f"{reference.name}@{reference.version}"


def _difference(old: Definition, new: Definition) -> str | None:
    """Return how two definitions differ in ways that matter to a reference."""
    kinds = {old.kind, new.kind}
    if len(kinds) > 1 and SymbolKind.ANY not in kinds:
        return f"a {new.kind.value}, not a {old.kind.value}"
    if old.kind in {SymbolKind.DATA, SymbolKind.TLS} and old.size != new.size:
        return f"{new.size} bytes, not {old.size}"
    return None
