"""The tree, the target and the providers as resolution sees them, in one frozen value."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from nixpatch.model import (
    Dist,
    ElfFacts,
    LenderSite,
    Libc,
    Machine,
    OpenedNeed,
    Provider,
    ProviderChoice,
    SearchStop,
    Source,
    Tag,
    Target,
    Tree,
    TreeFile,
)
from nixpatch.policy import Policy
from nixpatch.resolve import ld_so
from nixpatch.resolve.dist_graph import lenders
from nixpatch.resolve.ld_so import LocatedFile
from nixpatch.resolve.provider_choice import choose_provider, wanted_versions

_DIGITS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class SearchPathOptions:
    """The user's options for every search path."""

    tag: Tag | None = None
    """None keeps each file's own"""
    append: tuple[str, ...] = ()
    """directories at the very end"""


@dataclass(frozen=True)
class ResolutionContext:
    """All that resolution depends on. Caches derived values, which never change."""

    tree: Tree
    target: Target
    store_dir: str
    facts: Mapping[str, ElfFacts]
    """by path, for the files of the tree that can be edited"""
    policy: Policy
    options: SearchPathOptions
    providers: Callable[[str], Sequence[Provider]]
    """all candidates for a soname in order of preference"""
    considered: Callable[[str], Sequence[str]]
    """lines on libraries of the same or a similar name that are no candidates"""
    machine_of: Callable[[str], Machine | None]
    """machine of the ELF file at any path, None where there is none"""
    exists: Callable[[str], bool]
    lender_sites: Sequence[LenderSite] = ()
    """site-packages outside the tree, whose dists provide libraries like other dists of the tree"""
    read_facts: Callable[[str], ElfFacts | None] = lambda _: None
    """facts of the ELF file at any path, None where there is none"""
    opened: Mapping[str, tuple[OpenedNeed, ...]] = field(default_factory=dict)
    """by path of the file in whose search path ld.so looks: libraries that are opened by name"""
    stop_at: Callable[[str, Machine], SearchStop | None] = lambda *_: None
    """why ld.so ends a search at a path for files of a machine"""
    renames: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """by path: renamed needs, as (original name, new name); files that are not in it keep their own"""
    _by_name: dict[str, list[str]] = field(default_factory=dict, init=False)
    _by_soname: dict[str, list[str]] = field(default_factory=dict, init=False)
    _named: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False)
    _link_targets: dict[str, str] = field(default_factory=dict, init=False)
    _owners: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False)
    _choices: dict[str, ProviderChoice] = field(default_factory=dict, init=False)
    _wanted: dict[str, frozenset[str]] = field(default_factory=dict, init=False)
    _lenders: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False)
    _libcs: dict[str, Libc | None] = field(default_factory=dict, init=False)
    _in_use: set[str] = field(default_factory=set, init=False)
    _located: dict[tuple[str, str, str | None], LocatedFile | None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        fitting = {path: facts for path, facts in self.facts.items() if facts.machine == self.target.machine}
        for file in self.tree.files:
            self._owners[file.path] = file.owners
            facts = fitting.get(file.path)
            if facts is not None:
                name = os.path.basename(file.path)
                self._by_name.setdefault(name, []).append(file.path)
                if facts.soname is not None and facts.soname != name:
                    self._by_soname.setdefault(facts.soname, []).append(file.path)
                if facts.current != facts.original:
                    self._in_use.update((facts.current.search_path or "").split(":"))
        self._wanted.update(wanted_versions(fitting.values()))
        self._lenders.update(lenders(self._all_dists(), self.target))

    def _all_dists(self) -> tuple[Dist, ...]:
        return (*self.tree.dists, *(dist for site in self.lender_sites for dist in site.dists))

    def libc_of(self, soname: str) -> Libc | None:
        """Return the libc that a soname is a part of."""
        if soname not in self._libcs:
            self._libcs[soname] = self.policy.libc_of(soname)
        return self._libcs[soname]

    def locate(self, need: str, directory: str, search_path: str | None) -> LocatedFile | None:
        """Return the file that ld.so opens for a need of a file in ``directory`` with this search path."""
        key = (need, directory, search_path)
        if key not in self._located:
            self._located[key] = ld_so.locate(
                need,
                search_path=search_path,
                directory=directory,
                machine=self.target.machine,
                machine_of=self.machine_of,
                stop_at=self.stop_at,
            )
        return self._located[key]

    def choice(self, soname: str) -> ProviderChoice:
        """Return the one provider of a soname for the whole tree."""
        if soname not in self._choices:
            wanted = self.wanted_versions(soname)
            self._choices[soname] = choose_provider(self.candidates(soname), wanted, self.target)
        return self._choices[soname]

    def candidates(self, soname: str) -> Sequence[Provider]:
        """Return all providers of a soname in order of preference, for a tree that may be patched already.

        Of those that only the local store has, the one that the tree uses comes first: what else is built on
        the machine must not change a patched tree.
        """
        return sorted(
            self.providers(soname),
            key=lambda provider: (
                provider.source is Source.STORE,
                provider.source is Source.STORE and provider.directory not in self._in_use,
            ),
        )

    def wanted_versions(self, soname: str) -> frozenset[str]:
        """Return the versions that any file of the tree wants from a soname."""
        return self._wanted.get(soname, frozenset())

    def defined_versions(self, path: str) -> frozenset[str]:
        """Return the versions that a library of a dist defines."""
        facts = self.facts.get(self._link_targets.get(path, path)) or self.read_facts(path)
        return frozenset(facts.version_defs) if facts is not None else frozenset()

    def files_named(self, name: str) -> tuple[str, ...]:
        """Return the libraries of the tree that ld.so can open as ``name``.

        They include links in the directory of a library with that soname, as in ``lib`` of a prefix. A stub
        to link against is no driver.
        """
        if name not in self._named:
            paths = list(self._by_name.get(name, ()))
            for path in self._by_soname.get(name, ()):
                link = f"{os.path.dirname(path)}/{name}"
                if link not in self._owners and self.machine_of(link) == self.target.machine:
                    self._owners[link], self._link_targets[link] = self._owners[path], path
                    paths.append(link)
            if self.policy.is_driver(name):
                paths = [path for path in paths if os.path.basename(os.path.dirname(path)) != "stubs"]
            self._named[name] = tuple(paths)
        return self._named[name]

    def versions(self, name: str) -> list[str]:
        """Return names of libraries of dists: ``libz.so`` and versions of it, the newest first."""
        names = {
            *self._by_name,
            *self._by_soname,
            *(lent for site in self.lender_sites for lent in site.libraries),
        }
        versions = [other for other in names if other == name or other.startswith(f"{name}.")]
        return sorted(
            versions, key=lambda other: [*map(int, _DIGITS.findall(other[len(name) :]))], reverse=True
        )

    def defines_all(self, path: str, name: str) -> bool:
        """Whether a library of a dist defines every version that any file of the tree wants of ``name``."""
        defined = self.defined_versions(path)
        return not defined or self.wanted_versions(name) <= defined

    def files_with_soname(self, file: TreeFile, name: str) -> list[str]:
        """Return the libraries with this DT_SONAME and another file name, those of the same dist first.

        ld.so does not find them, but takes one that is loaded already (_dl_map_object in dl-load.c).
        """
        owners = set(file.owners)
        paths = [path for path in self._by_soname.get(name, ()) if path != file.path]
        return sorted(paths, key=lambda path: owners.isdisjoint(self._owners[path]))

    def files_of_own_dist(self, file: TreeFile, name: str) -> list[str]:
        """Return the files called ``name`` of the same dist, nearest first.

        Files that no dist claims count as one dist of their own: a plain directory of libraries.
        """
        owners = set(file.owners)
        paths = [
            path
            for path in self.files_named(name)
            if path != file.path and (owners & set(self._owners[path]) if owners else not self._owners[path])
        ]
        return nearest_first(paths, os.path.dirname(file.path))

    def files_of_any_dist(self, file: TreeFile, name: str) -> list[str]:
        """Return the files called ``name`` of the tree, those of dists that this one requires first."""
        paths = [path for path in self.files_named(name) if path != file.path]
        if len(paths) < 2:
            return paths
        order, last = self._order_of_lenders(file.owners)
        distance = {path: rank for rank, path in enumerate(nearest_first(paths, os.path.dirname(file.path)))}
        return sorted(
            paths,
            key=lambda path: (
                min((order.get(owner, last) for owner in self._owners[path]), default=last),
                distance[path],
            ),
        )

    def lent_files(self, owners: Sequence[str], name: str) -> list[str]:
        """Return the libraries called ``name`` of the sites outside the tree, those of required dists first.

        They are for the machine of the target. A dist of the tree does not count: its own files serve.
        """
        order, last = self._order_of_lenders(owners)
        installed = {dist.name for dist in self.tree.dists}
        ranks: dict[str, int] = {}
        for site in self.lender_sites:
            names = {dist.info: dist.name for dist in site.dists}
            for path in site.libraries.get(name, ()):
                info = site.owner_of(path)
                if names.get(info) in installed or self.machine_of(path) != self.target.machine:
                    continue
                if self.policy.is_driver(name) and os.path.basename(os.path.dirname(path)) == "stubs":
                    continue
                ranks.setdefault(path, order.get(info, last))
        return sorted(ranks, key=lambda path: ranks[path])

    def _order_of_lenders(self, owners: Sequence[str]) -> tuple[dict[str, int], int]:
        order = {info: rank for rank, info in enumerate(self._lenders.get(next(iter(owners), ""), ()))}
        return order, len(order)


def nearest_first(paths: Sequence[str], directory: str) -> list[str]:
    """Sort by the number of steps from a directory, then by name."""
    return sorted(paths, key=lambda path: (os.path.relpath(path, directory).count("/"), path))
