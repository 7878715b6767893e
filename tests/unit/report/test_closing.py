"""The last line of each report, from values alone."""

from __future__ import annotations

from dataclasses import replace

from nixpatch.model import (
    Answer,
    FileOutcome,
    FilePlan,
    Finding,
    Libc,
    LoaderDefaults,
    Origin,
    Outcome,
    Plan,
    Skip,
    SkipReason,
    Tree,
    TreeFile,
    TreeKind,
    Verdict,
)
from nixpatch.model.diff import Difference, FieldChange, LibraryChange
from nixpatch.model.elf import ElfEdit
from nixpatch.model.trace import SearchedPlace, SearchStep, Start, Trace, TracedNeed
from nixpatch.report.closing import diff_closing, lock_closing, run_closing, trace_closing, verdict_closing
from nixpatch.store.lockfile import Lockfile
from support.resolving import STORE, TARGET, elf

TREE = Tree("/t", "/t", TreeKind.PLAIN, ())


def file(name: str, *answers: Answer, skip: Skip | None = None, edit: ElfEdit | None = None) -> FilePlan:
    return FilePlan(TreeFile(f"/t/{name}", 1500), None, skip, answers, edit, stops=(f"/t/{name}",))


def plan(*files: FilePlan) -> Plan:
    return Plan(TREE, TARGET, STORE, files)


CHANGED = file("a.so", edit=ElfEdit(""))
LACKING = file("b.so", Answer("libx.so", Origin.MISSING), Answer("liby.so", Origin.MISSING))


def test_a_run_counts_what_it_wrote_and_what_remains() -> None:
    whole = plan(CHANGED, file("c.so"), file("d.o", skip=Skip(SkipReason.RELOCATABLE)))
    assert run_closing(whole, None, 0.25) == (
        "Would patch 1 of 3 ELF files (1.5 kB) in 0.2 s; 1 unchanged; 1 skipped."
    )
    done = Outcome(whole, (FileOutcome(CHANGED),))
    assert run_closing(whole, done, 0.25).startswith("Patched 1 of 3 ELF files (1.5 kB) in 0.2 s")
    assert run_closing(replace(whole, target=None), done, 1).startswith("Restored 1 of 3")
    failed = Outcome(whole, (FileOutcome(CHANGED, error="no space"),))
    assert run_closing(whole, failed, 1) == (
        "Patched 0 of 3 ELF files (0 B) in 1.0 s; 1 unchanged; 1 skipped; 1 failed."
    )


def test_missing_libraries_are_counted_by_file_and_soname() -> None:
    assert run_closing(plan(LACKING), None, 0).endswith("; 2 dependencies not found.")
    one = file("b.so", Answer("libx.so", Origin.MISSING))
    assert run_closing(plan(one), None, 0).endswith("; 1 dependency not found.")


def test_a_verdict_says_ok_or_failed() -> None:
    verdict = Verdict(TREE, TARGET, patched=1, needs=2, rows=3, libraries=(f"{STORE}/aaaa-x/lib/libx.so",))
    assert verdict_closing(verdict, STORE) == (
        "OK: checked 1 patched file, 2 dependencies, 1 store path, 3 RECORD rows: no errors."
    )
    wrong = replace(
        verdict, loaded=1, findings=(Finding("error", "/t/a.so", "x"), Finding("note", "/t", "y"))
    )
    assert verdict_closing(wrong, STORE).startswith("Failed: checked 1 patched file")
    assert verdict_closing(wrong, STORE).endswith(", 1 file opened by the loader: 1 error.")


def test_a_trace_says_whether_everything_is_found() -> None:
    start = Start(None, "", None, LoaderDefaults())
    links = (
        TracedNeed("/a", "libx.so", "/libx.so", (SearchedPlace(SearchStep.RUNPATH, "/libx.so"),)),
        TracedNeed("/a", "liby.so", None),
    )
    facts = {"/a": elf("libx.so", "liby.so")}
    assert trace_closing(Trace("/a", facts, ("/a",), start, links)) == (
        "1 file, 2 dependencies, 1 library: 1 not found."
    )
    assert trace_closing(Trace("/a", facts, ("/a",), start, links[:1])) == (
        "1 file, 1 dependency, 1 library: all found."
    )


def test_a_difference_names_its_kinds() -> None:
    assert diff_closing(Difference("plan")) == "No differences."
    change = FieldChange("libc", "glibc", "musl")
    assert diff_closing(Difference("plan", target=(change,))) == "Differences: the target."
    found = Difference(
        "plan",
        libraries=(LibraryChange("libx.so", None, "", 1), LibraryChange("liby.so", "", None, 1)),
        files=(("a.so", (change,)),),
        gained=(("", "x"),),
        lost=(("", "y"),),
    )
    assert diff_closing(found) == "Differences: 2 libraries, 1 file, 2 findings."


def test_a_lockfile_says_whether_it_changed() -> None:
    lock = Lockfile("x86_64", "/ld.so", Libc.GLIBC, (2, 40), {})
    assert lock_closing(lock, "a.lock", changed=True) == "Locked 0 libraries from 0 store paths in a.lock."
    assert lock_closing(lock, "a.lock", changed=False).startswith("Unchanged: 0 libraries")
