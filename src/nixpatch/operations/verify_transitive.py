"""What the patched files bring into a process with them: the needs of their needs, by ld.so's rules.

A file whose own needs are met can still fail to load, where a library behind one of them lacks something.
Computed by the simulator, nothing is run. Only for a target whose loader is in the store: what an FHS loader
finds is in ``/etc/ld.so.cache`` as well, which says nothing about a tree.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

from nixpatch.model import ElfFacts, Finding, Target
from nixpatch.model.trace import SimulatedProcess
from nixpatch.operations.plan import Reader
from nixpatch.resolve.ld_so import LoaderConfig, simulate


def unmet(
    files: Mapping[str, ElfFacts],
    target: Target,
    reader: Reader,
    *,
    ignored: Callable[[str, str], bool],
    known: Sequence[Finding] = (),
) -> Iterator[Finding]:
    """Report each need that ends a load, once, at the file that has it.

    Of ``files``, those of the tree for the target's machine, programs are started and libraries opened in the
    target Python. ``ignored`` tells whether a file may lack a soname, ``known`` is what was found already.
    """
    around = LoaderConfig(
        read=reader.facts,
        identity=lru_cache(maxsize=None)(os.path.realpath),
        default_dirs=(target.libc_dir,),
        loader=target.loader,
    )
    loads: dict[tuple[str, str], list[str]] = {}
    for path, facts in files.items():
        for lack in _process(path, facts, target, around).unmet:
            loads.setdefault((os.path.normpath(lack.by), lack.need), []).append(path)
    for (by, need), users in sorted(loads.items()):
        if ignored(by, need) or users == [by]:
            continue  # what a file itself needs is looked at one by one elsewhere
        if any(finding.path == by and need in finding.text for finding in known):
            continue
        others = [user for user in users if user != by]
        text = f"needs {need}, which ld.so does not find; {others[0]} loads it"
        more = f" and {len(others) - 1} more do" if len(others) > 1 else ""
        yield Finding("error", by, text + more)


def _process(path: str, facts: ElfFacts, target: Target, around: LoaderConfig) -> SimulatedProcess:
    if facts.executable and facts.current.interp:
        return simulate(path, around)
    return simulate(target.python, around, [path])
