"""Which file answers a symbol, before and after grafted libraries give way to the store's.

The rules are ld.so's: a library that Python opens is looked up in behind the program itself, breadth first
through its needs, each soname once (dl-deps.c); a name matches by version as in check_match (dl-lookup.c).
What the program brings along answers first in both worlds and is left out. Libraries bind in the scope of
whoever opened them first, so every file of the tree counts as one that may be opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from nixpatch.model import Definition, Reference, SymbolKind, Symbols

# What every linker puts into every file: nobody looks these up in another one.
_LINKER_MADE = frozenset({"_init", "_fini", "_edata", "_end", "__bss_start", "_IO_stdin_used", "__end__"})


class Need(NamedTuple):
    """A need and the file that meets it; libc and what nobody meets are left out."""

    name: str
    path: str


class Substitute(NamedTuple):
    """What stands in for a graft."""

    soname: str
    path: str


@dataclass(frozen=True)
class World:
    """What is known of files, by real path: those of the tree and those of the store."""

    needs: Callable[[str], tuple[Need, ...]]
    symbols: Callable[[str], Symbols]
    in_tree: Callable[[str], bool]
    is_libc: Callable[[str], bool]
    """whether a soname is a part of libc"""
    programs: frozenset[str] = frozenset()
    unreadable: Callable[[str], str | None] = lambda _: None
    """why the symbols of a file are not known; ``symbols`` has none for it then"""
    _closures: dict[str, frozenset[str]] = field(default_factory=dict, init=False)

    def brought_by(self, path: str) -> frozenset[str]:
        """Return a file of the store and what it needs, transitively."""
        if path not in self._closures:
            self._closures[path] = frozenset(scope(path, self, {}))
        return self._closures[path]


@dataclass(frozen=True, slots=True)
class Conflict:
    """A symbol that would be bound otherwise than it should."""

    text: str
    grafts: frozenset[str]
    """whose substitution is to blame"""
    direct: bool
    """the substitute itself does not serve, rather than something that it brings along"""


def scope(root: str, world: World, instead: Mapping[str, Substitute]) -> tuple[str, ...]:
    """Return the files in which a symbol is looked up for all that ``root`` loads, in order."""
    order = [root]
    seen = {root}
    by_name: dict[str, str] = {}
    for path in order:
        for need in world.needs(path):
            name, found = instead.get(need.path, need)
            found = by_name.setdefault(name, found)
            if found not in seen:
                seen.add(found)
                order.append(found)
    return tuple(order)


def conflicts(roots: Iterable[str], world: World, instead: Mapping[str, Substitute]) -> Iterator[Conflict]:
    """Yield each symbol whose binding would change for the worse in the scope of one of ``roots``."""
    for root in roots:
        before = scope(root, world, {})
        if not any(path in instead for path in before):
            continue
        after = scope(root, world, instead)
        yield from _Scopes(root, before, after, world, instead).conflicts()


def match(reference: Reference, symbols: Symbols) -> Definition | None:
    """Return the definition that ld.so would take for a reference from this file, if any (check_match)."""
    found = symbols.defined.get(reference.name)
    if not found:
        return None
    if not symbols.versioned:
        return found[0]
    if reference.version is not None:
        exact = next((one for one in found if one.version == reference.version), None)
        return exact or next((one for one in found if one.version is None and not one.hidden), None)
    old = next((one for one in found if one.index <= 2), None)
    visible = [one for one in found if not one.hidden]
    return old or (visible[0] if len(visible) == 1 else None)


class _Scopes:
    """One file that may be opened, and what it can see before and after."""

    def __init__(
        self,
        root: str,
        before: tuple[str, ...],
        after: tuple[str, ...],
        world: World,
        instead: Mapping[str, Substitute],
    ) -> None:
        self.root = root
        self.before = before
        self.after = after
        self.world = world
        self.instead = instead

    def conflicts(self) -> Iterator[Conflict]:
        dark = {path: self.world.unreadable(path) for path in dict.fromkeys((*self.before, *self.after))}
        for path, why in dark.items():
            if why is not None:
                # Whatever it imports or exports: nobody can say that it stays as it is.
                blamed = frozenset({path}) if path in self.instead else self._blamed(path)
                yield Conflict(f"the symbols of {path} cannot be read: {why}", blamed, True)
        loaded = set(self.after)
        had = set(self.before)
        for path in self.before:
            if path in loaded:
                yield from self._old_file(path)
        for path in self.after:
            if path not in had:
                yield from self._new_file(path)
        if self.root in self.world.programs:
            yield from self._copied(self.root)

    def _answer(self, reference: Reference, files: tuple[str, ...]) -> tuple[str, Definition] | None:
        for path in files:
            found = match(reference, self.world.symbols(path))
            if found is not None:
                return path, found
        return None

    def _blamed(self, path: str) -> frozenset[str]:
        """Return the grafts whose substitutes bring a file into the scope; all, if none does."""
        here = [graft for graft in self.before if graft in self.instead]
        found = [g for g in here if path in self.world.brought_by(self.instead[g].path)]
        return frozenset(found or here)

    def _old_file(self, path: str) -> Iterator[Conflict]:
        """See that what a file imports from a graft comes from its substitute, and the rest as before."""
        ours = self.world.in_tree(path)
        for reference in self.world.symbols(path).wanted:
            if reference.soname is not None and self.world.is_libc(reference.soname):
                continue
            old = self._answer(reference, self.before)
            new = self._answer(reference, self.after)
            if old is None and new is None:
                continue
            name = _named(reference)
            if old is not None and old[0] in self.instead:
                graft = frozenset({old[0]})
                expected = self.instead[old[0]].path
                if new is None:
                    yield Conflict(f"{name}, imported by {path}, is not exported by {expected}", graft, True)
                elif new[0] != expected:
                    yield Conflict(f"{name}, imported by {path}, would come from {new[0]}", graft, True)
                elif (why := _differs(old[1], new[1])) is not None:
                    yield Conflict(f"{name}, imported by {path}: {why}", graft, True)
            elif new is None:
                assert old is not None
                text = (
                    f"{name}, imported by {path}, would no longer be found: {old[0]} is not loaded any more"
                )
                yield Conflict(text, self._blamed(old[0]), False)
            elif (old is None or new[0] != old[0]) and (ours or self.world.in_tree(new[0])):
                was = f"not from {old[0]}" if old else "where so far nothing answers"
                text = f"{name}, imported by {path}, would come from {new[0]}, {was}"
                yield Conflict(text, self._blamed(new[0]), False)

    def _new_file(self, path: str) -> Iterator[Conflict]:
        """See that no copy in the tree answers for a file of the store that comes in."""
        symbols = self.world.symbols(path)
        for reference in symbols.wanted:
            if reference.soname is None or not self.world.is_libc(reference.soname):
                found = self._answer(reference, self.after)
                if found is not None and self.world.in_tree(found[0]):
                    text = f"{_named(reference)}, imported by {path}, would come from {found[0]}"
                    yield Conflict(text, self._blamed(path), False)
        for name, definitions in symbols.defined.items():
            if name in _LINKER_MADE:
                continue
            own = definitions[0]
            if own.version == name and own.size == 0:
                continue  # ld makes one for each version that a file defines, to have something to number
            found = self._answer(Reference(name, own.version, None), self.after)
            # Vague linkage: C++ has equal copies of inline functions in many files, and any will do.
            if found is not None and self.world.in_tree(found[0]) and not (own.vague and found[1].vague):
                text = f"{name}, which {path} exports, would be answered by {found[0]}"
                yield Conflict(text, self._blamed(path), False)

    def _copied(self, program: str) -> Iterator[Conflict]:
        """See to data that a program has a copy of (R_*_COPY), of a size fixed when it was linked."""
        mine = self.world.symbols(program).defined
        for graft, substitute in self.instead.items():
            if graft not in self.before:
                continue
            theirs = self.world.symbols(substitute.path).defined
            for name, found in self.world.symbols(graft).defined.items():
                if name in mine and found[0].kind is SymbolKind.DATA:
                    new = theirs.get(name)
                    if new is None or new[0].size != found[0].size:
                        text = f"{name}, copied into {program}, is not of the same size"
                        yield Conflict(text, frozenset({graft}), True)


def _named(reference: Reference) -> str:
    return reference.name if reference.version is None else f"{reference.name}@{reference.version}"


def _differs(old: Definition, new: Definition) -> str | None:
    """Say how two definitions differ in what a reference relies on."""
    kinds = {old.kind, new.kind}
    if len(kinds) > 1 and SymbolKind.ANY not in kinds:
        return f"a {new.kind.value}, not a {old.kind.value}"
    if old.kind in {SymbolKind.DATA, SymbolKind.TLS} and old.size != new.size:
        return f"{new.size} bytes, not {old.size}"
    return None
