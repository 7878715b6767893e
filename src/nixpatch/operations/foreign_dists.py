"""Dists that cannot load in the target Python: for another machine or libc, or links to what is gone."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping

from nixpatch.arch import ARCHES
from nixpatch.fs import read_head
from nixpatch.model import ElfFacts, Finding, Libc, Machine, Target, Tree
from nixpatch.policy import default_policy
from nixpatch.resolve.file_plan import other_libc

_MAX_SIZE = 1 << 16  # bytes of WHEEL; a file has one line a tag
_TAG = re.compile(rb"^Tag[ \t]*:[ \t]*[^\s-]+-[^\s-]+-(\S+)", re.MULTILINE | re.IGNORECASE)
_ARCH_SUFFIXES = tuple(f"_{arch.name}" for arch in ARCHES)
_TAG_OF_LIBC = {Libc.GLIBC: "manylinux", Libc.MUSL: "musllinux"}  # PEP 600, PEP 656


def linked_for_others(facts: Mapping[str, ElfFacts], target: Target) -> dict[str, Libc]:
    """Return the libc of each file that is linked against another one than the target's."""
    libc_of = default_policy().libc_of
    libcs = {
        path: other_libc(file, target, libc_of)
        for path, file in facts.items()
        if file.machine == target.machine
    }
    return {path: libc for path, libc in libcs.items() if libc is not None}


def foreign_dists(
    tree: Tree, machines: Mapping[str, Machine], target: Target, libcs: Mapping[str, Libc] | None = None
) -> Iterator[Finding]:
    """Report the dists, and a tree of loose files, that were built for another machine or libc.

    Some wheels bring files for several machines (debugpy), or for a device, beside or instead of such for the
    target; so the platform tags of the wheel count as well (packaging.python.org, "Platform compatibility
    tags").

    Args:
        tree: the tree.
        machines: the machine of each of its ELF files, by path.
        target: the Python that will load it.
        libcs: as ``linked_for_others`` returns it.

    """
    libcs = libcs or {}
    groups: dict[str, list[str]] = {}
    for file in tree.files:
        if file.path in machines:
            for owner in file.owners or ("",):
                groups.setdefault(owner, []).append(file.path)
    for info, paths in sorted(groups.items()):
        others = {libcs[path].value if path in libcs else machines[path].name for path in paths}
        if target.machine.name in others or (not info and tree.dists):
            continue
        is_libc = any(path in libcs for path in paths)
        if info and _is_meant_here(info, target, _TAG_OF_LIBC[target.libc] if is_libc else ""):
            continue
        name = next((f"{dist.name} {dist.version}" for dist in tree.dists if dist.info == info), "")
        here = f"uses {target.libc.value}" if is_libc else f"is {target.machine.name}"
        text = f"was built for {' and '.join(sorted(others))}, the target {here}"
        build = f"its {_TAG_OF_LIBC[target.libc]} wheel" if is_libc else "the build for that machine"
        remedy = f"install {build}" if info else "nothing in it can be linked"
        yield Finding("error", info or tree.root, f"{name} {text}: {remedy}".lstrip())


def dangling_dists(tree: Tree) -> Iterator[Finding]:
    """Report the dists with files that are dangling links, in one line.

    ``uv pip install --link-mode symlink`` links to uv's cache, which ``uv cache clean`` empties.
    """
    links = frozenset(filter(tree.has, tree.dangling))
    if not links:
        return
    dists = [dist for dist in tree.dists if not links.isdisjoint(dist.files)]
    names = ", ".join(f"{dist.name} {len(links & dist.files)}" for dist in dists)
    again = " ".join(shlex.quote(dist.name) for dist in dists[:3]) + (" ..." if dists[3:] else "")
    files = f"{len(links)} files are links" if len(links) > 1 else "a file is a link"
    remedy = f"install again, as with uv pip install --reinstall {again}"
    text = f"{files} to what is gone (was a cache cleaned?), by dist: {names}: {remedy}"
    yield Finding("error", tree.root, text)


def _is_meant_here(info: str, target: Target, prefix: str) -> bool:
    """Whether a tag of WHEEL is ``any``, or begins with ``prefix`` and ends with the target's machine."""
    try:
        platforms = _TAG.findall(read_head(os.path.realpath(os.path.join(info, "WHEEL")), _MAX_SIZE))
    except OSError:
        return False
    names = [platform.decode("ascii", "replace") for platform in platforms]
    of_machines = [name for name in names if name.endswith(_ARCH_SUFFIXES)]
    if names and not of_machines:
        return True
    return any(name.startswith(prefix) and name.endswith(f"_{target.machine.name}") for name in of_machines)
