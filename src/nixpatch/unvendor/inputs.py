"""Decide which grafted libraries give way to the store's: what ``--unvendor`` asks for.

Reads what the decision in ``resolve.grafts`` looks at: who needs whom and from where, symbols, RECORD, and
whether somebody opens a graft by its name. Writes nothing; ``grafting`` does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from nixpatch import elf
from nixpatch.errors import FileRefused
from nixpatch.model import (
    ElfFacts,
    GraftPlan,
    Origin,
    Provider,
    SkipReason,
    Symbols,
    TreeFile,
    VersionNeed,
)
from nixpatch.resolve.context import Question
from nixpatch.resolve.file_plan import plan_file
from nixpatch.resolve.provider_choice import beyond, choose, newest, version_text
from nixpatch.unvendor.decision import Candidate, Matter, asked_for, settle, unmangled
from nixpatch.unvendor.objections import objections
from nixpatch.unvendor.symbol_binding import Need, World
from nixpatch.unvendor.versions import with_versions

_NOTHING = Symbols({}, (), versioned=False)
Read = Callable[[str], ElfFacts | None]


@dataclass(frozen=True, slots=True)
class Decision:
    """The question with the grafts gone that can go, and what became of each."""

    question: Question
    plans: tuple[GraftPlan, ...]


def decide_grafts(question: Question, globs: Sequence[str], read: Read) -> Decision:
    """Return the question as it is to be answered, without the grafts that go.

    ``globs``: which grafts are asked for; ``read`` gives the headers of the ELF file at a path.
    """
    grafts = [
        file
        for file in question.tree.files
        for name in [os.path.basename(file.path)]
        for plain in [unmangled(name)]
        if plain is not None
        and (facts := question.facts.get(file.path)) is not None
        and facts.machine == question.target.machine
        and facts.soname == name
        and asked_for(globs, name, plain)
    ]
    if not grafts:
        return Decision(question, ())
    asked = _as_installed(question, grafts)
    around = _Surroundings(asked, read)
    matter = Matter(
        candidates=_candidates(asked, grafts, around),
        world=around.world,
        facts=around.facts,
        provider=around.provider,
        unfit=around.unfit,
        taken=lambda soname: next(iter(asked.named(soname)), None),
        stuck=around.stuck,
    )
    plans = settle(matter)
    while True:
        changed = _without(asked, plans)
        # What was found symbol by symbol holds for the providers that it was found with.
        wrong = _served_otherwise(changed, plans)
        if not wrong:
            return Decision(changed, with_versions(plans))
        matter = replace(
            matter,
            candidates=[
                replace(found, objections=(*found.objections, *wrong.get(found.file.path, ())))
                for found in matter.candidates
            ],
        )
        plans = settle(matter)


def _as_installed(question: Question, grafts: Sequence[TreeFile]) -> Question:
    """Give the users of grafts that are still there the needs back that an interrupted run has renamed."""
    here = {os.path.basename(file.path) for file in grafts}
    facts = dict(question.facts)
    renames: dict[str, tuple[tuple[str, str], ...]] = {}
    for path, found in question.facts.items():
        undone = {new: old for old, new in found.current.renamed if old in here}
        if undone:
            facts[path] = _with_needs(found, undone)
            renames[path] = tuple(pair for pair in found.current.renamed if pair[0] not in here)
    return replace(question, facts=facts, renames={**question.renames, **renames})


def _with_needs(facts: ElfFacts, new: Mapping[str, str]) -> ElfFacts:
    return replace(
        facts,
        needed=tuple(new.get(need, need) for need in facts.needed),
        version_needs=tuple(
            VersionNeed(new.get(need.soname, need.soname), need.versions) for need in facts.version_needs
        ),
    )


def _without(question: Question, plans: Sequence[GraftPlan]) -> Question:
    """Return the question in which the grafts that go are gone and their users need the store's libraries."""
    gone = {plan.file.path for plan in plans if plan.goes}
    # By user: two dists may each have a copy of one name, and one of them may stay.
    names: dict[str, dict[str, str]] = {}
    for plan in plans:
        for user in plan.users if plan.goes and plan.soname is not None else ():
            names.setdefault(user, {})[os.path.basename(plan.file.path)] = plan.soname or ""
    facts: dict[str, ElfFacts] = {}
    renames = dict(question.renames)
    for path, found in question.facts.items():
        if path in gone:
            continue
        mine = names.get(path, {})
        facts[path] = _with_needs(found, mine) if mine else found
        if mine:
            kept = renames.get(path, found.current.renamed)
            renames[path] = tuple(sorted({*kept, *mine.items()}))
    files = tuple(file for file in question.tree.files if file.path not in gone)
    return replace(question, tree=replace(question.tree, files=files), facts=facts, renames=renames)


