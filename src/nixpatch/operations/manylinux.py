"""Read and change the manylinux tags that a target claims, and check them against the available libraries.

``installed.manylinux_module`` writes the module.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from nixpatch.errors import RequestError
from nixpatch.installed import manylinux_module
from nixpatch.installed.manylinux_module import ManylinuxModule, Mode
from nixpatch.installed.scan import scan
from nixpatch.installed.sys_path import site_of, sys_path
from nixpatch.model import Libc, ProviderChoice, Target, Tree
from nixpatch.model.manylinux import Promise
from nixpatch.operations.plan import Reader, sources_of, target_for
from nixpatch.operations.request import PatchRequest
from nixpatch.resolve.manylinux import claimed_tags, honest_limit, policies_of, promise
from nixpatch.resolve.provider_choice import choose_provider
from nixpatch.store.cache import Cache
from nixpatch.store.index import open_index
from nixpatch.tree_lock import hold_tree
from nixpatch.version import __version__


@dataclass(frozen=True)
class Claim:
    """The manylinux tags of a target, and the modules that decide them."""

    tree: Tree
    target: Target
    site: str
    """the site directory that nixpatch writes its module to"""
    switches: tuple[ManylinuxModule, ...]
    """every ``_manylinux`` module on the target's sys.path; the first one is imported"""
    tags: tuple[str, ...]

    @property
    def switch(self) -> ManylinuxModule | None:
        """The module that is imported."""
        return self.switches[0] if self.switches else None

    def allows(self, version: tuple[int, int]) -> bool | None:
        """Return whether the modules allow a glibc version; None if only running them would tell."""
        return _allows(self.switch, self.target, version)


@dataclass(frozen=True, slots=True)
class WrittenModule:
    """A ``_manylinux`` module that was written."""

    path: str
    limit: tuple[int, int] | None
    """for ``honest``: the highest glibc version of a met policy; None without any"""
    shadowed_by: ManylinuxModule | None
    """another module that is imported instead"""


def read_claim(request: PatchRequest, reader: Reader) -> Claim:
    """Read the claims of the target of a tree, without running it.

    Raises:
        RequestError: the path, the option or the target is wrong.

    """
    tree = scan(request.path)
    site = site_of(tree)
    target = target_for(request, tree, reader)
    modules = manylinux_module.find(sys_path(tree, target))
    first = modules[0] if modules else None
    tags = claimed_tags(target, lambda version: _allows(first, target, version))
    return Claim(tree, target, site, modules, tags)


def promises(request: PatchRequest, claim: Claim, reader: Reader) -> tuple[Promise, ...]:
    """Check the available libraries against every policy, oldest first.

    Raises:
        RequestError: a source or the lockfile is wrong.
        MachineError: a locked store path is gone or changed, or Nix failed.

    """
    target = claim.target
    with open_index(
        request.store, target, reader, sources_of(request, target), cache=Cache(request.cache, __version__)
    ) as index:

        def chosen(soname: str, wanted: frozenset[str]) -> ProviderChoice:
            return choose_provider(index.providers(soname), wanted, target)

        return tuple(
            promise(
                policy,
                target,
                claimed=claim.allows(policy.glibc) if target.libc_version >= policy.glibc else False,
                is_libc=lambda soname: request.policy.libc_of(soname) is target.libc,
                libc_has=lambda soname: os.path.exists(os.path.join(target.libc_dir, soname)),
                choose=chosen,
            )
            for policy in policies_of(target.machine.name)
        )


def write(request: PatchRequest, mode: Mode) -> WrittenModule:
    """Write a module for ``mode``.

    Raises:
        RequestError: the target does not use glibc, or there is a module by someone else.
        MachineError: it cannot be written.

    """
    with hold_tree(request.path, lambda _: None):
        return _write(request, mode)


def _write(request: PatchRequest, mode: Mode) -> WrittenModule:
    reader = Reader()
    claim = read_claim(request, reader)
    target = claim.target
    if target.libc is not Libc.GLIBC and mode is not Mode.DENY:
        raise RequestError(f"{claim.tree.root}: its Python uses {target.libc.value}, manylinux is for glibc")
    limit = honest_limit(promises(request, claim, reader), target) if mode is Mode.HONEST else None
    path = manylinux_module.write(claim.site, manylinux_module.source(mode, target.machine.name, limit))
    first = next(iter(manylinux_module.find(sys_path(claim.tree, target))), None)
    return WrittenModule(path, limit, first if first is not None and first.path != path else None)


def reset(path: str) -> str | None:
    """Remove the module of nixpatch and return its path, None if there is none.

    Raises:
        RequestError: the path is wrong, or the module is by someone else.
        MachineError: it cannot be removed.

    """
    with hold_tree(path, lambda _: None):
        return manylinux_module.remove(site_of(scan(path)))


def _allows(switch: ManylinuxModule | None, target: Target, version: tuple[int, int]) -> bool | None:
    return True if switch is None else switch.answers.allows(version, target.machine.name)
