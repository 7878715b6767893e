"""Decide which vendored libraries the store's replace: what ``--unvendor`` asks for.

Reads the inputs of :mod:`nixpatch.unvendor.decision`: which file serves each need, symbols, RECORD, and the
code that may open a vendored library by its name. Writes nothing; :mod:`nixpatch.unvendor.apply` does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from nixpatch import elf
from nixpatch.errors import FileRefused
from nixpatch.installed.dist_records import TreeRecords
from nixpatch.model import (
    ElfFacts,
    Origin,
    Provider,
    SkipReason,
    Symbols,
    TreeFile,
    VendoredPlan,
    VersionNeed,
)
from nixpatch.resolve.context import ResolutionContext
from nixpatch.resolve.file_plan import plan_file
from nixpatch.resolve.provider_choice import choose_provider, newest, version_text, versions_beyond_libc
from nixpatch.unvendor.decision import UnvendorCandidate, UnvendorInputs, decide, is_selected, unmangled
from nixpatch.unvendor.objections import objections
from nixpatch.unvendor.symbol_binding import LinkedFiles, ServedNeed
from nixpatch.unvendor.versions import with_versions

_NO_SYMBOLS = Symbols({}, (), versioned=False)
ReadFacts = Callable[[str], ElfFacts | None]


@dataclass(frozen=True, slots=True)
class UnvendorDecision:
    """The context without the vendored libraries that go, and the plan for each that was selected."""

    context: ResolutionContext
    plans: tuple[VendoredPlan, ...]


def decide_unvendoring(
    context: ResolutionContext, globs: Sequence[str], read: ReadFacts, records: TreeRecords
) -> UnvendorDecision:
    """Decide which of the selected vendored libraries go.

    Args:
        context: the tree as it is.
        globs: select vendored libraries.
        read: reads the headers of the ELF file at a path.
        records: RECORDs and provenance of the tree.

    """
    selected = [file for file in context.tree.files if _is_selected(context, file, globs)]
    if not selected:
        return UnvendorDecision(context, ())
    installed = _as_installed(context, selected)
    reads = _TreeAndStore(installed, read)
    inputs = UnvendorInputs(
        candidates=_candidates(installed, selected, reads, records),
        files=reads.linked_files,
        facts=reads.facts,
        provider=reads.provider,
        incompatibility=reads.incompatibility,
        holder_of=lambda soname: next(iter(installed.files_named(soname)), None),
        unlinkable=reads.unlinkable,
    )
    while True:
        plans = decide(inputs)
        changed = _without(installed, plans)
        # Symbols were compared with the providers of the plans, so these must be the ones that serve.
        wrong = _served_otherwise(changed, plans)
        if not wrong:
            return UnvendorDecision(changed, with_versions(plans))
        inputs = replace(
            inputs,
            candidates=[
                replace(candidate, objections=(*candidate.objections, *wrong.get(candidate.file.path, ())))
                for candidate in inputs.candidates
            ],
        )


def _is_selected(context: ResolutionContext, file: TreeFile, globs: Sequence[str]) -> bool:
    name = os.path.basename(file.path)
    plain = unmangled(name)
    facts = context.facts.get(file.path)
    return (
        plain is not None
        and facts is not None
        and facts.machine == context.target.machine
        and facts.soname == name
        and is_selected(globs, name, plain)
    )


def _as_installed(context: ResolutionContext, vendored: Sequence[TreeFile]) -> ResolutionContext:
    """Undo the DT_NEEDED renames of an interrupted run whose vendored libraries are still in the tree."""
    names = {os.path.basename(file.path) for file in vendored}
    facts = dict(context.facts)
    renames = dict(context.renames)
    for path, file_facts in context.facts.items():
        undone = {new: old for old, new in file_facts.current.renamed if old in names}
        if undone:
            facts[path] = _with_needs(file_facts, undone)
            renames[path] = tuple(pair for pair in file_facts.current.renamed if pair[0] not in names)
    return replace(context, facts=facts, renames=renames)


def _with_needs(facts: ElfFacts, new: Mapping[str, str]) -> ElfFacts:
    return replace(
        facts,
        needed=tuple(new.get(need, need) for need in facts.needed),
        version_needs=tuple(
            VersionNeed(new.get(need.soname, need.soname), need.versions) for need in facts.version_needs
        ),
    )


def _without(context: ResolutionContext, plans: Sequence[VendoredPlan]) -> ResolutionContext:
    """Return the context without the libraries that go, whose users need the store's instead."""
    gone = {plan.file.path for plan in plans if plan.goes}
    # By user: two dists may each have a copy of one name, and one of them may stay.
    names_by_user: dict[str, dict[str, str]] = {}
    for plan in plans:
        for user in plan.users if plan.goes and plan.soname is not None else ():
            names_by_user.setdefault(user, {})[os.path.basename(plan.file.path)] = plan.soname or ""
    facts: dict[str, ElfFacts] = {}
    renames = dict(context.renames)
    for path, file_facts in context.facts.items():
        if path in gone:
            continue
        names = names_by_user.get(path)
        facts[path] = _with_needs(file_facts, names) if names else file_facts
        if names:
            kept = renames.get(path, file_facts.current.renamed)
            renames[path] = tuple(sorted({*kept, *names.items()}))
    files = tuple(file for file in context.tree.files if file.path not in gone)
    return replace(context, tree=replace(context.tree, files=files), facts=facts, renames=renames)


