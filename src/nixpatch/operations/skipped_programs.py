"""Skipped files that do not work as they are: broken ones, programs with appended data or for another libc.

A skipped file is no problem as long as it works. Whether a program does depends on the loader that it names,
its directories and its cache, not on those of the target Python.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from nixpatch import elf
from nixpatch.installed.loader_defaults import read_loader_defaults
from nixpatch.model import ElfFacts, Finding, Skip, SkipReason
from nixpatch.resolve.ld_so import LoaderConfig, simulate

_REMEDIES = {
    SkipReason.PAYLOAD: (
        "edit it yourself (nixpatch elf --force-payload --set-interpreter PATH --set-rpath PATH), test that "
        "it still finds its data, or name what it lacks with --ignore-missing"
    ),
    SkipReason.OTHER_LIBC: (
        "install a build for the target's libc, or name what it lacks with --ignore-missing"
    ),
}


_BROKEN = "strip or another tool did that: install its dist again, in a build with dontStrip = true"


def unable_to_start(
    skipped: Iterable[tuple[str, Skip]],
    facts_of: Callable[[str], ElfFacts | None],
    ignored: Callable[[str, str], bool],
) -> Iterator[Finding]:
    """Report the skipped files that no loader can map, and programs that lack an interpreter or a library.

    Args:
        skipped: paths of skipped files and why they were.
        facts_of: reads an ELF file at any path; None where there is none that ld.so would take.
        ignored: ``ignored(path, name)`` is whether a file may lack a library or an interpreter of this name.

    """
    for path, skip in skipped:
        if skip.reason is SkipReason.UNMAPPABLE:
            yield Finding("error", path, f"{skip.text}; {_BROKEN}")
        if skip.reason not in _REMEDIES:
            continue
        facts = _facts(path)
        lacks = [] if facts is None else _lacks(path, facts, facts_of, ignored)
        if lacks:
            text = f"cannot start as it is: {', '.join(lacks)}; it was left alone ({skip.text}): "
            yield Finding("error", path, text + _REMEDIES[skip.reason])


def _facts(path: str) -> ElfFacts | None:
    try:
        facts = elf.read(path, payload_ok=True)
    except OSError:
        return None
    return facts if isinstance(facts, ElfFacts) else None


def _lacks(
    path: str,
    facts: ElfFacts,
    facts_of: Callable[[str], ElfFacts | None],
    ignored: Callable[[str, str], bool],
) -> list[str]:
    interp = facts.current.interp
    if interp is None or not facts.executable or ignored(path, os.path.basename(interp)):
        return []
    if not os.path.exists(interp):
        return [f"its interpreter {interp} is not there"]
    known = read_loader_defaults(interp)
    process = simulate(
        path,
        LoaderConfig(
            read=lambda file: facts if file == path else facts_of(file),
            identity=os.path.realpath,
            default_dirs=known.directories,
            loader=interp,
            cache=known.cache,
            cached=lambda name: known.cached.get(name, ()),
            stop_at=elf.search_stop,
        ),
    )
    missing = dict.fromkeys(need.need for need in process.unmet if not ignored(path, need.need))
    return [f"{need} is not found" for need in missing]
