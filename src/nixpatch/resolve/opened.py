"""Libraries that a file opens itself: no DT_NEEDED names them, yet dlopen(3) looks in the same search path.

ld.so searches the RUNPATH or RPATH of the file that calls dlopen, so what is to be found has to stand there.
"""

from __future__ import annotations

from dataclasses import replace

from nixpatch.model import Answer, DlopenNeed, DlopenPriority, Origin
from nixpatch.resolve.context import Question
from nixpatch.resolve.precedence import Asker, answer

_UNMET = frozenset({Origin.MISSING, Origin.IGNORED})


def opened(question: Question, asker: Asker) -> tuple[Answer, ...]:
    """Meet what the file opens at run time: by its own note, and by the tables and ``--runtime-dep``.

    Of a note's alternatives the first that can be met serves. What a note only recommends may be missing.
    """
    told = [_by_note(question, asker, need) for need in asker.facts.dlopen_needs]
    for soname, reason in question.policy.opened(asker.file.path):
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
