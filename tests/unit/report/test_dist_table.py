"""The table of a run on terminals of several widths."""

import io

import pytest
from rich.console import Console

from nixpatch.model import (
    Answer,
    Dist,
    ElfEdit,
    FilePlan,
    Origin,
    Plan,
    Skip,
    SkipReason,
    Tree,
    TreeFile,
    TreeKind,
)
from nixpatch.report.dist_table import DistTable, skipped_line

SITE = "/venv/lib/python3.12/site-packages"
STORE = "/nix/store"
PACKAGES = ("gcc-13.2.0-lib", "zlib-1.3.1", "fontconfig-2.14.1-lib", "libxkbcommon-1.5.0")


def dist(name: str) -> Dist:
    return Dist(name, "1.0.0", SITE, f"{SITE}/{name}-1.0.0.dist-info")


def planned(
    name: str, number: int, *, changed: bool = False, skip: Skip | None = None, lacks: str = ""
) -> FilePlan:
    file = TreeFile(f"{SITE}/{name}/{number}.so", 10, (dist(name).info,))
    libraries = [f"{STORE}/{'0' * 32}-{package}/lib/l.so.1" for package in PACKAGES] if changed else []
    answers = [Answer("l.so.1", Origin.STORE, path=path) for path in libraries]
    if lacks:
        answers.append(Answer(lacks, Origin.MISSING))
    return FilePlan(file, None, skip, tuple(answers), ElfEdit("") if changed else None, stops=(file.path,))


def plan(*files: FilePlan) -> Plan:
    infos = sorted({owner for file in files for owner in file.file.owners})
    dists = tuple(Dist(info.split("/")[-1][:-16], "1.0.0", SITE, info) for info in infos)
    return Plan(
        Tree("/venv", "/venv", TreeKind.VENV, tuple(f.file for f in files), dists), None, STORE, files
    )


def drawn(what: Plan, width: int, *, whole: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, soft_wrap=True)
    console.print(DistTable(what, None, all_dists=whole))
    return out.getvalue()


LONG = "a-distribution-with-quite-a-long-name"


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_no_number_and_no_name_is_lost_at_any_width(width: int) -> None:
    files = [planned(LONG, number, changed=number < 12) for number in range(134)]
    told = drawn(plan(*files, planned("ruff", 0, changed=True)), width)
    lines = told.splitlines()
    assert all(len(line) <= width for line in lines)
    row = " ".join(lines[1].split())
    assert row.startswith(LONG[:25])
    assert " 12 122" in row
    start = row.partition(" ")[0]
    assert start == LONG or lines[2].startswith(LONG.removeprefix(start))  # folded, not cut
    assert "…" not in told
    words = " ".join(told.split())
    assert "gcc-13.2.0-lib" in words
    assert ("Store paths: " in told) == (width <= 80)


def test_dists_with_nothing_to_do_are_counted_if_there_are_many() -> None:
    idle = [planned(f"idle{number}", 0) for number in range(30)]
    left = planned("idle0", 1, skip=Skip(SkipReason.STATIC))
    made = plan(*idle, left, planned("busy", 0, changed=True))
    told = drawn(made, 100)
    assert "idle7" not in told
    assert "and 30 dists with nothing to do (30 files unchanged, 1 skipped); -v lists them" in told
    assert [line.plain for line in skipped_line(made, None)] == ["Skipped: 1 static"]
    assert "idle7 1.0.0" in drawn(plan(*idle, planned("busy", 0, changed=True)), 100, whole=True)


def test_what_is_missing_is_in_the_table() -> None:
    told = drawn(plan(planned("qt", 0, lacks="libGL.so.1"), planned("qt", 1, lacks="libEGL.so.1")), 80)
    assert "not found" in told
    assert "libEGL.so.1, libGL.so.1" in told
