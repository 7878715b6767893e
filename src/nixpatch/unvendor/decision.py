"""Which grafted libraries may give way to the store's, and why the others may not.

auditwheel copies ``/usr/lib64/libfoo.so.1.2.3`` to ``pkg.libs/libfoo-1a2b3c4d.so.1.2.3``, makes that its
DT_SONAME and names it in the needs and version needs of its users (auditwheel, repair.py). The way back is
open where nobody can tell the difference: every conflict that ``binding`` finds keeps a graft, and a graft
that is kept can keep others, until nothing speaks against the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from nixpatch.model import ElfFacts, GraftPlan, Provider, TreeFile
from nixpatch.unvendor.symbol_binding import Conflict, Substitute, World, conflicts

_MANGLED = re.compile(r"(.+)-[0-9a-f]{8}(\.(?:[^/]*\.)?so(?:\.[^/]*)?)")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A grafted library, and what speaks against its removal before symbols are looked at."""

    file: TreeFile
    unmangled: str
    users: tuple[str, ...]
    objections: tuple[str, ...] = ()


@dataclass(frozen=True)
class Matter:
    """What the decision looks at."""

    candidates: Sequence[Candidate]
    world: World
    facts: Mapping[str, ElfFacts]
    """of the tree's files, by path, with the names that the grafts have"""
    provider: Callable[[str, frozenset[str]], Provider | None]
    """the provider of a soname for the whole tree, given versions that are wanted beside those known"""
    unfit: Callable[[Provider], str | None]
    """why a provider's own needs are not met"""
    taken: Callable[[str], str | None]
    """a file of the tree that goes by a soname already"""
    stuck: Callable[[str], str | None]
    """why a file cannot get other needs"""


def unmangled(name: str) -> str | None:
    """Return a library's file name without auditwheel's hash; None where it has none.

    A graft of a graft has two: numpy's ``libgfortran-040039e1-0352e75f.so.5.0.0``.
    """
    found = _MANGLED.fullmatch(name)
    if found is None:
        return None
    plain = found[1] + found[2]
    return unmangled(plain) or plain


def possible_sonames(name: str) -> tuple[str, ...]:
    """Return what the soname behind a file name may have been: itself, then with ever less of the version.

    auditwheel names the copy after the file behind the soname's link: ``libz.so.1.2.11`` for ``libz.so.1``.
    """
    stem, so, version = name.partition(".so")
    parts = [part for part in version.split(".") if part]
    return tuple(".".join([stem + so, *parts[:count]]) for count in range(len(parts), -1, -1))


def asked_for(globs: Iterable[str], name: str, plain: str) -> bool:
    """Whether ``--unvendor`` means this graft: by its file name, or by any soname it may have had."""
    return any(fnmatchcase(text, glob) for glob in globs for text in (name, plain, *possible_sonames(plain)))


def settle(matter: Matter) -> tuple[GraftPlan, ...]:
    """Decide on every candidate, in their order."""
    plans = {found.file.path: _first_look(found, matter) for found in matter.candidates}
    while True:
        instead = _substitutes(plans.values())
        against = _against(plans, matter, instead)
        if not against:
            break
        for path, reasons in against.items():
            plans[path] = replace(plans[path], kept=tuple(dict.fromkeys(reasons)))
    return tuple(_orphans(plans, {found.file.path: found for found in matter.candidates}).values())


def _first_look(found: Candidate, matter: Matter) -> GraftPlan:
    plan = GraftPlan(found.file, found.unmangled, found.users)
    if found.objections:
        return replace(plan, kept=found.objections)
    if not found.users:
        return replace(plan, kept=("no file needs it, so whatever opens it does so by its name",))
    wanted = wanted_from(found, matter.facts)
    names = possible_sonames(found.unmangled)
    for name in names:
        provider = matter.provider(name, wanted)
        if provider is None or provider.soname not in names:
            continue
        if provider.soname != name:
            provider = matter.provider(provider.soname or "", wanted)
            if provider is None or provider.soname not in names:
                continue
        assert provider.soname is not None
        holder = matter.taken(provider.soname)
        why = f"{holder} has its name, {provider.soname}" if holder else matter.unfit(provider)
        if why:
            return replace(plan, kept=(why,))
        return replace(plan, soname=provider.soname, provider=provider)
    return replace(plan, kept=(f"the store has no {', '.join(names)} that could serve",))


def wanted_from(found: Candidate, facts: Mapping[str, ElfFacts]) -> frozenset[str]:
    """Return the versions that a graft's users want from it."""
    return frozenset(version for user in found.users for version in _versions(facts, user, found.file.path))


def _versions(facts: Mapping[str, ElfFacts], user: str, graft: str) -> Iterable[str]:
    name = graft.rpartition("/")[2]
    return (v for need in facts[user].version_needs if need.soname == name for v in need.versions)


def _substitutes(plans: Iterable[GraftPlan]) -> dict[str, Substitute]:
    return {
        plan.file.path: Substitute(plan.soname, plan.provider.real)
        for plan in plans
        if plan.goes and plan.soname is not None and plan.provider is not None
    }


def _against(
    plans: Mapping[str, GraftPlan], matter: Matter, instead: Mapping[str, Substitute]
) -> dict[str, list[str]]:
    """Return what speaks against each substitution; where one is to blame itself, only what is against it."""
    found: dict[str, list[str]] = {}
    for path in instead:
        provider = plans[path].provider
        assert provider is not None
        for user in plans[path].users:
            if user in instead:
                continue
            stuck = matter.stuck(user)
            if stuck:
                found.setdefault(path, []).append(f"{user} cannot be linked anew: {stuck}")
            for version in sorted({*_versions(matter.facts, user, path)} - provider.version_defs):
                text = f"{user} wants the version {version}, which {provider.real} does not define"
                found.setdefault(path, []).append(text)
    if found:
        return found
    # A library that only others of the tree need may be opened by itself, too; a graft is not.
    roots = [path for path in matter.facts if path not in plans]
    seen: list[Conflict] = list(conflicts(roots, matter.world, instead))
    direct = any(conflict.direct for conflict in seen)
    for conflict in seen:
        if conflict.direct == direct:
            for path in conflict.grafts:
                found.setdefault(path, []).append(conflict.text)
    return found


def _orphans(plans: dict[str, GraftPlan], candidates: Mapping[str, Candidate]) -> dict[str, GraftPlan]:
    """Let those go whose users have all gone: a private part of a library that is the store's now."""
    changed = True
    while changed:
        changed = False
        for path, plan in plans.items():
            users = plan.users
            gone = users and all(user in plans and plans[user].goes for user in users)
            if not plan.goes and gone and not candidates[path].objections:
                plans[path] = replace(plan, kept=(), soname=None, provider=None)
                changed = True
    return plans
