"""From the whole question to a plan for every file. Pure: what it knows of the disk comes in the question.

Libraries that a file opens itself: no DT_NEEDED names them, yet dlopen(3) looks in the same search path.

ld.so searches the RUNPATH or RPATH of the file that calls dlopen, so what is to be found has to stand there.
"""

from __future__ import annotations

import os
from dataclasses import replace

from nixpatch.model import (
    Answer,
    DlopenNeed,
    DlopenPriority,
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
from nixpatch.resolve.context import Question
from nixpatch.resolve.precedence import Asker, answer
from nixpatch.resolve.provider_choice import beyond, newest, version_text
from nixpatch.resolve.search_path import inside, join, plain, split

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
    asker = Asker(file, facts, directory, old)
    answers = (
        *(answer(question, asker, need) for need in dict.fromkeys(facts.needed)),
        *opened(question, asker),
    )
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
    """Report trouble with the target's libc that no search path can help.

    A version that it does not define, or a copy of one of its parts in a directory that is kept.
    """
    if file.facts is None or file.skip is not None or question.target.libc is not Libc.GLIBC:
        return ()
    copies = tuple(
        Finding("note", file.file.path, f"{found.need} comes from {found.path}, not from the target's glibc")
        for found in file.answers
        if found.origin is Origin.LIBC and found.detail
    )
    wanted = {
        version
        for need in file.facts.version_needs
        if question.libc_of(need.soname) is Libc.GLIBC
        for version in need.versions
        if version.startswith("GLIBC_")
    }
    newer = beyond(wanted, question.target)
    if not newer:
        return copies
    have = version_text(question.target.libc_version)
    text = f"needs {newest(newer)}, the target's glibc is {have}: use a newer Python or an older wheel"
    return (Finding("error", file.file.path, text), *copies)


def _left_alone(question: Question, file: TreeFile, facts: ElfFacts) -> Skip | None:
    target = question.target
    if facts.machine != target.machine:
        detail = f"{facts.machine.name}, the target is {target.machine.name}"
        return Skip(SkipReason.OTHER_MACHINE, detail)
    name = facts.soname or os.path.basename(file.path)
    if question.libc_of(name) is not None:
        return Skip(SkipReason.LOADER_OR_LIBC, name)
    for need in (*facts.needed, os.path.basename(facts.original.interp or "")):
        libc = question.libc_of(need)
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
    dropped = any(drop.harmful for drop in asker.path.dropped)
    change = (
        asker.path.hole
        or (dropped and any(_searched_for(question, facts, found) for found in answers))
        or bool(question.wishes.append)
        or any(_asks(found, old_driver=old_driver) for found in answers)
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
    renamed = question.renames.get(asker.file.path, facts.current.renamed)
    return Linkage(search_path, tag, interp, renamed)


def _asks(found: Answer, *, old_driver: bool) -> bool:
    """Whether a need is met only by a change of the search path."""
    if found.origin is Origin.LIBC:
        return found.entry is not None
    if found.origin is Origin.DRIVER:
        return not old_driver
    return found.origin not in _MET_ALREADY


def _searched_for(question: Question, facts: ElfFacts, found: Answer) -> bool:
    """Whether ld.so looks for a need in the file's search path at all.

    libc itself and the loader are in every process before a library is. The other parts of glibc may not
    be: then an entry like /usr/lib brings the libm of another glibc in.
    """
    if "/" in found.need or (found.origin is Origin.LIBC and question.target.libc is Libc.MUSL):
        return False
    started = {"libc.so.6", os.path.basename(question.target.loader)}
    return facts.executable or found.origin is not Origin.LIBC or found.need not in started


def _edit(facts: ElfFacts, wished: Linkage) -> ElfEdit | None:
    if wished == facts.current:
        return None
    original = facts.original
    same_path = (wished.search_path, wished.tag) == (original.search_path, original.tag)
    return ElfEdit(
        search_path=None if same_path else wished.search_path or "",
        tag=None if same_path else wished.tag,
        interp=None if wished.interp == original.interp else wished.interp,
        renames=wished.renamed,
    )


def _as_loaded(
    question: Question, facts: ElfFacts, wished: Linkage, directory: str, answers: tuple[Answer, ...]
) -> tuple[Answer, ...]:
    """Make each answer say what ld.so will really open.

    An entry that serves one need may hold a library of another need's name too; as it stands earlier in
    the path, ld.so takes that one. The same goes for a copy of a part of libc in a kept directory.
    """
    told: list[Answer] = []
    for given in answers:
        found = None
        if given.path is not None and _searched_for(question, facts, given):
            found = question.opened(given.need, directory, wished.search_path)
        if found is None or (found.path, found.entry) == (given.path, given.entry):
            told.append(given)
        elif found.path == plain(given.path or "", directory):
            told.append(replace(given, entry=found.entry))
        else:
            note = f"instead of {given.path}: {found.entry} stands earlier"
            told.append(replace(given, entry=found.entry, path=found.path, detail=note))
    return tuple(told)


_UNMET = frozenset({Origin.MISSING, Origin.IGNORED})


def opened(question: Question, asker: Asker) -> tuple[Answer, ...]:
    """Meet what the file opens at run time: by its own note, and by the tables and ``--runtime-dep``.

    Of a note's alternatives the first that can be met serves. What a note only recommends may be missing.
    """
    told = [_by_note(question, asker, need) for need in asker.facts.dlopen_needs]
    for soname, reason in question.policy.dlopened_by(asker.file.path):
        found = answer(question, asker, soname)
        told.append(replace(found, detail=_both(f"opened at run time, {reason}", found.detail)))
    unique: dict[str, Answer] = {}
    for found in told:
        if found.need not in asker.facts.needed:
            unique.setdefault(found.need, found)
    return tuple(unique.values())


def _by_note(question: Question, asker: Asker, need: DlopenNeed) -> Answer:
    how = f"opened at run time, {need.priority.value}"
    tried = [answer(question, asker, soname) for soname in need.sonames]
    for found in tried:
        if found.origin not in _UNMET:
            return replace(found, detail=_both(how, found.detail))
    if need.priority is DlopenPriority.REQUIRED:
        return replace(tried[0], detail=how)
    return Answer(tried[0].need, Origin.IGNORED, detail=how)


def _both(first: str, second: str) -> str:
    return f"{first}; {second}" if second else first
