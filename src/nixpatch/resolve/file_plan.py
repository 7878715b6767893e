"""The plan for one file: answers to its needs, and the search path and interpreter that follow from them.

Libraries that a file opens with dlopen(3) are needs too, although no DT_NEEDED names them: ld.so searches
them in the RUNPATH or RPATH of the file that calls dlopen.

Why a file is skipped, and which module decides it: ``SkipReason`` in ``model.elf``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
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
    OpenedNeed,
    Origin,
    ResolutionCache,
    Skip,
    SkipReason,
    Tag,
    Target,
    TreeFile,
)
from nixpatch.resolve.context import ResolutionContext
from nixpatch.resolve.need_sources import Dependent, answer_need, stopped
from nixpatch.resolve.provider_choice import newest, version_text, versions_beyond_libc
from nixpatch.resolve.search_path import inside, join, names_path, plain, split

# Needs with these answers require no change of the file.
_MET_ALREADY = frozenset({Origin.ABSOLUTE, Origin.LIBC, Origin.OWN_PATH, Origin.IGNORED, Origin.MISSING})


def plan_file(context: ResolutionContext, file: TreeFile) -> FilePlan:
    """Plan one file whose headers were read."""
    facts = context.facts[file.path]
    skip = _skip(context, file, facts)
    if skip is not None:
        return FilePlan(file, facts, skip)
    directory = os.path.dirname(file.path)
    old = split(
        facts.original.search_path,
        directory=directory,
        prefix=context.tree.prefix_of(directory),
        store_dir=context.store_dir,
        driver_directory=context.policy.driver_directory,
        exists=context.exists,
    )
    dependent = Dependent(file, facts, directory, old)
    answers = (
        *(answer_need(context, dependent, need) for need in dict.fromkeys(facts.needed)),
        *_dlopen_answers(context, dependent),
    )
    driver = any(answer.origin is Origin.DRIVER for answer in answers)
    path = join(
        old,
        directory=directory,
        new=(
            answer.entry
            for answer in answers
            if answer.entry is not None and answer.origin is not Origin.OWN_PATH
        ),
        driver_directory=context.policy.driver_directory if driver or old.driver else None,
        append=context.options.append,
    )
    after = with_kept_cache(facts, _linkage(context, dependent, answers, path))
    return FilePlan(
        file,
        facts,
        answers=_as_loaded(context, dependent, after, answers),
        edit=edit_to(facts, after),
        after=after,
        dropped=old.dropped if after.search_path != facts.original.search_path else (),
    )


def libc_findings(context: ResolutionContext, file: FilePlan) -> tuple[Finding, ...]:
    """Report problems with the target's libc that no search path can solve.

    These are versions that it does not define, and copies of its parts in a directory that is kept.
    """
    if file.facts is None or file.skip is not None or context.target.libc is not Libc.GLIBC:
        return ()
    copies = tuple(
        Finding(
            "note", file.file.path, f"{answer.need} comes from {answer.path}, not from the target's glibc"
        )
        for answer in file.answers
        if answer.origin is Origin.LIBC and answer.detail
    )
    wanted = {
        version
        for need in file.facts.version_needs
        if context.libc_of(need.soname) is Libc.GLIBC
        for version in need.versions
        if version.startswith("GLIBC_")
    }
    newer = versions_beyond_libc(wanted, context.target)
    if not newer:
        return copies
    have = version_text(context.target.libc_version)
    text = f"needs {newest(newer)}, the target's glibc is {have}: use a newer Python or an older wheel"
    return (Finding("error", file.file.path, text), *copies)


def _skip(context: ResolutionContext, file: TreeFile, facts: ElfFacts) -> Skip | None:
    target = context.target
    if facts.machine != target.machine:
        detail = f"{facts.machine.name}, the target is {target.machine.name}"
        return Skip(SkipReason.OTHER_MACHINE, detail)
    name = facts.soname or os.path.basename(file.path)
    if context.libc_of(name) is not None:
        return Skip(SkipReason.LOADER_OR_LIBC, name)
    libc = other_libc(facts, target, context.libc_of)
    if libc is not None:
        return Skip(
            SkipReason.OTHER_LIBC, f"linked against {libc.value}, the target uses {target.libc.value}"
        )
    return None


def other_libc(facts: ElfFacts, target: Target, libc_of: Callable[[str], Libc | None]) -> Libc | None:
    """Return the libc that a file is linked against, if it is not the target's."""
    libcs = map(libc_of, (*facts.needed, os.path.basename(facts.original.interp or "")))
    return next((libc for libc in libcs if libc is not None and libc is not target.libc), None)


