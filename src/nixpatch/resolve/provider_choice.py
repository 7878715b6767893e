"""The choice of one provider for each soname of a tree.

ld.so(8) reuses a library that is already loaded under the soname. With two providers of one soname in a tree,
the order of imports would decide which of them runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from nixpatch.model import ElfFacts, Libc, Provider, ProviderChoice, Target

_NUMBERED = re.compile(r"GLIBC_([0-9]{1,9}(?:\.[0-9]{1,9})*)")
_NUMBER = re.compile("[0-9]{1,9}")  # no more digits: Python refuses to read 4,301


def wanted_versions(facts: Iterable[ElfFacts]) -> dict[str, frozenset[str]]:
    """Return, by soname, the symbol versions that any file of a tree wants from it."""
    wanted: dict[str, set[str]] = {}
    for file in facts:
        for need in file.version_needs:
            wanted.setdefault(need.soname, set()).update(need.versions)
    return {soname: frozenset(versions) for soname, versions in wanted.items()}


def choose_provider(candidates: Sequence[Provider], wanted: frozenset[str], target: Target) -> ProviderChoice:
    """Choose the provider of one soname for a whole tree.

    The first candidate that defines all wanted versions serves. If there is none, the one that lacks the
    fewest serves, and the files that want more remain without an answer.

    Args:
        candidates: in order of preference: source, target's closure, newest version, path.
        wanted: the versions that any file of the tree wants.
        target: the Python whose process the provider is loaded into.

    """
    rejected: list[str] = []
    usable: list[Provider] = []
    for provider in candidates:
        why = incompatibility(provider, target)
        if why:
            rejected.append(f"{provider.directory}/{provider.name}: {why}")
        else:
            usable.append(provider)
    # A search path that holds another libc breaks the process: such a directory serves only if no other does.
    usable.sort(key=lambda provider: provider.beside_libc and provider.directory != target.libc_dir)
    best = min(usable, key=lambda provider: len(missing_versions(provider, wanted)), default=None)
    for provider in usable:
        missing = missing_versions(provider, wanted)
        if provider is not best and missing:
            why = f"does not define {newest(missing)}"
            rejected.append(f"{provider.directory}/{provider.name}: {why}")
    return ProviderChoice(best, tuple(rejected))


def missing_versions(provider: Provider, wanted: frozenset[str]) -> frozenset[str]:
    """Return the versions that a provider does not define.

    A library without any version definition satisfies every request: ld.so checks nothing where there is no
    DT_VERDEF (dl-version.c).
    """
    return wanted - provider.version_defs if provider.version_defs else frozenset()


def incompatibility(provider: Provider, target: Target) -> str | None:
    """Return why a provider cannot be loaded into the target's process, None if it can."""
    if provider.machine != target.machine:
        return f"built for {provider.machine.name}, the target is {target.machine.name}"
    if provider.libc is not None and provider.libc is not target.libc:
        return f"linked against {provider.libc.value}, the target uses {target.libc.value}"
    if target.libc is Libc.GLIBC:
        newer = versions_beyond_libc(provider.libc_needs, target)
        if newer:
            return f"needs {newest(newer)}, the target's glibc is {version_text(target.libc_version)}"
    return None


def versions_beyond_libc(versions: Iterable[str], target: Target) -> frozenset[str]:
    """Return those versions of glibc that the target's does not have.

    The target's glibc has every version up to its own number, even if its libc.so.6 does not define it:
    glibc's other libraries have versions of their own (the libc.so.6 of 2.31 lacks libpthread's GLIBC_2.31).
    """
    return frozenset(
        version
        for version in versions
        if version not in target.libc_versions
        and not ((match := _NUMBERED.fullmatch(version)) and _numbers(match[1]) <= target.libc_version)
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def newest(versions: Iterable[str]) -> str:
    """Return the highest of some version names: ``GLIBC_2.38`` of that and ``GLIBC_2.4``."""
    return max(versions, key=_version_key)


def _version_key(name: str) -> tuple[tuple[int, ...], str]:
    digits = name.rpartition("_")[2].split(".")
    return tuple(int(part) if _NUMBER.fullmatch(part) else -1 for part in digits), name


def version_text(version: tuple[int, ...]) -> str:
    """Write ``(2, 36)`` as ``2.36``."""
    return ".".join(map(str, version))
