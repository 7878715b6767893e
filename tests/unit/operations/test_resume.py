"""Which patched files a killed run has not recorded."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from nixpatch.installed.dist_records import DistRecords
from nixpatch.model import FilePlan, Linkage, Skip, SkipReason
from nixpatch.operations.resume import unrecorded
from support import recorded
from support.installed_trees import row
from support.recorded import ENTRY, NAME, ORIGINAL, PATCHED, Recorded


@pytest.fixture
def dist(tmp_path: Path) -> Recorded:
    return recorded.make(str(tmp_path))


def record(dist: Recorded, contents: bytes = PATCHED) -> None:
    """Write RECORD as a run does that was not killed."""
    json = dist.read("nixpatch.json").encode()
    rows = (row(NAME, contents), row(f"{os.path.basename(dist.info)}/nixpatch.json", json))
    dist.write(b"".join(item + b"\n" for item in rows))


def test_what_a_whole_run_left_is_recorded(dist: Recorded) -> None:
    plan = dist.patched()
    dist.write_provenance({NAME: ENTRY})
    record(dist)
    assert unrecorded(dist.records, [plan]) == frozenset()


def test_a_run_that_was_killed_before_it_wrote_anything_down(dist: Recorded) -> None:
    plan = dist.patched()
    assert unrecorded(dist.records, [plan]) == {dist.path}


def test_a_run_that_was_killed_between_record_and_provenance(dist: Recorded) -> None:
    plan = dist.patched()
    dist.write_provenance({})
    record(dist)
    assert unrecorded(dist.records, [plan]) == {dist.path}


def test_a_record_that_describes_the_original_is_stale(dist: Recorded) -> None:
    plan = dist.patched()
    dist.write_provenance({NAME: ENTRY})
    record(dist, ORIGINAL)
    assert unrecorded(dist.records, [plan]) == {dist.path}


def test_a_record_that_does_not_list_the_provenance_is_stale(dist: Recorded) -> None:
    plan = dist.patched()
    dist.write_provenance({NAME: ENTRY})
    dist.write(row(NAME, PATCHED) + b"\n")
    assert unrecorded(dist.records, [plan]) == {dist.path}


def test_an_entry_of_another_search_path_or_library_is_stale(dist: Recorded) -> None:
    plan = dist.patched()
    for entry in (replace(ENTRY, search_path="/before"), replace(ENTRY, needs={"libz.so.1": "missing"})):
        dist.write_provenance({NAME: entry})
        record(dist)
        assert unrecorded(dist.records, [plan]) == {dist.path}


def test_a_restored_file_that_provenance_calls_patched(dist: Recorded) -> None:
    plan = dist.plan(ORIGINAL)
    dist.write_provenance({NAME: ENTRY})
    assert unrecorded(dist.records, [plan]) == {dist.path}


def test_a_file_that_another_program_wrote_is_not_for_us_to_record(dist: Recorded) -> None:
    """Without an undo record it is not patched, and it is not the original of the entry."""
    plan = dist.plan(ORIGINAL)
    dist.write_provenance({NAME: replace(ENTRY, original=ENTRY.patched)})
    assert unrecorded(dist.records, [plan]) == frozenset()


def test_a_file_that_lief_wrote_holds_no_undo_record(dist: Recorded) -> None:
    plan = dist.plan(ORIGINAL)
    dist.write_provenance({NAME: replace(ENTRY, writer="lief")})
    assert unrecorded(dist.records, [plan]) == frozenset()


def test_unreadable_provenance_or_record_stops_nothing(dist: Recorded) -> None:
    plan = dist.patched()
    dist.write(b"{", "nixpatch.json")
    assert unrecorded(dist.records, [plan]) == {dist.path}
    dist.write_provenance({NAME: ENTRY})
    os.unlink(os.path.join(dist.info, "RECORD"))
    assert unrecorded(dist.records, [plan]) == frozenset()


def test_files_that_no_dist_claims_have_no_rows(dist: Recorded) -> None:
    plan = dist.patched()
    records = DistRecords(dist.tree, "")
    assert unrecorded(records, [plan]) == {dist.path}
    dist.write_provenance({os.path.relpath(dist.path, dist.tree.prefix): ENTRY})
    os.rename(os.path.join(dist.info, "nixpatch.json"), records.provenance_path)
    assert unrecorded(records, [plan]) == frozenset()


def test_skipped_files_are_left_out(dist: Recorded) -> None:
    plan = FilePlan(dist.patched().file, None, Skip(SkipReason.STATIC), after=Linkage(None, None, None))
    assert unrecorded(dist.records, [plan]) == frozenset()
