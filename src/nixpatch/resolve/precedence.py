"""How one need of one file is met: the order of precedence, written down once.

Each step is a function that answers or says that it cannot. The order is design section 5.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from nixpatch.model import Answer, ElfFacts, Libc, Origin, TreeFile
from nixpatch.resolve.context import Question
from nixpatch.resolve.provider_choice import lacking, newest
from nixpatch.resolve.search_path import Split, expand, leads_to, relative_entry

_UNWRITABLE = "its directory cannot be written in a search path (a colon or a $ in a name)"


@dataclass(frozen=True, slots=True)
class Asker:
    """The file that has a need."""

    file: TreeFile
    facts: ElfFacts
    directory: str
    """what ``$ORIGIN`` stands for (ld.so(8))"""
    path: Split
    """its search path, sorted"""

    def wanted(self, soname: str) -> frozenset[str]:
        """Return the versions that this file wants from a soname."""
        return frozenset(
            v for need in self.facts.version_needs if need.soname == soname for v in need.versions
        )


Step = Callable[[Question, Asker, str], Answer | None]


def _absolute(question: Question, asker: Asker, need: str) -> Answer | None:
    # ld.so expands $ORIGIN in a need too; a relative one depends on the process's current directory.
    path = expand(need, asker.directory) if "/" in need else None
    if path is None or question.machine_of(path) != asker.facts.machine:
        return None
    return Answer(need, Origin.ABSOLUTE, path=path)


def _libc(question: Question, asker: Asker, need: str) -> Answer | None:
    # A file linked with -z nodefaultlib finds not even libc by itself (DF_1_NODEFLIB, ld.so(8)).
    where = question.target.libc_dir
    if question.libc_of(need) is not question.target.libc:
        return None
    if question.target.libc is Libc.MUSL:
        # musl's loader is its libc and answers to all of these names, files or not (ldso/dynlink.c).
        return Answer(need, Origin.LIBC, path=question.target.loader)
    if not question.exists(f"{where}/{need}"):
        return None
    return Answer(
        need, Origin.LIBC, entry=where if asker.facts.no_default_lib else None, path=f"{where}/{need}"
    )


def _own_path(question: Question, asker: Asker, need: str) -> Answer | None:
    found = question.opened(need, asker.directory, ":".join((*asker.path.kept, *asker.path.store)))
    if found is None:
        return None
    return Answer(need, Origin.OWN_PATH, entry=found.entry, path=found.path)


def _own_dist(question: Question, asker: Asker, need: str) -> Answer | None:
    return _in_tree(question, question.siblings(asker.file, need), asker, need, Origin.OWN_DIST)


def _driver(question: Question, asker: Asker, need: str) -> Answer | None:
    if not question.policy.is_driver(need):
        return None
    return Answer(need, Origin.DRIVER, detail=question.policy.driver_directory)


def _system(question: Question, asker: Asker, need: str) -> Answer | None:
    return _store(question, asker, need) if question.policy.is_system(need) else None


def _other_dist(question: Question, asker: Asker, need: str) -> Answer | None:
    return _in_tree(question, question.borrowed(asker.file, need), asker, need, Origin.OTHER_DIST)


def _store(question: Question, asker: Asker, need: str) -> Answer | None:
    provider = question.choice(need).provider
    if provider is None or lacking(provider, asker.wanted(need)):
        return None
    if not leads_to(provider.directory, asker.directory, provider.directory):
        return None
    path = f"{provider.directory}/{provider.name}"
    return Answer(need, Origin.STORE, entry=provider.directory, path=path, detail=provider.source.text)


def _ignored(question: Question, asker: Asker, need: str) -> Answer | None:
    reason = question.policy.ignored(asker.file.path, need)
    return Answer(need, Origin.IGNORED, detail=reason) if reason else None


def _missing(question: Question, asker: Asker, need: str) -> Answer:
    return Answer(need, Origin.MISSING, considered=tuple(_considered(question, asker, need)))


PRECEDENCE: tuple[Step, ...] = (
    _absolute,
    _libc,
    _own_path,
    _own_dist,
    _driver,
    _system,
    _other_dist,
    _store,
    _ignored,
    _missing,
)

# ld.so opens a need with a slash as it stands and searches nowhere.
_WITH_SLASH: tuple[Step, ...] = (_absolute, _ignored, _missing)


def answer(question: Question, asker: Asker, need: str) -> Answer:
    """Meet one need: the first step of PRECEDENCE that can."""
    for step in PRECEDENCE if "/" not in need else _WITH_SLASH:
        found = step(question, asker, need)
        if found is not None:
            return found
    raise AssertionError("the last step always answers")  # pragma: no cover


def _in_tree(question: Question, paths: list[str], asker: Asker, need: str, origin: Origin) -> Answer | None:
    for path in paths:
        if _unfit(question, path, asker, need) is None:
            entry = relative_entry(asker.directory, os.path.dirname(path))
            return Answer(need, origin, entry=entry, path=path)
    return None


def _unfit(question: Question, path: str, asker: Asker, need: str) -> str | None:
    """Say why a file of the tree cannot serve, None if it can."""
    where = os.path.dirname(path)
    if not leads_to(relative_entry(asker.directory, where), asker.directory, where):
        return _UNWRITABLE
    defined = question.defined_by(path)
    lack = asker.wanted(need) - defined if defined else frozenset()
    return f"does not define {newest(lack)}" if lack else None


def _considered(question: Question, asker: Asker, need: str) -> list[str]:
    """Tell where the need was looked for, in order, and why each place does not serve."""
    machine = asker.facts.machine.name
    if "/" in need:
        path = expand(need, asker.directory)
        if path is None:
            return [f"{need}: relative, so that ld.so would look into the current directory"]
        return [f"{path}: no such file for {machine}"]
    lines = [f"own search path {entry}: not there" for entry in (*asker.path.kept, *asker.path.store)]
    lines += [
        f"own search path {drop.entry or '(empty)'}: not used, {drop.why}" for drop in asker.path.dropped
    ]
    siblings = question.siblings(asker.file, need)
    strangers = [path for path in question.borrowed(asker.file, need) if path not in siblings]
    lines += [f"{path}: {_unfit(question, path, asker, need)}" for path in (*siblings, *strangers)]
    if not siblings and not strangers:
        lines.append(f"own dist and the other dists of the tree: no file of this name for {machine}")
    choice = question.choice(need)
    lines += choice.rejected
    if choice.provider is not None:
        lack = lacking(choice.provider, asker.wanted(need))
        why = f"does not define {newest(lack)}" if lack else _UNWRITABLE
        lines.append(f"{choice.provider.directory}/{need}: {why}")
    others = question.considered(need)
    if choice.provider is None and not choice.rejected and not others:
        lines.append("store: no library of this name in any source")
    return [*lines, *others]