def _served_otherwise(question: Question, plans: Sequence[GraftPlan]) -> dict[str, tuple[str, ...]]:
    wrong: dict[str, tuple[str, ...]] = {}
    files = {file.path: file for file in question.tree.files}
    answers = {}
    for plan in plans:
        if not plan.goes or plan.provider is None:
            continue
        path = f"{plan.provider.directory}/{plan.provider.name}"
        for user in plan.users:
            if user not in files:
                continue
            if user not in answers:
                answers[user] = {answer.need: answer for answer in plan_file(question, files[user]).answers}
            answer = answers[user].get(plan.soname or "")
            if answer is None or answer.origin is not Origin.STORE or answer.path != path:
                served = answer.path or answer.origin.value if answer else "nothing"
                wrong[plan.file.path] = (f"{user} would get {plan.soname} from {served}, not from {path}",)
    return wrong


def _candidates(question: Question, grafts: Sequence[TreeFile], around: _Surroundings) -> list[Candidate]:
    users: dict[str, set[str]] = {file.path: set() for file in grafts}
    for path in around.facts:
        for need in around.needs(path):
            if need.path in users:
                users[need.path].add(path)
    against = objections(question.tree, grafts, around.facts)
    return [
        Candidate(
            file,
            unmangled(os.path.basename(file.path)) or "",
            tuple(sorted(users[file.path] - {file.path})),
            against.get(file.path, ()),
        )
        for file in grafts
    ]


class _Surroundings:
    """The tree as it is and the store behind it; each file is read once."""

    def __init__(self, question: Question, read: Read) -> None:
        self.question = question
        self.read = read
        self.files = {file.path: file for file in question.tree.files}
        mine = question.target.machine
        self.facts = {path: facts for path, facts in question.facts.items() if facts.machine == mine}
        self.needs = lru_cache(maxsize=None)(self._needs)
        self.unfit = lru_cache(maxsize=None)(self._unfit)
        self.stuck = lru_cache(maxsize=None)(self._stuck)
        symbols = lru_cache(maxsize=None)(_symbols)
        self.world = World(
            needs=self.needs,
            symbols=lambda path: found if isinstance(found := symbols(path), Symbols) else _NOTHING,
            in_tree=self.files.__contains__,
            is_libc=lambda soname: question.libc_of(soname) is not None,
            programs=frozenset(path for path, facts in self.facts.items() if facts.executable),
            unreadable=lambda path: None if isinstance(found := symbols(path), Symbols) else found,
        )

    def provider(self, soname: str, wanted: frozenset[str]) -> Provider | None:
        """Choose as for the whole tree, with some versions more."""
        asked = self.question.wanted(soname) | wanted
        return choose(self.question.providers(soname), asked, self.question.target).provider

    def _needs(self, path: str) -> tuple[Need, ...]:
        if path in self.files:
            answers = plan_file(self.question, self.files[path]).answers
            return tuple(
                Need(answer.need, os.path.realpath(answer.path))
                for answer in answers
                if answer.path is not None and answer.origin is not Origin.LIBC
            )
        return tuple(Need(name, found) for name, found in self._looked_up(path) if found is not None)

    def _looked_up(self, path: str) -> list[tuple[str, str | None]]:
        """Return the needs of a library of the store, but for libc's own, and what ld.so finds for each."""
        facts = self.read(path)
        found: list[tuple[str, str | None]] = []
        for need in facts.needed if facts else ():
            if facts is None or self.question.libc_of(need) is not None:
                continue
            there = self.question.opened(need, os.path.dirname(path), facts.current.search_path)
            found.append((need, os.path.realpath(there.path) if there else None))
        return found

    def _unfit(self, provider: Provider) -> str | None:
        """Say what a provider, or what it needs, lacks in the target's process."""
        target = self.question.target
        for path in sorted(self.world.brought_by(provider.real)):
            facts = self.read(path)
            if facts is None:
                return f"{path} cannot be read"
            for need, found in self._looked_up(path):
                if found is None:
                    return f"{path} needs {need}, which ld.so would not find"
            wanted = {
                version
                for need in facts.version_needs
                if self.question.libc_of(need.soname) is target.libc
                for version in need.versions
            }
            newer = beyond(wanted, target)
            if newer:
                have = version_text(target.libc_version)
                return f"{path} needs {newest(newer)}, the target's glibc is {have}"
        return None

    def _stuck(self, path: str) -> str | None:
        skip = plan_file(self.question, self.files[path]).skip
        if skip is not None and skip.reason is not SkipReason.UNOWNED:
            return str(skip.reason.value)
        return self.question.facts[path].obstacle


def _symbols(path: str) -> Symbols | str:
    """Return the symbols of a file, or why they are not known."""
    try:
        return elf.read_symbols(path)
    except FileRefused as refused:
        return str(refused)
    except OSError as error:
        return error.strerror or str(error)
