"""What a target claims of manylinux wheels, and whether what is at hand keeps that promise."""

from __future__ import annotations

import os
from dataclasses import dataclass

from nixpatch import __version__
from nixpatch.errors import RequestError
from nixpatch.installed import find_target, scan
from nixpatch.installed import manylinux_module as switches
from nixpatch.installed.manylinux_module import Mode, Switch
from nixpatch.installed.sys_path import module_path, site_of
from nixpatch.model import Libc, ProviderChoice, Target, Tree
from nixpatch.model.manylinux import Promise
from nixpatch.operations.plan import PatchRequest, Reader, sources_of
from nixpatch.resolve.manylinux import claimed_tags, honest_limit, policies_of, promise
from nixpatch.resolve.provider_choice import choose_provider
from nixpatch.store import open_index


@dataclass(frozen=True)
class Claim:
    """What a target tells installers."""

    tree: Tree
    target: Target
    site: str
    """the site directory that a module of ours goes into"""
    switches: tuple[Switch, ...]
    """every ``_manylinux`` on the target's path; the first one is imported"""
    tags: tuple[str, ...]

    @property
    def switch(self) -> Switch | None:
        """The module that counts."""
        return next(iter(self.switches), None)

    def allows(self, version: tuple[int, int]) -> bool | None:
        """Return the answer to one tag; None where it is computed."""
        return _allows(self.switch, self.target, version)


@dataclass(frozen=True, slots=True)
class Written:
    """A module that was written."""

    path: str
    limit: tuple[int, int] | None
    shadowed_by: Switch | None
    """another one that is imported instead"""


def claim(request: PatchRequest, reader: Reader) -> Claim:
    """Read what the target of a tree claims, without running it.

    Raises:
        RequestError: the path, the option or the target is wrong.

    """
    tree = scan(request.path)
    site = site_of(tree)
    target = find_target(tree, request.python, request.path_env, reader)
    found = switches.find(module_path(tree, target))
    first = next(iter(found), None)
    tags = claimed_tags(target, lambda version: _allows(first, target, version))
    return Claim(tree, target, site, found, tags)


def promises(request: PatchRequest, made: Claim, reader: Reader) -> tuple[Promise, ...]:
    """Hold what is at hand against every policy, the oldest first.

    Raises:
        RequestError: a source or the lock is wrong.
        MachineError: what is locked is gone or changed, or Nix failed.

    """
    target = made.target
    with open_index(
        request.store, target, reader, sources_of(request, target), cache=request.cache, edition=__version__
    ) as index:

        def chosen(soname: str, wanted: frozenset[str]) -> ProviderChoice:
            return choose_provider(index.providers(soname), wanted, target)

        return tuple(
            promise(
                policy,
                target,
                claimed=made.allows(policy.glibc) if target.libc_version >= policy.glibc else False,
                is_libc=lambda soname: request.policy.libc_of(soname) is target.libc,
                libc_has=lambda soname: os.path.exists(os.path.join(target.libc_dir, soname)),
                choose=chosen,
            )
            for policy in policies_of(target.machine.name)
        )


def write(request: PatchRequest, mode: Mode) -> Written:
    """Write the module that answers by ``mode``.

    Raises:
        RequestError: the target is not one for manylinux, or there is a module that is not ours.
        MachineError: it cannot be written.

    """
    reader = Reader()
    made = claim(request, reader)
    if made.target.libc is not Libc.GLIBC and mode is not Mode.DENY:
        raise RequestError(
            f"{made.tree.root}: its Python uses {made.target.libc.value}, manylinux is for glibc"
        )
    limit = honest_limit(promises(request, made, reader), made.target) if mode is Mode.HONEST else None
    path = switches.write(made.site, switches.source(mode, made.target.machine.name, limit))
    first = next(iter(switches.find(module_path(made.tree, made.target))), None)
    return Written(path, limit, first if first is not None and first.path != path else None)


def reset(path: str) -> str | None:
    """Take our module away; return where it was, None where there is none.

    Raises:
        RequestError: the path is wrong, or the module is not ours.
        MachineError: it cannot be removed.

    """
    return switches.remove(site_of(scan(path)))


def _allows(switch: Switch | None, target: Target, version: tuple[int, int]) -> bool | None:
    return True if switch is None else switch.answers.allows(version, target.machine.name)
