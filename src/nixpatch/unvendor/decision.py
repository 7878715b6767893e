"""Which vendored libraries the store's can replace, and the reasons to keep the others.

auditwheel copies ``/usr/lib64/libfoo.so.1.2.3`` to ``pkg.libs/libfoo-1a2b3c4d.so.1.2.3``, makes that its
DT_SONAME and the name in the needs and version needs of its users (auditwheel, repair.py). A copy can be
replaced if no process notices: every conflict that ``symbol_binding`` finds keeps a copy, and a copy that is
kept can keep others, so the check is repeated until the rest has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from nixpatch.model import ElfFacts, Provider, TreeFile, VendoredPlan
from nixpatch.unvendor.symbol_binding import BindingConflict, LinkedFiles, Substitute, conflicts

_MANGLED = re.compile(r"(.+)-[0-9a-f]{8}(\.(?:[^/]*\.)?so(?:\.[^/]*)?)")


@dataclass(frozen=True, slots=True)
class UnvendorCandidate:
    """A vendored library, and the reasons to keep it that do not depend on symbols."""

    file: TreeFile
    unmangled: str
    users: tuple[str, ...]
    objections: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnvendorInputs:
    """The candidates, and all that the decision depends on."""

    candidates: Sequence[UnvendorCandidate]
    files: LinkedFiles
    facts: Mapping[str, ElfFacts]
    """of the tree's files, by path, with needs by the names of the copies"""
    provider: Callable[[str, frozenset[str]], Provider | None]
    """returns the provider of a soname for the whole tree, given more versions that are wanted of it"""
    incompatibility: Callable[[Provider], str | None]
    """returns why a provider's own needs are not met"""
    holder_of: Callable[[str], str | None]
    """returns a file of the tree that has a soname already"""
    unlinkable: Callable[[str], str | None]
    """returns why the needs of a file cannot be changed"""


def unmangled(name: str) -> str | None:
    """Return a library's file name without auditwheel's hash; None if it has none.

    A copy of a copy has two hashes: numpy's ``libgfortran-040039e1-0352e75f.so.5.0.0``.
    """
    match = _MANGLED.fullmatch(name)
    if match is None:
        return None
    plain = match[1] + match[2]
    return unmangled(plain) or plain


def possible_sonames(name: str) -> tuple[str, ...]:
    """Return the sonames that a file name may stand for: itself, then with ever less of the version.

    auditwheel names the copy after the file behind the soname's link: ``libz.so.1.2.11`` for ``libz.so.1``.
    """
    stem, so, version = name.partition(".so")
    parts = [part for part in version.split(".") if part]
    return tuple(".".join([stem + so, *parts[:count]]) for count in range(len(parts), -1, -1))


def is_selected(globs: Iterable[str], name: str, plain: str) -> bool:
    """Whether ``--unvendor`` selects this copy: by its file name, or by any soname it may have had."""
    return any(fnmatchcase(text, glob) for glob in globs for text in (name, plain, *possible_sonames(plain)))


def decide(inputs: UnvendorInputs) -> tuple[VendoredPlan, ...]:
    """Return a plan for every candidate, in their order."""
    plans = {candidate.file.path: _initial_plan(candidate, inputs) for candidate in inputs.candidates}
    while True:
        substitutes = _substitutes(plans.values())
        objections = _objections(plans, inputs, substitutes)
        if not objections:
            break
        for path, reasons in objections.items():
            plans[path] = replace(plans[path], kept=tuple(dict.fromkeys(reasons)))
    _release_orphans(plans, inputs.candidates)
    return tuple(plans.values())


def _initial_plan(candidate: UnvendorCandidate, inputs: UnvendorInputs) -> VendoredPlan:
    """Return the plan for a candidate before symbols are compared."""
    facts = inputs.facts.get(candidate.file.path)
    plan = VendoredPlan(
        candidate.file,
        candidate.unmangled,
        candidate.users,
        original_sha256=facts.original_sha256 if facts else None,
    )
    if candidate.objections:
        return replace(plan, kept=candidate.objections)
    if not candidate.users:
        return replace(plan, kept=("no file needs it, so whatever opens it does so by its name",))
    wanted = _versions_wanted_by_users(candidate, inputs.facts)
    names = possible_sonames(candidate.unmangled)
    for name in names:
        provider = inputs.provider(name, wanted)
        if provider is None or provider.soname not in names:
            continue
        if provider.soname != name:
            provider = inputs.provider(provider.soname or "", wanted)
            if provider is None or provider.soname not in names:
                continue
        assert provider.soname is not None
        holder = inputs.holder_of(provider.soname)
        reason = f"{holder} has its name, {provider.soname}" if holder else inputs.incompatibility(provider)
        if reason:
            return replace(plan, kept=(reason,))
        return replace(plan, soname=provider.soname, provider=provider)
    return replace(plan, kept=(f"the store has no {', '.join(names)} that could serve",))


def _versions_wanted_by_users(candidate: UnvendorCandidate, facts: Mapping[str, ElfFacts]) -> frozenset[str]:
    path = candidate.file.path
    return frozenset(version for user in candidate.users for version in _wanted_versions(facts, user, path))


def _wanted_versions(facts: Mapping[str, ElfFacts], user: str, vendored: str) -> set[str]:
    name = vendored.rpartition("/")[2]
    needs = (need for need in facts[user].version_needs if need.soname == name)
    return {version for need in needs for version in need.versions}


def _substitutes(plans: Iterable[VendoredPlan]) -> dict[str, Substitute]:
    return {
        plan.file.path: Substitute(plan.soname, plan.provider.real)
        for plan in plans
        if plan.goes and plan.soname is not None and plan.provider is not None
    }


def _objections(
    plans: Mapping[str, VendoredPlan], inputs: UnvendorInputs, substitutes: Mapping[str, Substitute]
) -> dict[str, list[str]]:
    """Return the reasons against each substitution; if some are at fault themselves, only for those."""
    reasons: dict[str, list[str]] = {}
    for path in substitutes:
        provider = plans[path].provider
        assert provider is not None
        for user in plans[path].users:
            if user in substitutes:
                continue
            unlinkable = inputs.unlinkable(user)
            if unlinkable:
                reasons.setdefault(path, []).append(f"{user} cannot be linked anew: {unlinkable}")
            for version in sorted(_wanted_versions(inputs.facts, user, path) - provider.version_defs):
                text = f"{user} wants the version {version}, which {provider.real} does not define"
                reasons.setdefault(path, []).append(text)
    if reasons:
        return reasons
    # A library that only others of the tree need may also be opened on its own; a vendored one is not.
    roots = [path for path in inputs.facts if path not in plans]
    binding_conflicts: list[BindingConflict] = list(conflicts(roots, inputs.files, substitutes))
    direct = any(conflict.direct for conflict in binding_conflicts)
    for conflict in binding_conflicts:
        if conflict.direct == direct:
            for path in conflict.replaced:
                reasons.setdefault(path, []).append(conflict.text)
    return reasons


def _release_orphans(plans: dict[str, VendoredPlan], candidates: Sequence[UnvendorCandidate]) -> None:
    """Let copies go whose users all go: private parts of a library that now comes from the store."""
    changed = True
    while changed:
        changed = False
        for candidate in candidates:
            path = candidate.file.path
            plan = plans[path]
            is_orphan = plan.users and all(user in plans and plans[user].goes for user in plan.users)
            if not plan.goes and is_orphan and not candidate.objections:
                plans[path] = replace(plan, kept=(), soname=None, provider=None)
                changed = True
