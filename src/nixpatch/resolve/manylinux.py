"""Manylinux policies (``data/manylinux.toml``), the tags that a Python claims, and whether it keeps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from nixpatch.arch import ARCHES
from nixpatch.model import Libc, ProviderChoice, Target
from nixpatch.model.manylinux import ManylinuxPolicy, Promise
from nixpatch.policy import packaged_table
from nixpatch.resolve.provider_choice import missing_versions, newest, version_text


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
            versions={
                arch.name: _versions(row, arch.name, data["series"])
                for arch in ARCHES
                if _version(row["glibc"])[1] in arch.auditwheel
            },
            only=only,
        )
        for row in data["policy"]
    )


def named(name: str) -> ManylinuxPolicy | None:
    """Return the policy of this name or alias, with or without a machine at the end."""
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

    ``allows`` returns the answer of the target's ``_manylinux``, True for all where there is none.
    """
    machine = target.machine.name
    oldest = target.machine.arch.manylinux_since
    if target.libc is not Libc.GLIBC or oldest is None or target.libc_version[:1] != (2,):
        return ()
    aliases = {policy.glibc: policy.alias for policy in policies() if policy.alias}
    tags = []
    for minor in range(target.libc_version[1], oldest - 1, -1):
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
    choose: Callable[[str, frozenset[str]], ProviderChoice],
) -> Promise:
    """Check whether a target keeps one policy.

    Args:
        policy: the policy.
        target: the Python that would install its wheels.
        claimed: whether installers take wheels of this policy.
        is_libc: whether a soname is one of libc's own.
        libc_has: whether the target's libc comes with such a soname.
        choose: chooses the provider of any other soname, given the versions that a wheel may want.

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
            wanted = policy.versions[machine].get(soname, frozenset())
            why = _why_broken(choose(soname, wanted), wanted)
        if why:
            broken.append(f"{soname}: {why}")
    return Promise(policy, claimed, tuple(broken))


def honest_limit(promises: tuple[Promise, ...], target: Target) -> tuple[int, int] | None:
    """Return the highest glibc whose policy is kept with all below it; None if not even the lowest is.

    If all policies that the target's glibc allows are kept, its own version is the limit: no list covers the
    versions between two policies or after the last one, and uv only asks for the target's own version.
    """
    limit = None
    for checked in sorted(promises, key=lambda checked: checked.policy.glibc):
        if target.libc_version < checked.policy.glibc:
            continue
        if not checked.kept:
            return limit
        limit = checked.policy.glibc
    return limit and (target.libc_version[0], target.libc_version[1])


def _why_broken(choice: ProviderChoice, wanted: frozenset[str]) -> str | None:
    if choice.provider is None:
        return choice.rejected[0] if choice.rejected else "no source has a library of this name"
    missing = missing_versions(choice.provider, wanted)
    path = f"{choice.provider.directory}/{choice.provider.name}"
    return f"{path} does not define {newest(missing)}" if missing else None


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
