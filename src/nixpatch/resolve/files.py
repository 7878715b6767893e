"""From the whole question to a plan for every file. Pure: what it knows of the disk comes in the question."""

from __future__ import annotations

import os
from dataclasses import replace

from nixpatch.model import (
    Answer,
    ElfEdit,
    ElfFacts,
    FilePlan,
    Finding,
    Libc,
    Linkage,
    Origin,
    Skip,
    SkipReason,
    Tag,
    TreeFile,
)
from nixpatch.resolve.choose import newest, version_text
from nixpatch.resolve.loader import find
from nixpatch.resolve.precedence import Asker, answer
from nixpatch.resolve.question import Question
from nixpatch.resolve.search_path import inside, join, split

# Needs met in these ways ask for no change of the file.
_MET_ALREADY = frozenset({Origin.ABSOLUTE, Origin.LIBC, Origin.OWN_PATH, Origin.IGNORED, Origin.MISSING})


def plan_file(question: Question, file: TreeFile) -> FilePlan:
    """Decide what shall happen to one file whose headers were read."""
    facts = question.facts[file.path]
    skip = _left_alone(question, file, facts)
    if skip is not None:
        return FilePlan(file, facts, skip)
    directory = os.path.dirname(file.path)
    old = split(
        facts.original.search_path,
        directory=directory,
        prefix=question.tree.prefix,
        store_dir=question.store_dir,
        driver_directory=question.policy.driver_directory,
        exists=question.exists,
    )
    asker = Asker(file, facts, old)
    answers = tuple(answer(question, asker, need) for need in dict.fromkeys(facts.needed))
    driver = any(found.origin is Origin.DRIVER for found in answers)
    path = join(
        old,
        directory=directory,
        new=(
            found.entry
            for found in answers
            if found.entry is not None and found.origin is not Origin.OWN_PATH
        ),
        driver_directory=question.policy.driver_directory if driver or old.driver else None,
        append=question.wishes.append,
    )
    wished = _wished(question, facts, answers, old_driver=old.driver, path=path, asker=asker)
    return FilePlan(
        file,
        facts,
        answers=_as_loaded(question, facts, wished, directory, answers),
        edit=_edit(facts, wished),
        wished=wished,
        dropped=old.dropped if wished.search_path != facts.original.search_path else (),
    )


def version_findings(question: Question, file: FilePlan) -> tuple[Finding, ...]:
    """Report versions that the target's libc does not define: no search path can help there."""
    if file.facts is None or file.skip is not None or question.target.libc is not Libc.GLIBC:
        return ()
    wanted = {
        version
        for need in file.facts.version_needs
        if question.policy.libc_of(need.soname) is Libc.GLIBC
        for version in need.versions
        if version.startswith("GLIBC_")
    }
    newer = wanted - question.target.libc_versions
    if not newer:
        return ()
    have = version_text(question.target.libc_version)
    text = f"needs {newest(newer)}, the target's glibc is {have}: use a newer Python or an older wheel"
    return (Finding("error", file.file.path, text),)


def _left_alone(question: Question, file: TreeFile, facts: ElfFacts) -> Skip | None:
    target = question.target
    if facts.machine != target.machine:
        detail = f"{facts.machine.name}, the target is {target.machine.name}"
        return Skip(SkipReason.OTHER_MACHINE, detail)
    name = facts.soname or os.path.basename(file.path)
    if question.policy.libc_of(name) is not None:
        return Skip(SkipReason.LOADER_OR_LIBC, name)
    for need in (*facts.needed, os.path.basename(facts.original.interp or "")):
        libc = question.policy.libc_of(need)
        if libc is not None and libc is not target.libc:
            return Skip(
                SkipReason.OTHER_LIBC, f"linked against {libc.value}, the target uses {target.libc.value}"
            )
    return None


def _wished(
    question: Question,
    facts: ElfFacts,
    answers: tuple[Answer, ...],
    *,
    old_driver: bool,
    path: str,
    asker: Asker,
) -> Linkage:
    original = facts.original
    interp = original.interp
    if interp is not None and interp != question.target.loader:
        # A loader of the store that is there was chosen by somebody for this very file.
        chosen = inside(interp, question.store_dir) and question.exists(interp)
        interp = interp if chosen else question.target.loader
    dropped = [drop for drop in asker.path.dropped if drop.harmful]
    hole = any(not drop.entry.startswith(("/", "$")) for drop in dropped)
    needs_path = any(found.origin is not Origin.LIBC for found in answers)
    change = (
        hole
        or (dropped and needs_path)
        or bool(question.wishes.append)
        or any(found.origin not in _MET_ALREADY | {Origin.DRIVER} for found in answers)
        or (any(found.origin is Origin.DRIVER for found in answers) and not old_driver)
        or (question.wishes.tag is not None and question.wishes.tag is not original.tag)
    )
    if not change or path == (original.search_path or ""):
        search_path, tag = original.search_path, original.tag
        if question.wishes.tag is not None and tag is not None:
            tag = question.wishes.tag
    elif path:
        search_path, tag = path, question.wishes.tag or original.tag or Tag.RUNPATH
    else:
        search_path, tag = None, None
    return Linkage(search_path, tag, interp)


def _edit(facts: ElfFacts, wished: Linkage) -> ElfEdit | None:
    if wished == facts.current:
        return None
    original = facts.original
    same_path = (wished.search_path, wished.tag) == (original.search_path, original.tag)
    return ElfEdit(
        search_path=None if same_path else wished.search_path or "",
        tag=None if same_path else wished.tag,
        interp=None if wished.interp == original.interp else wished.interp,
    )


def _as_loaded(
    question: Question, facts: ElfFacts, wished: Linkage, directory: str, answers: tuple[Answer, ...]
) -> tuple[Answer, ...]:
    """Make each answer say what ld.so will really open.

    An entry that serves one need may hold a library of another need's name too; as it stands earlier in
    the path, ld.so takes that one.
    """
    told: list[Answer] = []
    for given in answers:
        if given.origin in {Origin.LIBC, Origin.ABSOLUTE, Origin.MISSING}:
            told.append(given)
            continue
        found = find(
            given.need,
            search_path=wished.search_path,
            directory=directory,
            machine=facts.machine,
            machine_of=question.machine_of,
        )
        if found is None or given.origin in {Origin.DRIVER, Origin.IGNORED}:
            told.append(given)
            continue
        path = os.path.normpath(found.path)
        if path == given.path:
            told.append(given)
        else:
            note = f"instead of {given.path}: {found.entry} stands earlier"
            told.append(replace(given, entry=found.entry, path=path, detail=note))
    return tuple(told)
