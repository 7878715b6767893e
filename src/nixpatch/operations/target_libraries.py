"""The libraries that the target Python loads itself: at its start, and with modules of its own library."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from functools import lru_cache

from nixpatch.installed.loader_defaults import read_loader_defaults
from nixpatch.installed.sys_path import extension_modules
from nixpatch.model import ElfFacts, Target, TargetLibrary
from nixpatch.resolve.ld_so import LoaderConfig, simulate


def target_libraries(
    target: Target, sonames: Collection[str], read: Callable[[str], ElfFacts | None]
) -> dict[str, TargetLibrary]:
    """Return, by soname, the libraries that the target loads under some sonames. Nothing of it is run.

    A module of the standard library is loaded only by the code that imports it, but most programs import
    ``ssl`` and ``ctypes``.

    Args:
        target: the Python.
        sonames: the sonames that matter.
        read: returns the facts of the ELF file at a path, None where there is none.

    """
    if read(target.python) is None:
        return {}
    defaults = read_loader_defaults(target.loader)
    config = LoaderConfig(
        read=read,
        identity=lru_cache(maxsize=None)(os.path.realpath),
        default_dirs=defaults.directories or (target.libc_dir,),
        loader=target.loader,
        cache=defaults.cache,
        cached=lambda name: defaults.cached.get(name, ()),
    )
    libraries: dict[str, TargetLibrary] = {}

    def add(opened: list[str], loaded_by: str) -> None:
        for mapped in simulate(target.python, config, opened).mapped[1:]:
            facts = read(mapped.path)
            soname = (facts.soname if facts is not None else None) or os.path.basename(mapped.path)
            if soname in sonames and mapped.path not in opened:
                libraries.setdefault(soname, TargetLibrary(os.path.realpath(mapped.path), loaded_by))

    add([], "by Python itself")
    for module in extension_modules(target):
        facts = read(module) if len(libraries) < len(sonames) else None
        if facts is not None and any(need in sonames and need not in libraries for need in facts.needed):
            add([module], f"by Python's module {os.path.basename(module).partition('.')[0]}")
    return libraries
