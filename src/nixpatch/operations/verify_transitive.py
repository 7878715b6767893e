"""Check the transitive needs of the patched files, by the rules of ld.so(8).

A file whose own needs are met fails to load if one of its libraries needs a library that is not found. The
search is simulated; nothing is run. It is for targets whose loader is in the store: an FHS loader also
searches ``/etc/ld.so.cache``, which is not part of a tree.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

from nixpatch.model import ElfFacts, Finding, Target
from nixpatch.model.trace import SimulatedProcess
from nixpatch.operations.plan import Reader
from nixpatch.resolve.ld_so import LoaderConfig, simulate


def unmet_needs(
    files: Mapping[str, ElfFacts],
    target: Target,
    reader: Reader,
    *,
    ignored: Callable[[str, str], bool],
    known: Sequence[Finding] = (),
) -> Iterator[Finding]:
    """Report each need that is not found, once, at the file that has it.

    Args:
        files: the files of the tree for the target's machine. A process is simulated for each: a program is
            started, a library is opened in the target Python.
        target: the Python that will load the tree.
        reader: reads ELF files.
        ignored: ``ignored(path, soname)`` is whether the soname may be missing for the file.
        known: findings that are not reported again.

    """
    loader_config = LoaderConfig(
        read=reader.facts,
        identity=lru_cache(maxsize=None)(os.path.realpath),
        default_dirs=(target.libc_dir,),
        loader=target.loader,
    )
    loads: dict[tuple[str, str], list[str]] = {}
    for path, facts in files.items():
        for need in _simulate(path, facts, target, loader_config).unmet:
            loads.setdefault((os.path.normpath(need.by), need.need), []).append(path)
    for (path, soname), users in sorted(loads.items()):
        if ignored(path, soname) or users == [path]:
            continue  # verify_provenance checks the own needs of a file
        if any(finding.path == path and soname in finding.text for finding in known):
            continue
        if any(facts.soname == soname for facts in files.values()):
            continue  # found once the library of this soname is loaded: verify_provenance notes it
        others = [user for user in users if user != path]
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        yield Finding(
            "error", path, f"needs {soname}, which ld.so does not find; loaded by {others[0]}{more}"
        )


def _simulate(path: str, facts: ElfFacts, target: Target, loader_config: LoaderConfig) -> SimulatedProcess:
    if facts.executable and facts.current.interp:
        return simulate(path, loader_config)
    return simulate(target.python, loader_config, [path])
