"""What differs between two looks at a tree, and the part of a plan that answers it: values in, values out."""

from __future__ import annotations

from nixpatch.model import (
    Dist,
    ElfEdit,
    ElfFacts,
    FilePlan,
    Finding,
    Linkage,
    Machine,
    Plan,
    Tree,
    TreeFile,
    TreeKind,
)
from nixpatch.operations.installer_changes import InstallerChanges, difference, restrict
from nixpatch.operations.tree_state import Snapshot

SITE = "/venv/lib/python3.11/site-packages"
OLD, NEW = f"{SITE}/old-1.dist-info", f"{SITE}/new-1.dist-info"


def _file(name: str, *owners: str, pending: bool = True) -> FilePlan:
    linkage = Linkage(None, None, None)
    facts = ElfFacts(Machine(62, 64, "little"), False, None, (), linkage, linkage, None)
    edit = ElfEdit("/nix/store/x/lib") if pending else None
    return FilePlan(TreeFile(f"{SITE}/{name}", 1, owners), facts, edit=edit)


def _plan(*files: FilePlan, findings: tuple[Finding, ...] = ()) -> Plan:
    dists = tuple(Dist(info[len(SITE) + 1 :][:3], "1", SITE, info) for info in (NEW, OLD))
    tree = Tree("/venv", "/venv", TreeKind.VENV, tuple(file.file for file in files), dists)
    return Plan(tree, None, "/nix/store", files, findings)


def test_what_is_new_what_is_another_one_and_what_is_gone() -> None:
    before = Snapshot(
        {"a": (1, 2, 3), "b": (1, 3, 3), "c": (1, 4, 3)}, {"x": (1, 5, 9, 9), "y": (1, 6, 9, 9)}
    )
    after = Snapshot({"a": (1, 2, 3), "b": (1, 3, 4), "d": (1, 4, 3)}, {"x": (1, 5, 9, 9), "y": (1, 7, 9, 9)})

    assert difference(before, after) == InstallerChanges(frozenset("bd"), frozenset("y"), gone=True)
    assert difference(after, after) == InstallerChanges()
    assert not difference(after, after).anything
    assert difference(before, Snapshot()) == InstallerChanges(gone=True)
    assert difference(Snapshot(), after).dists == frozenset("abd")


def test_a_dist_without_a_record_is_new_all_the_same() -> None:
    assert difference(Snapshot(), Snapshot({"a": ()})).dists == frozenset("a")


def test_only_files_of_what_changed_stay_in_the_plan() -> None:
    old, new, both = _file("old.so", OLD), _file("new.so", NEW), _file("both.so", NEW, OLD)
    loose, other = _file("loose.so"), _file("other.so")
    plan = _plan(old, new, both, loose, other)

    kept = restrict(plan, InstallerChanges(frozenset([NEW]), frozenset([loose.file.path])))

    assert kept.files == (new, both, loose)
    assert kept.tree == plan.tree
    (note,) = kept.findings
    assert note.severity == "note"
    assert note.text.startswith("2 ELF files that were installed before need patching, too")


def test_findings_go_with_their_files_and_those_of_the_tree_stay() -> None:
    old, new = _file("old.so", OLD, pending=False), _file("new.so", NEW)
    wrong_old = Finding("error", old.file.path, "needs GLIBC_2.99")
    wrong_new = Finding("error", new.file.path, "needs GLIBC_2.99")
    odd = Finding("note", "/venv", "conda manages it")

    kept = restrict(_plan(old, new, findings=(wrong_old, wrong_new, odd)), InstallerChanges(frozenset([NEW])))

    assert kept.findings == (wrong_new, odd)


def test_everything_new_is_the_whole_plan() -> None:
    plan = _plan(_file("old.so", OLD), _file("new.so", NEW))

    assert restrict(plan, InstallerChanges(frozenset([OLD, NEW]))) == plan
