"""Which result gives which exit code."""

from __future__ import annotations

import pytest

from nixpatch.cli.exit_codes import (
    ExitCode,
    diff_code,
    dlopen_code,
    manylinux_code,
    missing_code,
    run_code,
    trace_code,
    verdict_code,
)
from nixpatch.errors import MachineError, RequestError
from nixpatch.model import (
    Answer,
    FileOutcome,
    FilePlan,
    Finding,
    LoaderDefaults,
    Origin,
    Outcome,
    Plan,
    Tree,
    TreeFile,
    TreeKind,
    Verdict,
)
from nixpatch.model.diff import Difference
from nixpatch.model.dlopen_names import DlopenName, DlopenNames, DlopenStatus
from nixpatch.model.elf import ElfEdit
from nixpatch.model.manylinux import Promise
from nixpatch.model.trace import SearchedPlace, SearchStep, Start, Trace, TracedNeed
from nixpatch.resolve.manylinux import policies
from support.resolving import STORE, TARGET

TREE = Tree("/t", "/t", TreeKind.PLAIN, ())
FILE = TreeFile("/t/a.so", 1)
CHANGED = FilePlan(FILE, None, edit=ElfEdit(""))
LACKING = FilePlan(FILE, None, answers=(Answer("libx.so", Origin.MISSING),), stops=(FILE.path,))


def plan(*files: FilePlan, findings: tuple[Finding, ...] = ()) -> Plan:
    return Plan(TREE, TARGET, STORE, files, findings)


def test_a_run_is_satisfied_without_failures_missing_libraries_and_errors() -> None:
    note, error = Finding("note", "/t", "x"), Finding("error", "/t", "x")
    assert run_code(plan(CHANGED, findings=(note,))) is ExitCode.SATISFIED
    assert run_code(plan(LACKING)) is ExitCode.REMAINS
    assert run_code(plan(findings=(error,))) is ExitCode.REMAINS
    whole = plan(CHANGED)
    assert run_code(whole, Outcome(whole, (FileOutcome(CHANGED),))) is ExitCode.SATISFIED
    assert run_code(whole, Outcome(whole, (FileOutcome(CHANGED, error="x"),))) is ExitCode.REMAINS
    assert run_code(whole, Outcome(whole, (), (error,))) is ExitCode.REMAINS


def test_with_check_pending_changes_count_too() -> None:
    assert run_code(plan(CHANGED), check=True) is ExitCode.REMAINS
    assert run_code(plan(), check=True) is ExitCode.SATISFIED


def test_only_errors_of_a_verdict_count() -> None:
    assert verdict_code(Verdict(TREE, TARGET, findings=(Finding("note", "", ""),))) is ExitCode.SATISFIED
    assert verdict_code(Verdict(TREE, TARGET, findings=(Finding("error", "", ""),))) is ExitCode.REMAINS


def test_one_missing_library_of_any_tree_counts() -> None:
    assert missing_code([plan(CHANGED)]) is ExitCode.SATISFIED
    assert missing_code([plan(CHANGED), plan(LACKING)]) is ExitCode.REMAINS


@pytest.mark.parametrize(("soname", "code"), [(None, 1), ("libx.so", 0), ("liby.so", 1)])
def test_with_why_only_that_soname_counts(soname: str | None, code: int) -> None:
    links = (
        TracedNeed("/a", "libx.so", "/libx.so", (SearchedPlace(SearchStep.RUNPATH, "/libx.so"),)),
        TracedNeed("/a", "liby.so", None),
    )
    trace = Trace("/a", {}, ("/a",), Start(None, "", None, LoaderDefaults()), links)
    assert trace_code([trace], soname) == code


def test_any_difference_counts() -> None:
    assert diff_code(Difference("plan")) is ExitCode.SATISFIED
    assert diff_code(Difference("plan", gained=(("", "x"),))) is ExitCode.REMAINS


@pytest.mark.parametrize(
    ("claimed", "broken", "code"),
    [(True, (), 0), (True, ("x",), 1), (False, ("x",), 0), (None, ("x",), 1), (None, (), 0)],
)
def test_a_claim_that_is_not_kept_counts(claimed: bool | None, broken: tuple[str, ...], code: int) -> None:
    assert manylinux_code([Promise(policies()[0], claimed, broken)]) == code


def test_a_name_that_nothing_provides_counts() -> None:
    names = {status: DlopenName("libx.so", finds=False, sites=(), status=status) for status in DlopenStatus}
    for status, name in names.items():
        code = dlopen_code(DlopenNames(TREE, "/run", (name,)))
        assert code == (1 if status is DlopenStatus.MISSING else 0)


def test_errors_have_the_codes_of_the_table() -> None:
    assert RequestError.exit_code == ExitCode.REQUEST
    assert MachineError.exit_code == ExitCode.MACHINE
