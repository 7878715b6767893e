"""Find what an installer changed in a tree, and restrict a plan to it.

The whole tree is planned, since a soname has one provider in it; only the files of installed dists are
written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from nixpatch.errors import RequestError
from nixpatch.installed.scan import scan
from nixpatch.model import Finding, Plan, Tree
from nixpatch.operations.tree_state import Snapshot, snapshot_of


@dataclass(frozen=True, slots=True)
class InstallerChanges:
    """The new and changed parts of a tree after an installer."""

    dists: frozenset[str] = frozenset()
    """``.dist-info`` directories"""
    loose: frozenset[str] = frozenset()
    """ELF files that no dist claims"""
    gone: bool = False
    """something was removed"""

    @property
    def anything(self) -> bool:
        """Whether there is something new to patch."""
        return bool(self.dists or self.loose)


def snapshot(path: str) -> Snapshot:
    """Record the state of a tree; without a directory, or with an empty one, nothing is installed.

    Raises:
        RequestError: the tree cannot be read.

    """
    tree = _tree(path)
    return Snapshot() if tree is None else snapshot_of(tree)


def difference(before: Snapshot, after: Snapshot) -> InstallerChanges:
    """Return the changes between two snapshots."""
    return InstallerChanges(
        frozenset(info for info, stamp in after.dists.items() if before.dists.get(info) != stamp),
        frozenset(path for path, stamp in after.loose.items() if before.loose.get(path) != stamp),
        bool(before.dists.keys() - after.dists.keys() or before.loose.keys() - after.loose.keys()),
    )


def restrict(plan: Plan, changes: InstallerChanges) -> Plan:
    """Return the plan for the changed files only, with their findings.

    A file of two dists is included if one of them changed. If other files have pending edits, too, a note
    says so: the user decides whether to patch them.
    """
    texts = tuple(text for text in plan.texts if text.info in changes.dists)
    files = tuple(
        file
        for file in plan.files
        if not changes.dists.isdisjoint(file.file.owners) or file.file.path in changes.loose
    )
    others = {file.file.path: file for file in plan.files}
    for file in files:
        del others[file.file.path]
    of_others = {path for dist in plan.tree.dists if dist.info not in changes.dists for path in dist.files}
    of_others -= {path for dist in plan.tree.dists if dist.info in changes.dists for path in dist.files}
    findings = [finding for finding in plan.findings if finding.path not in of_others | others.keys()]
    pending = sum(file.edit is not None for file in others.values())
    if pending:
        text = f"{pending} ELF files that were installed before need patching, too"
        findings.append(Finding("note", plan.tree.root, f"{text}: run nixpatch {plan.tree.root}"))
    return replace(plan, files=files, texts=texts, findings=tuple(findings))


def _tree(path: str) -> Tree | None:
    if not os.path.isdir(path):
        return None
    try:
        return scan(path)
    except RequestError:
        # scan accepts an empty venv, but refuses an empty directory, which pip --target may be about to fill.
        if os.listdir(path):
            raise
        return None
