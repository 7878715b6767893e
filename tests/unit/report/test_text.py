"""The text reports."""

from __future__ import annotations

from rich.text import Text

from nixpatch.model import Finding, Tree, TreeKind, Verdict
from nixpatch.report.text import verdict_report
from support.resolving import STORE, TARGET


def lines(*findings: Finding, verbosity: int) -> list[str]:
    verdict = Verdict(Tree("/t", "/t", TreeKind.PLAIN, ()), TARGET, findings=findings)
    parts = verdict_report(verdict, store_dir=STORE, verbosity=verbosity).renderables
    return [part.plain for part in parts if isinstance(part, Text)][:-1]


def test_what_is_said_of_many_files_is_said_once() -> None:
    same = [Finding("error", f"/t/{name}", "differs") for name in "abcde"]
    other = Finding("note", "/t/x", "differs")
    assert lines(*same, other, verbosity=0) == ["a and 4 more: differs", "note: x: differs"]
    assert lines(*same, other, verbosity=1) == [*(f"{name}: differs" for name in "abcde"), "note: x: differs"]


def test_of_a_few_files_each_is_listed() -> None:
    same = [Finding("error", f"/t/{name}", "differs") for name in "abc"]
    assert lines(*same, verbosity=0) == ["a: differs", "b: differs", "c: differs"]
    assert lines(Finding("error", "/t", "lost"), verbosity=0) == ["lost"]


def test_notes_of_one_topic_are_counted() -> None:
    topic = "optional parts that do not load"
    notes = [Finding("note", f"/t/{name}", f"needs {name}", topic) for name in "ab"]
    assert lines(*notes, verbosity=0) == ["note: optional parts that do not load: 2; -v lists them"]
    assert lines(*notes, verbosity=1) == ["note: a: needs a", "note: b: needs b"]