def _linkage(
    context: ResolutionContext, dependent: Dependent, answers: tuple[Answer, ...], path: str
) -> Linkage:
    """Return the linkage after the run; ``path`` is the joined search path, used only if it is needed."""
    facts, parts = dependent.facts, dependent.path
    original = facts.original
    interp = original.interp
    if interp is not None and interp != context.target.loader:
        # Somebody chose an existing loader of the store for this very file.
        is_chosen = inside(interp, context.store_dir) and context.exists(interp)
        interp = interp if is_chosen else context.target.loader
    drops_harmful = any(entry.harmful for entry in parts.dropped)
    tag = context.options.tag
    change = (
        parts.has_relative
        or (drops_harmful and any(_is_searched(context, facts, answer) for answer in answers))
        or bool(context.options.append)
        or any(_requires_change(answer, old_driver=parts.driver) for answer in answers)
        or (tag is not None and tag is not original.tag)
    )
    renamed = context.renames.get(dependent.file.path, facts.current.renamed)
    if not change or path == (original.search_path or ""):
        new_tag = original.tag if tag is None or original.tag is None else tag
        return Linkage(original.search_path, new_tag, interp, renamed)
    if path:
        return Linkage(path, tag or original.tag or Tag.RUNPATH, interp, renamed)
    return Linkage(None, None, interp, renamed)


def _requires_change(answer: Answer, *, old_driver: bool) -> bool:
    """Whether a need is met only by a change of the search path."""
    if answer.origin is Origin.LIBC:
        return answer.entry is not None
    if answer.origin is Origin.DRIVER:
        return not old_driver
    if answer.origin in {Origin.OWN_DIST, Origin.OTHER_DIST} and answer.entry is None:
        return False  # a library that is loaded already under the soname, or the file itself
    return answer.origin not in _MET_ALREADY


def _is_searched(context: ResolutionContext, facts: ElfFacts, answer: Answer) -> bool:
    """Whether ld.so looks for a need in the file's search path at all.

    libc itself and the loader are in every process before a library is. The other parts of glibc may not be:
    then an entry like /usr/lib brings in the libm of another glibc.
    """
    if names_path(answer.need) or (answer.origin is Origin.LIBC and context.target.libc is Libc.MUSL):
        return False
    started = {"libc.so.6", os.path.basename(context.target.loader)}
    return facts.executable or answer.origin is not Origin.LIBC or answer.need not in started


def with_kept_cache(facts: ElfFacts, after: Linkage) -> Linkage:
    """Add the resolution cache that the original has, unless the linkage makes it stale."""
    original = facts.original
    same = (after.search_path, after.tag, after.renamed) == (
        original.search_path,
        original.tag,
        original.renamed,
    )
    same = same and facts.manual.needed is None
    return replace(after, resolution_cache=original.resolution_cache if same else ())


def with_cache(file: FilePlan, cache: ResolutionCache) -> FilePlan:
    """Return the plan of a file that is to have another resolution cache."""
    assert file.facts is not None
    assert file.after is not None
    after = replace(file.after, resolution_cache=cache)
    return replace(file, after=after, edit=edit_to(file.facts, after))


