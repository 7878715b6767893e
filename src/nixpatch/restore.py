"""Plan the way back: every patched file as it was installed. ``apply`` carries it out like any other plan."""

from __future__ import annotations

from nixpatch.environment import scan
from nixpatch.model import ElfEdit, ElfFacts, FilePlan, Finding, Plan, TreeFile
from nixpatch.plan import Reader

_ORIGINAL = ElfEdit(search_path=None, interp=None)


def plan_restore(path: str) -> Plan:
    """Plan to restore the patched files of a tree; no target and no store are needed for it.

    Raises:
        RequestError: there is no such tree.

    """
    tree = scan(path)
    read = Reader()
    files: list[FilePlan] = []
    findings: list[Finding] = []
    for file in tree.files:
        facts = read(file.path)
        if not isinstance(facts, ElfFacts):
            files.append(FilePlan(file, None, facts))
        elif facts.stale_undo:
            text = "cannot be restored: another tool (strip, patchelf) changed it after nixpatch"
            findings.append(Finding("error", file.path, f"{text}; install the dist again"))
            files.append(FilePlan(file, facts))
        else:
            files.append(_back(file, facts))
    return Plan(tree, None, "", tuple(files), tuple(findings))


def _back(file: TreeFile, facts: ElfFacts) -> FilePlan:
    if facts.original_sha256 is None:
        return FilePlan(file, facts)
    return FilePlan(file, facts, edit=_ORIGINAL, wished=facts.original)
