"""Which provider serves a soname: one for the whole tree.

ld.so(8) reuses a library that is loaded under the soname already, so two providers of one soname in a tree
would mean that the order of imports decides which of them runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nixpatch.model import ElfFacts, Libc, Provider, Target

_NUMBERED = re.compile(r"GLIBC_([0-9]{1,9}(?:\.[0-9]{1,9})*)")
_NUMBER = re.compile("[0-9]{1,9}")  # no more digits: Python refuses to read 4,301


@dataclass(frozen=True, slots=True)
class Choice:
    """The provider of a soname and why the others were passed over."""

    provider: Provider | None
    rejected: tuple[str, ...] = ()
    """one line per candidate that cannot serve"""


def wanted_versions(facts: Iterable[ElfFacts]) -> dict[str, frozenset[str]]:
    """Collect, over all files of a tree, the symbol versions that any of them wants from each soname."""
    wanted: dict[str, set[str]] = {}
    for file in facts:
        for need in file.version_needs:
            wanted.setdefault(need.soname, set()).update(need.versions)
    return {soname: frozenset(versions) for soname, versions in wanted.items()}


def choose(candidates: Sequence[Provider], wanted: frozenset[str], target: Target) -> Choice:
    """Pick the provider of one soname for a whole tree.

    ``candidates`` come in order of preference (source, target's closure, newest version, path); ``wanted``
    are the versions that any file of the tree wants. The first candidate that defines them all serves. If
    none does, the one that defines most of them, and the files that want more are left without an answer.
    """
    rejected: list[str] = []
    usable: list[Provider] = []
    for provider in candidates:
        why = unfit(provider, target)
        if why:
            rejected.append(f"{provider.directory}/{provider.name}: {why}")
        else:
            usable.append(provider)
    # A directory that also holds a libc would bring that libc along: it serves only if no other does.
    usable.sort(key=lambda provider: provider.beside_libc and provider.directory != target.libc_dir)
    best = min(usable, key=lambda provider: len(lacking(provider, wanted)), default=None)
    for provider in usable:
        if provider is not best and lacking(provider, wanted):
            why = f"does not define {newest(lacking(provider, wanted))}"
            rejected.append(f"{provider.directory}/{provider.name}: {why}")
    return Choice(best, tuple(rejected))


def lacking(provider: Provider, wanted: frozenset[str]) -> frozenset[str]:
    """Return the versions a provider does not define.

    A library without any version definition satisfies every request: ld.so only warns (dl-version.c checks
    nothing where there is no DT_VERDEF).
    """
    return wanted - provider.version_defs if provider.version_defs else frozenset()


def unfit(provider: Provider, target: Target) -> str | None:
    """Say why a provider cannot live in the target's process, or None if it can."""
    if provider.machine != target.machine:
        return f"built for {provider.machine.name}, the target is {target.machine.name}"
    if provider.libc is not None and provider.libc is not target.libc:
        return f"linked against {provider.libc.value}, the target uses {target.libc.value}"
    if target.libc is Libc.GLIBC:
        newer = beyond(provider.libc_needs, target)
        if newer:
            return f"needs {newest(newer)}, the target's glibc is {version_text(target.libc_version)}"
    return None


def beyond(versions: Iterable[str], target: Target) -> frozenset[str]:
    """Return those versions of glibc that the target's does not have.

    A number up to the target's own counts as there even if libc.so.6 does not define it: glibc's other
    libraries have versions of their own (libpthread's GLIBC_2.31 is missing in the libc.so.6 of 2.31).
    """
    return frozenset(
        version
        for version in versions
        if version not in target.libc_versions
        and not ((found := _NUMBERED.fullmatch(version)) and _numbers(found[1]) <= target.libc_version)
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
