"""What manylinux tags promise, what a Python claims, and whether the libraries at hand keep it.

Pure. The policies are in ``data/manylinux.toml``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from nixpatch.model import Libc, Target
from nixpatch.policy import packaged_table
from nixpatch.resolve.provider_choice import Choice, lacking, newest, version_text

# packaging.tags makes manylinux tags for these, from its lowest glibc on.
_OLDEST = {"x86_64": 5, "i686": 5} | dict.fromkeys(
    ("aarch64", "armv7l", "ppc64", "ppc64le", "s390x", "loongarch64", "riscv64"), 17
)


@dataclass(frozen=True, slots=True)
class ManylinuxPolicy:
    """One policy."""

    name: str
    """``manylinux_2_17``"""
    alias: str
    """``manylinux2014``; "" for one that came with PEP 600"""
    glibc: tuple[int, int]
    source: str
    """the PEP"""
    libraries: tuple[str, ...]
    """the sonames that a wheel may take from the system"""
    versions: Mapping[str, Mapping[str, frozenset[str]]]
    """machine -> soname -> the highest symbol version of each series that a wheel may want"""
    only: Mapping[str, tuple[str, ...]]
    """soname -> the machines that have it at all; not there: every one"""

    @property
    def title(self) -> str:
        """The name, with the old one."""
        return f"{self.name} ({self.alias})" if self.alias else self.name

    def sonames(self, machine: str) -> tuple[str, ...]:
        """Return the libraries that exist on a machine."""
        return tuple(name for name in self.libraries if machine in self.only.get(name, (machine,)))


@dataclass(frozen=True, slots=True)
class Promise:
    """Whether one policy is kept for a target."""

    policy: ManylinuxPolicy
    claimed: bool | None
    """whether installers are told yes; None where the module that tells them computes it"""
    broken: tuple[str, ...]
    """a line for each library that does not keep it"""

    @property
    def kept(self) -> bool:
        """Whether a wheel of this policy finds all that it may expect."""
        return not self.broken


@cache
def policies() -> tuple[ManylinuxPolicy, ...]:
    """Return the policies of the package, the oldest first."""
    data = packaged_table("manylinux.toml")
    only = {name: tuple(machines) for name, machines in data["only"].items()}
    return tuple(
        ManylinuxPolicy(
            name=row["name"],
            alias=row.get("alias", ""),
            glibc=_version(row["glibc"]),
            source=row["source"],
            libraries=tuple(
                name for name, since in data["libraries"].items() if _version(since) <= _version(row["glibc"])
            ),
            versions={machine: _versions(row, machine, data["series"]) for machine in row["machines"]},
            only=only,
        )
        for row in data["policy"]
    )


def named(name: str) -> ManylinuxPolicy | None:
    """Return the policy of this name or alias, with or without a machine at its end."""
    for policy in policies():
        for title in filter(None, (policy.name, policy.alias)):
            if name == title or (name.startswith(f"{title}_") and not name[len(title) + 1].isdigit()):
                return policy
    return None


def policies_of(machine: str) -> tuple[ManylinuxPolicy, ...]:
    """Return the policies that there are for a machine, the oldest first."""
    return tuple(policy for policy in policies() if machine in policy.versions)


def claimed_tags(target: Target, allows: Callable[[tuple[int, int]], bool | None]) -> tuple[str, ...]:
    """Return the platform tags that ``packaging.tags`` would give inside the target, in its order.

    ``allows`` is what the target's ``_manylinux`` answers, True for all where it has none.
    """
    machine = target.machine.name
    if target.libc is not Libc.GLIBC or machine not in _OLDEST or target.libc_version[:1] != (2,):
        return ()
    aliases = {policy.glibc: policy.alias for policy in policies() if policy.alias}
    tags = []
    for minor in range(target.libc_version[1], _OLDEST[machine] - 1, -1):
        if allows((2, minor)):
            tags.append(f"manylinux_2_{minor}_{machine}")
            if (2, minor) in aliases:
                tags.append(f"{aliases[2, minor]}_{machine}")
    return tuple(tags)


def promise(
    policy: ManylinuxPolicy,
    target: Target,
    *,
    claimed: bool | None,
    is_libc: Callable[[str], bool],
    libc_has: Callable[[str], bool],
    choose: Callable[[str, frozenset[str]], Choice],
) -> Promise:
    """Hold the libraries at hand against one policy.

    ``is_libc`` tells libc's own sonames, ``libc_has`` whether the target's libc comes with one; ``choose``
    picks the provider of any other soname, of which a wheel may want some versions.
    """
    machine = target.machine.name
    if target.libc is not Libc.GLIBC:
        return Promise(policy, False, (f"manylinux is for glibc, the target uses {target.libc.value}",))
    if target.libc_version < policy.glibc:
        text = (
            f"needs glibc {version_text(policy.glibc)}, the target's is {version_text(target.libc_version)}"
        )
        return Promise(policy, False, (text,))
    broken = []
    for soname in policy.sonames(machine):
        if is_libc(soname):
            why = None if libc_has(soname) else "the target's libc comes without it"
        else:
            why = _why_not(choose(soname, wanted := _wanted(policy, machine, soname)), wanted)
        if why:
            broken.append(f"{soname}: {why}")
    return Promise(policy, claimed, tuple(broken))


def honest_limit(promises: tuple[Promise, ...], target: Target) -> tuple[int, int] | None:
    """Return the highest glibc of a tag that is kept, with all below it; None where not even the lowest is.

    Where everything is kept that the target's glibc allows, that is the limit: between two policies, and
    beyond the last one, no list says more, and uv asks for the target's own version alone.
    """
    limit = None
    for kept in sorted(promises, key=lambda one: one.policy.glibc):
        if target.libc_version < kept.policy.glibc:
            continue
        if not kept.kept:
            return limit
        limit = kept.policy.glibc
    return limit and (target.libc_version[0], target.libc_version[1])


def _why_not(choice: Choice, wanted: frozenset[str]) -> str | None:
    if choice.provider is None:
        return choice.rejected[0] if choice.rejected else "no source has a library of this name"
    lack = lacking(choice.provider, wanted)
    where = f"{choice.provider.directory}/{choice.provider.name}"
    return f"{where} does not define {newest(lack)}" if lack else None


def _wanted(policy: ManylinuxPolicy, machine: str, soname: str) -> frozenset[str]:
    return policy.versions[machine].get(soname, frozenset())


def _versions(
    row: Mapping[str, Any], machine: str, series: Mapping[str, list[str]]
) -> dict[str, frozenset[str]]:
    highest = {**row["symbols"], **row.get(f"symbols_{machine}", {})}
    return {
        soname: frozenset(f"{name}_{highest[name]}" for name in names if highest.get(name))
        for soname, names in series.items()
    }


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)
