"""Check the needs of all files of a tree, and of the libraries behind them, by the rules of ld.so(8).

A file whose own needs are met fails to load if one of its libraries needs a library that is not found. A file
that needed no edit may lack a library, too. The search is simulated; nothing is run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

from nixpatch.installed.loader_defaults import read_loader_defaults
from nixpatch.model import ElfFacts, Finding, Target
from nixpatch.model.plan import OPTIONAL_PARTS
from nixpatch.model.trace import SimulatedProcess
from nixpatch.operations.plan import Reader
from nixpatch.resolve.ld_so import LoaderConfig, simulate


def unmet_needs(
    files: Mapping[str, ElfFacts],
    target: Target,
    reader: Reader,
    *,
    ignored: Callable[[str, str], bool],
    stops: Callable[[str], bool] = lambda _: True,
    known: Sequence[Finding] = (),
) -> Iterator[Finding]:
    """Report each need that is not found, once, at the file that has it.

    Args:
        files: the files of the tree for the target's machine. A process is simulated for each: a program is
            started, a library is opened in the target Python.
        target: the Python that will load the tree.
        reader: reads ELF files.
        ignored: ``ignored(path, soname)`` is whether the soname may be missing for the file.
        stops: whether a file of the tree is loaded by itself. What only other files lack is a note.
        known: findings that are not reported again.

    """
    defaults = read_loader_defaults(target.loader)
    loader_config = LoaderConfig(
        read=reader.facts,
        identity=lru_cache(maxsize=None)(os.path.realpath),
        # libc is beside the loader, also where it was unpacked elsewhere than it was built for.
        default_dirs=tuple(dict.fromkeys((*defaults.directories, target.libc_dir))),
        loader=target.loader,
        cache=defaults.cache,
        cached=lambda name: defaults.cached.get(name, ()),
        stop_at=reader.stop_at,
    )
    loads: dict[tuple[str, str, str], list[str]] = {}
    for path, facts in files.items():
        for need in _simulate(path, facts, target, loader_config).unmet:
            loads.setdefault((os.path.normpath(need.by), need.need, need.stop), []).append(path)
    reported = {(finding.path, finding.text.partition(",")[0]) for finding in known}
    sonames = {facts.soname for facts in files.values()}
    for (path, soname, stop), users in sorted(loads.items()):
        if ignored(path, soname) or (path not in files and not users):
            continue
        start = f"needs {soname}"
        if any(place == path and text.split(" from ")[0] == start for place, text in reported):
            continue
        if not stop and soname in sonames:
            continue  # found once the library of this soname is loaded: verify_provenance notes it
        others = [user for user in users if user != path]
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        loaded_by = f"; loaded by {others[0]}{more}" if others else ""
        what = f"but ld.so ends its search at {stop}" if stop else "which ld.so does not find"
        if any(map(stops, users)):
            yield Finding("error", path, f"{start}, {what}{loaded_by}")
        else:
            text = f"{start}, {what}: only an optional part, which does not load{loaded_by}"
            yield Finding("note", path, text, OPTIONAL_PARTS)


def _simulate(path: str, facts: ElfFacts, target: Target, loader_config: LoaderConfig) -> SimulatedProcess:
    if facts.executable:
        return simulate(path, loader_config)
    return simulate(target.python, loader_config, [path], whole=True)
