"""What an installer did to a tree: the difference of two looks at it, and the part of a plan that answers it.

The whole tree is planned, since a soname has one provider in all of it; only what was installed is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from nixpatch.errors import RequestError
from nixpatch.fs import read_head
from nixpatch.installed import scan
from nixpatch.model import Finding, Plan, Tree
from nixpatch.model.elf import ELF_MAGIC

# Device, inode number and change stamp (st_ctime_ns) of a file: compared for equality, never with a clock.
# The number alone does not do, as a file system gives the number of a removed file to the next one, and uv
# removes a dist before it installs the same version again.
_Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is installed in a tree at one moment, and what tells it from another installation of the same."""

    dists: Mapping[str, _Stamp] = field(default_factory=dict)
    """by ``.dist-info``: the stamp of its RECORD, which every installer writes anew; () without one"""
    loose: Mapping[str, _Stamp] = field(default_factory=dict)
    """ELF files that no dist claims"""


@dataclass(frozen=True, slots=True)
class Change:
    """What is there after an installer and was not before it, or not the same."""

    dists: frozenset[str] = frozenset()
    """``.dist-info`` directories"""
    loose: frozenset[str] = frozenset()
    """ELF files that no dist claims"""
    gone: bool = False
    """something that was there is not any more"""

    @property
    def anything(self) -> bool:
        """Whether there is something new to look at."""
        return bool(self.dists or self.loose)


def snapshot(path: str) -> Snapshot:
    """Look at a tree. One that is not there, or is empty, has nothing installed.

    Raises:
        RequestError: it is there and cannot be read.

    """
    tree = _tree(path)
    if tree is None:
        return Snapshot()
    return Snapshot(
        {dist.info: _stamp(os.path.join(dist.info, "RECORD")) for dist in tree.dists},
        # The inode of such a file may be shared, and its change stamp moves with every link made to it.
        {file.path: _contents_stamp(file.path) for file in tree.files if not file.owners},
    )


def difference(before: Snapshot, after: Snapshot) -> Change:
    """Return what an installer did between two looks."""
    return Change(
        frozenset(info for info, stamp in after.dists.items() if before.dists.get(info) != stamp),
        frozenset(path for path, stamp in after.loose.items() if before.loose.get(path) != stamp),
        bool(before.dists.keys() - after.dists.keys() or before.loose.keys() - after.loose.keys()),
    )


def restrict(plan: Plan, change: Change) -> Plan:
    """Return the plan for the files of what changed alone, with the findings that concern them.

    A file that two dists claim is taken if one of them changed: both are recorded, as ever. That others would
    be linked otherwise now, too, is a note; they are the user's to patch.
    """
    files = tuple(
        file
        for file in plan.files
        if not change.dists.isdisjoint(file.file.owners) or file.file.path in change.loose
    )
    left = {file.file.path: file for file in plan.files}
    for file in files:
        del left[file.file.path]
    findings = [finding for finding in plan.findings if finding.path not in left]
    findings += linked_away(plan.tree, change)
    pending = sum(file.edit is not None for file in left.values())
    if pending:
        text = f"{pending} ELF files that were there before would be linked anew, too"
        findings.append(Finding("note", plan.tree.root, f"{text}: nixpatch {plan.tree.root} does it"))
    return replace(plan, files=files, findings=tuple(findings))


def linked_away(tree: Tree, change: Change) -> Iterator[Finding]:
    """Find the dists whose ELF files are links that lead out of the tree (``uv --link-mode symlink``).

    They are reported and stay. Writing through the link would change uv's cache and every other venv with it.
    To put a patched copy in the place of the link would be safe, but it is another link mode than was asked
    for, and restore could not give the link back: links are never replaced (design, section 4).
    """
    inside = tree.prefix.rstrip("/") + "/"
    for dist in tree.dists:
        if dist.info not in change.dists:
            continue
        away = sorted(path for path in dist.files if _is_elf_elsewhere(path, inside))
        if away:
            more = f" and {len(away) - 1} more" if len(away) > 1 else ""
            text = (
                f"a link to {os.path.realpath(away[0])}: not patched, it would change what is behind the link"
            )
            advice = "install the dist again with another --link-mode (clone, hardlink, copy)"
            yield Finding("error", away[0], f"this{more} of {dist.name}: {text}; {advice}")


def _tree(path: str) -> Tree | None:
    if not os.path.isdir(path):
        return None
    try:
        return scan(path)
    except RequestError:
        # scan finds no fault with an empty venv, but with an empty directory, where pip --target is to put
        # something.
        if os.listdir(path):
            raise
        return None


def _is_elf_elsewhere(path: str, inside: str) -> bool:
    if not os.path.islink(path):
        return False
    real = os.path.realpath(path)
    try:
        return not real.startswith(inside) and read_head(real, len(ELF_MAGIC)) == ELF_MAGIC
    except OSError:
        return False


def _stamp(path: str) -> _Stamp:
    try:
        status = os.lstat(path)
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_ctime_ns)


def _contents_stamp(path: str) -> _Stamp:
    try:
        status = os.lstat(path)
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
