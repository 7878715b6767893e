"""Dists whose ELF files are all for another machine: nothing of them loads in the target Python."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from nixpatch.arch import ARCHES
from nixpatch.fs import read_head
from nixpatch.model import Finding, Machine, Target, Tree

_MAX_SIZE = 1 << 16  # bytes of WHEEL; a file has one line a tag
_TAG = re.compile(rb"^Tag[ \t]*:[ \t]*[^\s-]+-[^\s-]+-(\S+)", re.MULTILINE | re.IGNORECASE)
_ARCH_NAMES = tuple(arch.name for arch in ARCHES)


def foreign_dists(tree: Tree, machines: Mapping[str, Machine], target: Target) -> Iterator[Finding]:
    """Report the dists, and a tree of loose files, that were built for another machine.

    Some wheels bring files for several machines (debugpy), or for a device, beside or instead of such for the
    target; so the platform tags of the wheel count as well (packaging.python.org, "Platform compatibility
    tags").

    Args:
        tree: the tree.
        machines: the machine of each of its ELF files, by path.
        target: the Python that will load it.

    """
    groups: dict[str, list[str]] = {}
    for file in tree.files:
        if file.path in machines:
            for owner in file.owners or ("",):
                groups.setdefault(owner, []).append(file.path)
    for info, paths in sorted(groups.items()):
        others = {machines[path].name for path in paths}
        if target.machine.name in others or (not info and tree.dists):
            continue
        tagged = _tagged_machines(info) if info else None
        if tagged is not None and (not tagged or target.machine.name in tagged):
            continue
        name = next((f"{dist.name} {dist.version}" for dist in tree.dists if dist.info == info), "")
        text = f"was built for {' and '.join(sorted(others))}, the target is {target.machine.name}"
        remedy = "install the build for that machine" if info else "nothing in it can be linked"
        yield Finding("error", info or tree.root, f"{name} {text}: {remedy}".lstrip())


def _tagged_machines(info: str) -> frozenset[str] | None:
    """Return the machines in the tags of WHEEL, none for ``any``; None if that cannot be known."""
    try:
        platforms = _TAG.findall(read_head(os.path.realpath(os.path.join(info, "WHEEL")), _MAX_SIZE))
    except OSError:
        return None
    if not platforms:
        return None
    names = [platform.decode("ascii", "replace") for platform in platforms]
    return frozenset(arch for name in names for arch in _ARCH_NAMES if name.endswith(f"_{arch}"))