def edit_to(facts: ElfFacts, after: Linkage) -> ElfEdit | None:
    """Return the edit that gives a file a linkage; None if it has that."""
    if after == facts.current:
        return None
    original = facts.original
    same_path = (after.search_path, after.tag) == (original.search_path, original.tag)
    has_cache = bool(after.resolution_cache or original.resolution_cache)
    return ElfEdit(
        search_path=None if same_path else after.search_path or "",
        tag=None if same_path else after.tag,
        interp=None if after.interp == original.interp else after.interp,
        renames=after.renamed,
        manual=facts.manual,
        resolution_cache=after.resolution_cache if has_cache else None,
    )


def _as_loaded(
    context: ResolutionContext, dependent: Dependent, after: Linkage, answers: tuple[Answer, ...]
) -> tuple[Answer, ...]:
    """Replace each answer by the file that ld.so will really open.

    An entry for one need may hold a library of another need's name too; as it stands earlier in the path,
    ld.so takes that one. The same goes for a copy of a part of libc in a kept directory.
    """
    results: list[Answer] = []
    for answer in answers:
        located = None
        if answer.path is not None and _is_searched(context, dependent.facts, answer):
            located = context.locate(answer.need, dependent.directory, after.search_path)
        if located is not None and located.stop is not None:
            results.append(stopped(context, dependent, answer.need, located.path, located.stop))
        elif located is None or (located.path, located.entry) == (answer.path, answer.entry):
            results.append(answer)
        elif located.path == plain(answer.path or "", dependent.directory):
            results.append(replace(answer, entry=located.entry))
        else:
            note = f"instead of {answer.path}: {located.entry} stands earlier"
            results.append(replace(answer, entry=located.entry, path=located.path, detail=note))
    return tuple(results)


_UNMET = frozenset({Origin.MISSING, Origin.IGNORED})


def _dlopen_answers(context: ResolutionContext, dependent: Dependent) -> tuple[Answer, ...]:
    """Answer the libraries that a file opens at run time: by its note, the tables and ``--runtime-dep``.

    The first alternative of a note that can be met serves. A library that a note only recommends may be
    missing.
    """
    answers = [_note_answer(context, dependent, need) for need in dependent.facts.dlopen_needs]
    for soname, reason in context.policy.dlopened_by(dependent.file.path):
        met = answer_need(context, dependent, soname)
        answers.append(replace(met, detail=_both(f"opened at run time, {reason}", met.detail)))
    answers += [
        _opened_answer(context, dependent, need) for need in context.opened.get(dependent.file.path, ())
    ]
    unique: dict[str, Answer] = {}
    for answer in answers:
        if answer.need not in dependent.facts.needed:
            unique.setdefault(answer.need, answer)
    return tuple(unique.values())


def _opened_answer(context: ResolutionContext, dependent: Dependent, need: OpenedNeed) -> Answer:
    """Answer a library that is opened by name: the first alternative that is there, and none is no error."""
    answers = [answer_need(context, dependent, soname) for soname in need.sonames]
    for answer in answers:
        if answer.origin not in _UNMET:
            return replace(
                answer, detail=_both(_opened_by(dependent, need), answer.detail), opener=need.opener
            )
    unmet = answers[0]
    return replace(unmet, origin=Origin.IGNORED, detail=_opened_by(dependent, need), opener=need.opener)


def _opened_by(dependent: Dependent, need: OpenedNeed) -> str:
    other = "" if need.opener == dependent.file.path else f" by {os.path.basename(need.opener)}"
    return _both(f"opened by name{other}", need.reason)


def _note_answer(context: ResolutionContext, dependent: Dependent, need: DlopenNeed) -> Answer:
    detail = f"opened at run time, {need.priority.value}"
    answers = [answer_need(context, dependent, soname) for soname in need.sonames]
    for answer in answers:
        if answer.origin not in _UNMET:
            return replace(answer, detail=_both(detail, answer.detail))
    if need.priority is DlopenPriority.REQUIRED:
        return replace(answers[0], detail=detail)
    return Answer(answers[0].need, Origin.IGNORED, detail=detail)


def _both(first: str, second: str) -> str:
    return f"{first}; {second}" if second else first