def _served_otherwise(
    context: ResolutionContext, plans: Sequence[VendoredPlan]
) -> dict[str, tuple[str, ...]]:
    """Return, by path, the vendored libraries whose users another file than the provider would serve."""
    wrong: dict[str, tuple[str, ...]] = {}
    files = {file.path: file for file in context.tree.files}
    answers = {}
    for plan in plans:
        if not plan.goes or plan.provider is None:
            continue
        path = f"{plan.provider.directory}/{plan.provider.name}"
        for user in plan.users:
            if user not in files:
                continue
            if user not in answers:
                answers[user] = {answer.need: answer for answer in plan_file(context, files[user]).answers}
            answer = answers[user].get(plan.soname or "")
            if answer is None or answer.origin is not Origin.STORE or answer.path != path:
                served = answer.path or answer.origin.value if answer else "nothing"
                wrong[plan.file.path] = (f"{user} would get {plan.soname} from {served}, not from {path}",)
    return wrong


def _candidates(
    context: ResolutionContext,
    vendored: Sequence[TreeFile],
    reads: _TreeAndStore,
    records: TreeRecords,
) -> list[UnvendorCandidate]:
    users: dict[str, set[str]] = {file.path: set() for file in vendored}
    for path in reads.facts:
        for need in reads.needs(path):
            if need.path in users:
                users[need.path].add(path)
    reasons = objections(context.tree, vendored, reads.facts, records)
    return [
        UnvendorCandidate(
            file,
            unmangled(os.path.basename(file.path)) or "",
            tuple(sorted(users[file.path] - {file.path})),
            reasons.get(file.path, ()),
        )
        for file in vendored
    ]


class _TreeAndStore:
    """The files of the tree as they are and the store behind them; reads each file once."""

    def __init__(self, context: ResolutionContext, read: ReadFacts) -> None:
        self.context = context
        self.read = read
        self.files = {file.path: file for file in context.tree.files}
        self.facts = {
            path: facts for path, facts in context.facts.items() if facts.machine == context.target.machine
        }
        self.needs = lru_cache(maxsize=None)(self._needs)
        self.incompatibility = lru_cache(maxsize=None)(self._incompatibility)
        self.unlinkable = lru_cache(maxsize=None)(self._unlinkable)
        symbols = lru_cache(maxsize=None)(_symbols)
        self.linked_files = LinkedFiles(
            needs=self.needs,
            symbols=lambda path: _NO_SYMBOLS if isinstance(known := symbols(path), str) else known,
            in_tree=self.files.__contains__,
            is_libc=lambda soname: context.libc_of(soname) is not None,
            programs=frozenset(path for path, facts in self.facts.items() if facts.executable),
            unreadable=lambda path: reason if isinstance(reason := symbols(path), str) else None,
        )

    def provider(self, soname: str, wanted: frozenset[str]) -> Provider | None:
        """Choose a provider as for the whole tree, given more wanted versions."""
        wanted |= self.context.wanted_versions(soname)
        return choose_provider(self.context.candidates(soname), wanted, self.context.target).provider

    def _needs(self, path: str) -> tuple[ServedNeed, ...]:
        if path in self.files:
            answers = plan_file(self.context, self.files[path]).answers
            return tuple(
                ServedNeed(answer.need, os.path.realpath(answer.path))
                for answer in answers
                if answer.path is not None and answer.origin is not Origin.LIBC
            )
        return tuple(ServedNeed(name, real) for name, real in self._needs_in_store(path) if real is not None)

    def _needs_in_store(self, path: str) -> list[tuple[str, str | None]]:
        """Return the needs of a library of the store but for libc's, each with the file that ld.so finds."""
        facts = self.read(path)
        needs: list[tuple[str, str | None]] = []
        for need in facts.needed if facts else ():
            if facts is None or self.context.libc_of(need) is not None:
                continue
            located = self.context.locate(need, os.path.dirname(path), facts.current.search_path)
            needs.append((need, os.path.realpath(located.path) if located and not located.stop else None))
        return needs

    def _incompatibility(self, provider: Provider) -> str | None:
        """Return why a provider, or a library that it loads, cannot work in the target's process."""
        target = self.context.target
        for path in sorted(self.linked_files.closure(provider.real)):
            facts = self.read(path)
            if facts is None:
                return f"{path} cannot be read"
            for need, real in self._needs_in_store(path):
                if real is None:
                    return f"{path} needs {need}, which ld.so would not find"
            wanted = {
                version
                for need in facts.version_needs
                if self.context.libc_of(need.soname) is target.libc
                for version in need.versions
            }
            newer = versions_beyond_libc(wanted, target)
            if newer:
                have = version_text(target.libc_version)
                return f"{path} needs {newest(newer)}, the target's glibc is {have}"
        return None

    def _unlinkable(self, path: str) -> str | None:
        skip = plan_file(self.context, self.files[path]).skip
        if skip is not None and skip.reason is not SkipReason.UNOWNED:
            return str(skip.reason.value)
        return self.context.facts[path].obstacle


def _symbols(path: str) -> Symbols | str:
    """Return the symbols of a file, or why they are not known."""
    try:
        return elf.read_symbols(path)
    except FileRefused as refused:
        return str(refused)
    except OSError as error:
        return error.strerror or str(error)
