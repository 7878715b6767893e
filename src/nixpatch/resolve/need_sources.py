"""The sources that can meet a need of a file, in order: libc, own dist, driver, other dists, the store.

Each step is a function that returns the answer, or None for the next step to try. Which of two providers of
one soname wins is decided in ``provider_choice``, over the order of ``store.index``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from nixpatch.model import Answer, ElfFacts, Libc, Origin, SearchStop, TreeFile
from nixpatch.resolve.context import ResolutionContext
from nixpatch.resolve.provider_choice import missing_versions, newest
from nixpatch.resolve.search_path import (
    SearchPathParts,
    expand,
    leads_to,
    names_path,
    relative_entry,
    substitute,
)

_UNWRITABLE = "its directory cannot be written in a search path (a colon or a $ in a name)"


@dataclass(frozen=True, slots=True)
class Dependent:
    """A file that has needs."""

    file: TreeFile
    facts: ElfFacts
    directory: str
    """the value of ``$ORIGIN`` (ld.so(8))"""
    path: SearchPathParts
    """its original search path"""

    def wanted_versions(self, soname: str) -> frozenset[str]:
        """Return the versions that this file wants from a soname."""
        return frozenset(
            version for need in self.facts.version_needs if need.soname == soname for version in need.versions
        )


Step = Callable[[ResolutionContext, Dependent, str], Answer | None]


def _absolute(context: ResolutionContext, dependent: Dependent, need: str) -> Answer | None:
    # ld.so expands $ORIGIN in a need too; a relative one depends on the process's current directory.
    path = expand(need, dependent.directory) if names_path(need) else None
    if path is None or context.machine_of(path) != dependent.facts.machine:
        return None
    stop = context.stop_at(path, dependent.facts.machine)
    return Answer(need, Origin.ABSOLUTE, path=path) if stop is None else None


def _itself(context: ResolutionContext, dependent: Dependent, need: str) -> Answer | None:
    # It is in the process by then, and ld.so compares sonames first (_dl_map_object in dl-load.c).
    if need != dependent.facts.soname:
        return None
    return Answer(need, Origin.OWN_DIST, path=dependent.file.path, detail="the file itself")


def _libc(context: ResolutionContext, dependent: Dependent, need: str) -> Answer | None:
    directory = context.target.libc_dir
    if context.libc_of(need) is not context.target.libc:
        return None
    if context.target.libc is Libc.MUSL:
        # musl's loader is its libc and answers to all of these names, files or not (ldso/dynlink.c).
        return Answer(need, Origin.LIBC, path=context.target.loader)
    if not context.exists(f"{directory}/{need}"):
        return None
    # A file linked with -z nodefaultlib does not find libc without an entry (DF_1_NODEFLIB, ld.so(8)).
    entry = directory if dependent.facts.no_default_lib else None
    return Answer(need, Origin.LIBC, entry=entry, path=f"{directory}/{need}")


def _own_path(context: ResolutionContext, dependent: Dependent, need: str) -> Answer | None:
    search_path = ":".join((*dependent.path.kept, *dependent.path.store))
    located = context.locate(need, dependent.directory, search_path)
    if located is None:
        return None
    if located.stop is not None:
        return stopped(context, dependent, need, located.path, located.stop)
    return Answer(need, Origin.OWN_PATH, entry=located.entry, path=located.path)


def stopped(
    context: ResolutionContext, dependent: Dependent, need: str, path: str, stop: SearchStop
) -> Answer:
    """Return the answer for a need at which ld.so fails, whatever directories follow in the search path."""
    line = f"{path}: {stop.why}; ld.so ends its search there and fails: remove it, or install its dist again"
    return _ignored(context, dependent, need) or Answer(need, Origin.MISSING, considered=(line,))


def _own_dist(context: ResolutionContext, dependent: Dependent, need: str) -> Answer | None:
    paths = context.files_of_own_dist(dependent.file, need)
    own = _in_tree(context, paths, dependent, need, Origin.OWN_DIST)
    if own is None or own.path is None or context.defines_all(own.path, need):
        return own
    # Whichever is loaded first serves the whole process: one that lacks what another dist wants fails there.
    other = _other_dist(context, dependent, need)
    if other is not None and other.path is not None and context.defines_all(other.path, need):
        return other
    provider = context.choice(need).provider
    if provider is not None and not missing_versions(provider, context.wanted_versions(need)):
        return _store(context, dependent, need) or own
    return own


def _driver(context: ResolutionContext, dependent: Dependent, need: str) -> Answer | None:
    if not context.policy.is_driver(need):
        return None
    return Answer(need, Origin.DRIVER, detail=context.policy.driver_directory)


def _system(context: ResolutionContext, dependent: Dependent, need: str) -> Answer | None:
    return _store(context, dependent, need) if context.policy.is_system(need) else None


def _other_dist(context: ResolutionContext, dependent: Dependent, need: str) -> Answer | None:
    paths = context.files_of_any_dist(dependent.file, need)
    answer = _in_tree(context, paths, dependent, need, Origin.OTHER_DIST)
    if answer is not None:
        return answer
    lent = context.lent_files(dependent.file.owners, need)
    return _in_tree(context, lent, dependent, need, Origin.OTHER_DIST, entry_of=_absolute_entry)


def _store(context: ResolutionContext, dependent: Dependent, need: str) -> Answer | None:
    provider = context.choice(need).provider
    if provider is None or missing_versions(provider, dependent.wanted_versions(need)):
        return None
    if not leads_to(provider.directory, dependent.directory, provider.directory):
        return None
    path = f"{provider.directory}/{provider.name}"
    return Answer(need, Origin.STORE, entry=provider.directory, path=path, detail=provider.source.text)


def _loaded(context: ResolutionContext, dependent: Dependent, need: str) -> Answer | None:
    wanted = dependent.wanted_versions(need)
    for path in context.files_with_soname(dependent.file, need):
        defined = context.defined_versions(path)
        if not defined or wanted <= defined:
            own = path in context.files_of_own_dist(dependent.file, os.path.basename(path))
            detail = f"only once {os.path.basename(path)}, which has this soname, is loaded"
            return Answer(need, Origin.OWN_DIST if own else Origin.OTHER_DIST, path=path, detail=detail)
    return None


def _ignored(context: ResolutionContext, dependent: Dependent, need: str) -> Answer | None:
    reason = context.policy.ignored(dependent.file.path, need)
    return Answer(need, Origin.IGNORED, detail=reason) if reason else None


def _missing(context: ResolutionContext, dependent: Dependent, need: str) -> Answer:
    return Answer(need, Origin.MISSING, considered=tuple(_considered(context, dependent, need)))


PRECEDENCE: tuple[Step, ...] = (
    _itself,
    _absolute,
    _libc,
    _own_path,
    _own_dist,
    _driver,
    _system,
    _other_dist,
    _store,
    _loaded,
    _ignored,
    _missing,
)

# ld.so opens a need that is a path as it is and searches nowhere.
_OF_PATHS: tuple[Step, ...] = (_absolute, _ignored, _missing)


def answer_need(context: ResolutionContext, dependent: Dependent, need: str) -> Answer:
    """Return the answer of the first step of PRECEDENCE that has one."""
    for step in _OF_PATHS if names_path(need) else PRECEDENCE:
        result = step(context, dependent, need)
        if result is not None:
            return result
    raise AssertionError("the last step always answers")  # pragma: no cover


def _absolute_entry(_: str, destination: str) -> str:
    # Environments are made of links to directories of store paths, so a way up from $ORIGIN ends in the store
    # path of the file itself, not in the environment.
    return destination


def _in_tree(
    context: ResolutionContext,
    paths: list[str],
    dependent: Dependent,
    need: str,
    origin: Origin,
    *,
    entry_of: Callable[[str, str], str] = relative_entry,
) -> Answer | None:
    usable = [path for path in paths if _reason_against(context, path, dependent, need, entry_of) is None]
    usable.sort(key=lambda path: not context.defines_all(path, need))
    if not usable:
        return None
    entry = entry_of(dependent.directory, os.path.dirname(usable[0]))
    return Answer(need, origin, entry=entry, path=usable[0])


def _reason_against(
    context: ResolutionContext,
    path: str,
    dependent: Dependent,
    need: str,
    entry_of: Callable[[str, str], str] = relative_entry,
) -> str | None:
    """Return why a file of a dist cannot serve, None if it can."""
    directory = os.path.dirname(path)
    if not leads_to(entry_of(dependent.directory, directory), dependent.directory, directory):
        return _UNWRITABLE
    defined = context.defined_versions(path)
    undefined = dependent.wanted_versions(need) - defined if defined else frozenset()
    return f"does not define {newest(undefined)}" if undefined else None


def _considered(context: ResolutionContext, dependent: Dependent, need: str) -> list[str]:
    """Return a line on each place where the need was searched, in order, and why it does not serve."""
    machine = dependent.facts.machine.name
    if names_path(need):
        path = expand(need, dependent.directory)
        if path is None and substitute(need, "/") is None:
            return [f"{need}: a path that depends on how the loader was built"]
        if path is None:
            return [f"{need}: relative, so that ld.so would look into the current directory"]
        stop = context.stop_at(path, dependent.facts.machine)
        return [f"{path}: {stop.why if stop is not None else f'no such file for {machine}'}"]
    parts = dependent.path
    lines = [f"own search path {entry}: not there" for entry in (*parts.kept, *parts.store)]
    lines += [f"own search path {drop.entry or '(empty)'}: not used, {drop.why}" for drop in parts.dropped]
    own = context.files_of_own_dist(dependent.file, need)
    others = [path for path in context.files_of_any_dist(dependent.file, need) if path not in own]
    lines += [f"{path}: {_reason_against(context, path, dependent, need)}" for path in (*own, *others)]
    lent = context.lent_files(dependent.file.owners, need)
    lines += [f"{path}: {_reason_against(context, path, dependent, need, _absolute_entry)}" for path in lent]
    if not own and not others and not lent:
        lines.append(f"own dist and the other dists of the tree: no file of this name for {machine}")
    choice = context.choice(need)
    lines += choice.rejected
    if choice.provider is not None:
        missing = missing_versions(choice.provider, dependent.wanted_versions(need))
        reason = f"does not define {newest(missing)}" if missing else _UNWRITABLE
        lines.append(f"{choice.provider.directory}/{need}: {reason}")
    similar = context.considered(need)
    if choice.provider is None and not choice.rejected and not similar:
        lines.append("store: no library of this name in any source")
    return [*lines, *similar]
