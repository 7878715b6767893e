"""Everything that resolution looks at, in one frozen value."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from nixpatch.model import ElfFacts, Libc, Machine, Provider, Tag, Target, Tree, TreeFile
from nixpatch.policy import Policy
from nixpatch.resolve.dist_graph import lenders
from nixpatch.resolve.ld_so import Found, find
from nixpatch.resolve.provider_choice import Choice, choose, wanted_versions


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user wants of every search path."""

    tag: Tag | None = None
    """None keeps each file's own"""
    append: tuple[str, ...] = ()
    """directories at the very end"""


@dataclass(frozen=True)
class Question:
    """The environment as resolution sees it. Caches what it derives; never changes an answer."""

    tree: Tree
    target: Target
    store_dir: str
    facts: Mapping[str, ElfFacts]
    """by path, for the files of the tree that can be edited"""
    policy: Policy
    wishes: Wishes
    providers: Callable[[str], Sequence[Provider]]
    """all candidates for a soname in order of preference"""
    considered: Callable[[str], Sequence[str]]
    """lines on libraries of the same or a similar name that are no candidates"""
    machine_of: Callable[[str], Machine | None]
    """machine of the ELF file at any path, None where there is none"""
    exists: Callable[[str], bool]
    renames: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """by path: the needs that shall have another name than in the original; by default those that have"""
    _by_name: dict[str, list[str]] = field(default_factory=dict, init=False)
    _by_soname: dict[str, list[str]] = field(default_factory=dict, init=False)
    _called: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False)
    _behind: dict[str, str] = field(default_factory=dict, init=False)
    _owners: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False)
    _choices: dict[str, Choice] = field(default_factory=dict, init=False)
    _wanted: dict[str, frozenset[str]] = field(default_factory=dict, init=False)
    _lenders: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False)
    _libcs: dict[str, Libc | None] = field(default_factory=dict, init=False)
    _opened: dict[tuple[str, str, str | None], Found | None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for file in self.tree.files:
            self._owners[file.path] = file.owners
            facts = self.facts.get(file.path)
            if facts is not None and facts.machine == self.target.machine:
                name = os.path.basename(file.path)
                self._by_name.setdefault(name, []).append(file.path)
                if facts.soname is not None and facts.soname != name:
                    self._by_soname.setdefault(facts.soname, []).append(file.path)
        mine = (facts for facts in self.facts.values() if facts.machine == self.target.machine)
        self._wanted.update(wanted_versions(mine))
        self._lenders.update(lenders(self.tree.dists, self.target))

    def libc_of(self, soname: str) -> Libc | None:
        """Return the libc that a soname is a part of."""
        if soname not in self._libcs:
            self._libcs[soname] = self.policy.libc_of(soname)
        return self._libcs[soname]

    def opened(self, need: str, directory: str, search_path: str | None) -> Found | None:
        """Return what ld.so opens for a need of any file in ``directory`` that has this search path."""
        asked = (need, directory, search_path)
        if asked not in self._opened:
            self._opened[asked] = find(
                need,
                search_path=search_path,
                directory=directory,
                machine=self.target.machine,
                machine_of=self.machine_of,
            )
        return self._opened[asked]

    def choice(self, soname: str) -> Choice:
        """Return the one provider of a soname for the whole tree."""
        if soname not in self._choices:
            self._choices[soname] = choose(self.providers(soname), self.wanted(soname), self.target)
        return self._choices[soname]

    def wanted(self, soname: str) -> frozenset[str]:
        """Return the versions that any file of the tree wants from a soname."""
        return self._wanted.get(soname, frozenset())

    def defined_by(self, path: str) -> frozenset[str]:
        """Return the versions that a library of the tree defines."""
        facts = self.facts.get(self._behind.get(path, path))
        return frozenset(facts.version_defs) if facts is not None else frozenset()

    def named(self, name: str) -> tuple[str, ...]:
        """Return the libraries of the tree that ld.so can open as ``name``.

        Links count that stand beside a library of that soname, as in ``lib`` of a prefix. A stub to link
        against is no driver.
        """
        if name not in self._called:
            found = list(self._by_name.get(name, ()))
            for path in self._by_soname.get(name, ()):
                link = f"{os.path.dirname(path)}/{name}"
                if link not in self._owners and self.machine_of(link) == self.target.machine:
                    self._owners[link], self._behind[link] = self._owners[path], path
                    found.append(link)
            if self.policy.is_driver(name):
                found = [path for path in found if os.path.basename(os.path.dirname(path)) != "stubs"]
            self._called[name] = tuple(found)
        return self._called[name]

    def siblings(self, file: TreeFile, name: str) -> list[str]:
        """Return the files called ``name`` of the same dist, nearest first.

        Files that no dist claims count as one dist of their own: a plain directory of libraries.
        """
        mine = set(file.owners)
        found = [
            path
            for path in self.named(name)
            if path != file.path and (mine & set(self._owners[path]) if mine else not self._owners[path])
        ]
        return nearest_first(found, os.path.dirname(file.path))

    def borrowed(self, file: TreeFile, name: str) -> list[str]:
        """Return the files called ``name`` of other dists, those that this one requires first."""
        found = [path for path in self.named(name) if path != file.path]
        if len(found) < 2:
            return found
        order = {info: rank for rank, info in enumerate(self._lenders.get(next(iter(file.owners), ""), ()))}
        last = len(order)
        directory = os.path.dirname(file.path)
        near = {path: rank for rank, path in enumerate(nearest_first(found, directory))}
        return sorted(
            found,
            key=lambda path: (
                min((order.get(o, last) for o in self._owners[path]), default=last),
                near[path],
            ),
        )


def nearest_first(paths: Sequence[str], directory: str) -> list[str]:
    """Sort by the number of steps from a directory, then by name."""
    return sorted(paths, key=lambda path: (os.path.relpath(path, directory).count("/"), path))
