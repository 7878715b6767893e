"""RECORD and provenance after the files of a dist: which rows change, and in which order."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixpatch.installed.dist_records import DistRecords
from nixpatch.installed.provenance import PatchedFile, RemovedGraft
from nixpatch.model import FileHash, Finding
from nixpatch.operations.record_update import UnrecordedChange, refresh_rows, update_records
from nixpatch.operations.resume import unrecorded
from support import recorded
from support.installed_trees import digest, row
from support.recorded import ENTRY, LIBRARY, NAME, ORIGINAL, PATCHED, TOOL, Recorded, hashed, sha256

WRONG = b"neither the original nor patched"
JSON = "pkg-1.0.dist-info/nixpatch.json"


@pytest.fixture
def dist(tmp_path: Path) -> Recorded:
    return recorded.make(str(tmp_path))


def update(
    dist: Recorded, before: FileHash, after: FileHash, entry: PatchedFile | None, *, accept: bool = False
) -> tuple[Finding, ...]:
    change = UnrecordedChange(before, after, entry)
    return update_records(dist.records, {dist.path: change}, tool=TOOL, accept_modified=accept)


def patch(dist: Recorded, *, accept: bool = False) -> tuple[Finding, ...]:
    dist.patched()
    return update(dist, hashed(ORIGINAL), hashed(PATCHED), ENTRY, accept=accept)


def restore(dist: Recorded) -> tuple[Finding, ...]:
    dist.plan(ORIGINAL)
    return update(dist, hashed(ORIGINAL), hashed(ORIGINAL), None)


def test_there_and_back_again(dist: Recorded) -> None:
    before = dist.read()

    assert patch(dist) == ()

    assert dist.row() == f"{NAME},sha256={digest(PATCHED)},{len(PATCHED)}"
    json = dist.read("nixpatch.json")
    assert dist.row(JSON) == f"{JSON},sha256={digest(json.encode())},{len(json)}"
    assert dist.provenance is not None
    assert dist.provenance.files == {NAME: ENTRY}
    others = [line for line in dist.read().splitlines() if not line.startswith((NAME, JSON))]
    assert others == [line for line in before.splitlines() if not line.startswith(NAME)]

    assert restore(dist) == ()
    assert dist.read() == before
    assert not os.path.lexists(os.path.join(dist.info, "nixpatch.json"))


def test_a_row_that_was_wrong_before_stays_wrong_and_is_reported(dist: Recorded) -> None:
    dist.write(row(NAME, WRONG) + b"\n")

    (finding,) = patch(dist)

    assert (finding.severity, finding.path) == ("error", dist.path)
    assert "RECORD did not describe this file before the patch either" in finding.text
    assert dist.row() == row(NAME, WRONG).decode()
    assert dist.row(JSON)
    assert patch(dist, accept=True) == ()
    assert dist.row() == row(NAME, PATCHED).decode()


def test_a_build_describes_every_file_as_its_steps_left_it(dist: Recorded) -> None:
    stripped = os.path.join(os.path.dirname(dist.info), "pkg/stripped.so")
    os.makedirs(os.path.dirname(stripped), exist_ok=True)
    with open(stripped, "wb") as file:
        file.write(b"stripped")
    moved = row("../../../include/moved.h", WRONG)
    dist.write(row(NAME, WRONG) + b"\n" + row("pkg/stripped.so", WRONG) + b"\n" + moved + b"\n")

    (note,) = refresh_rows(dist.records)

    assert (note.severity, note.path) == ("note", dist.info)
    assert note.text == "RECORD: 2 rows of changed files updated, 1 of absent files removed"
    assert dist.read().splitlines() == [
        row(NAME, ORIGINAL).decode(),
        row("pkg/stripped.so", b"stripped").decode(),
    ]
    assert refresh_rows(dist.records) == ()


def test_a_file_with_the_hash_of_its_own_store_path_gets_no_digest(dist: Recorded) -> None:
    content = b"#!/bin/sh\n/nix/store/" + b"h" * 32 + b"-out/bin/tool\n"
    path = os.path.join(os.path.dirname(dist.info), "pkg/tool")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    dist.write(row("pkg/tool", WRONG) + b"\n")

    refresh_rows(dist.records, own_hash="h" * 32)

    assert dist.read().splitlines() == [f"pkg/tool,,{len(content)}"]


def test_a_row_of_an_earlier_patch_is_ours_to_change(dist: Recorded) -> None:
    """A run patched, the next one patched anew and was killed before RECORD: the row is the first one's."""
    patch(dist)
    anew = b"patched anew"
    entry = replace(ENTRY, patched=sha256(anew))

    assert update(dist, FileHash(None, hashed(ORIGINAL).digests), hashed(anew), entry) == ()

    assert dist.row() == f"{NAME},sha256={digest(anew)},12"


def test_a_damaged_digest_in_provenance_makes_no_row_ours(dist: Recorded) -> None:
    dist.write(row(NAME, WRONG) + b"\n")
    dist.write_provenance({NAME: replace(ENTRY, patched="sha256=nonsense")})

    (finding,) = patch(dist)

    assert finding.severity == "error"
    assert dist.row() == row(NAME, WRONG).decode()


def test_a_file_without_a_row_gets_none(dist: Recorded) -> None:
    dist.write(row("pkg/__init__.py", b"# pkg\n") + b"\n")
    assert patch(dist) == ()
    assert dist.row() is None
    assert dist.row(JSON)


def test_unreadable_provenance_is_written_anew_and_reported(dist: Recorded) -> None:
    dist.write(b"{", "nixpatch.json")

    (finding,) = patch(dist)

    assert (finding.severity, "was unreadable" in finding.text) == ("note", True)
    assert dist.provenance is not None
    assert dist.provenance.files == {NAME: ENTRY}


def test_entries_of_files_that_are_gone_go_and_other_entries_stay(dist: Recorded) -> None:
    dist.write_provenance({"pkg/__init__.py": ENTRY, "pkg/gone.so": ENTRY})
    patch(dist)
    assert dist.provenance is not None
    assert set(dist.provenance.files) == {NAME, "pkg/__init__.py"}


def test_a_dist_that_was_uninstalled_meanwhile_gets_no_file(dist: Recorded) -> None:
    os.unlink(os.path.join(dist.info, "RECORD"))

    (finding,) = patch(dist)

    assert (finding.severity, finding.path) == ("error", dist.info)
    assert "vanished during the run" in finding.text
    assert dist.provenance is None


def test_a_record_that_cannot_be_read_is_reported_and_provenance_written(dist: Recorded) -> None:
    os.unlink(os.path.join(dist.info, "RECORD"))
    os.symlink("METADATA", os.path.join(dist.info, "RECORD"))

    (finding,) = patch(dist)

    assert "RECORD cannot be read, so it was not updated" in finding.text
    assert os.path.islink(os.path.join(dist.info, "RECORD"))
    assert dist.provenance is not None


def test_signatures_of_record_stay(dist: Recorded) -> None:
    dist.write(b"{}", "RECORD.jws")
    signature = row("pkg-1.0.dist-info/RECORD.jws", b"{}")
    dist.write(dist.read().encode() + signature + b"\n")

    (finding,) = patch(dist)

    assert (finding.severity, "signs RECORD as it was installed" in finding.text) == ("note", True)
    assert dist.read("RECORD.jws") == "{}"
    assert dist.row("pkg-1.0.dist-info/RECORD.jws") == signature.decode()


def test_provenance_is_written_last(dist: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written then is finished by the next run, which knows our rows by it."""
    dist.patched()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nixpatch.installed.dist_records.replace_bytes", full)
    with pytest.raises(OSError, match="No space"):
        update(dist, hashed(ORIGINAL), hashed(PATCHED), ENTRY)

    assert dist.row() == row(NAME, PATCHED).decode()
    assert dist.provenance is None


def test_removed_grafts_stay_in_provenance(dist: Recorded) -> None:
    graft = RemovedGraft("sha256=00", "x,,\n", None, "libz.so.1", LIBRARY)
    dist.write_provenance({}, {"pkg.libs/libz-0badf00d.so.1": graft})
    patch(dist)
    assert restore(dist) == ()
    assert dist.provenance is not None
    assert dist.provenance.unvendored == {"pkg.libs/libz-0badf00d.so.1": graft}
    assert dist.row(JSON)


def test_of_two_rows_the_wrong_one_stays(dist: Recorded) -> None:
    """The same path twice: the run must not make both say the same."""
    wrong, right = row(NAME, WRONG), row(NAME, ORIGINAL)
    dist.write(wrong + b"\n" + right + b"\n")

    (finding,) = patch(dist)

    assert (finding.severity, finding.path) == ("note", dist.path)
    assert dist.read().splitlines()[:2] == [wrong.decode(), row(NAME, PATCHED).decode()]
    (finding,) = restore(dist)
    assert finding.severity == "note"
    assert dist.read().encode() == wrong + b"\n" + right + b"\n"


def test_a_row_with_the_right_digest_and_a_wrong_size_stays_wrong_in_every_run(dist: Recorded) -> None:
    wrong = row(NAME, ORIGINAL).replace(f",{len(ORIGINAL)}".encode(), b",12345")
    dist.write(wrong + b"\n")

    for _ in range(3):
        (finding,) = patch(dist)
        assert finding.severity == "error"
        assert dist.row() == wrong.decode()


ODD_ROWS = {
    "wrong": row(NAME, WRONG),
    "md5": row(NAME, ORIGINAL, "md5"),
    "sha1": row(NAME, ORIGINAL, "sha1"),
    "capitals": row(NAME, ORIGINAL).replace(b"sha256", b"SHA256"),
    "padding": row(NAME, ORIGINAL).rpartition(b",")[0] + b"=," + str(len(ORIGINAL)).encode(),
    "zeros before the size": row(NAME, ORIGINAL).rpartition(b",")[0] + f",00{len(ORIGINAL)}".encode(),
    "the wrong size": row(NAME, ORIGINAL) + b"0",
    "quotes": b'"pkg/x.so",' + row(NAME, ORIGINAL).partition(b",")[2],
    "no digest": b"pkg/x.so,,",
    "a size alone": f"pkg/x.so,,{len(ORIGINAL)}".encode(),
}


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize("name", ODD_ROWS)
def test_a_restore_brings_back_the_bytes_of_each_row(dist: Recorded, name: str, runs: int) -> None:
    """Also of one that was updated by ``--accept-modified``."""
    dist.write(ODD_ROWS[name] + b"\nlast.py,,\n")
    before = dist.read()
    for _ in range(runs):
        assert patch(dist, accept=True) == ()
    assert dist.read() != before
    assert restore(dist) == ()
    assert dist.read() == before


def test_rows_of_a_forged_provenance_name_no_other_file(dist: Recorded) -> None:
    patch(dist)
    dist.write_provenance({NAME: replace(ENTRY, rows=("pkg/__init__.py,,\n",))})
    restore(dist)
    assert dist.row() == row(NAME, ORIGINAL).decode()
    dist.write_provenance({NAME: replace(ENTRY, rows=(f"{NAME},,\npkg/__init__.py,,\n",))})
    restore(dist)
    assert dist.row() == row(NAME, ORIGINAL).decode()


@pytest.mark.parametrize("written", [0, 1, 2])
def test_rows_survive_a_run_that_was_killed(
    dist: Recorded, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Before RECORD, before provenance: the next run knows how the row was installed."""
    dist.write(row(NAME, WRONG) + b"\n")
    before = dist.read()
    plan = dist.patched()
    calls = 0

    def counted(original: Callable[..., None]) -> Callable[..., None]:
        def write(*arguments: Any, **keywords: Any) -> None:
            nonlocal calls
            if calls == written:
                raise KeyboardInterrupt
            calls += 1
            original(*arguments, **keywords)

        return write

    with monkeypatch.context() as patching:
        for method in ("replace_record", "replace_provenance"):
            patching.setattr(DistRecords, method, counted(getattr(DistRecords, method)))
        with pytest.raises(KeyboardInterrupt):
            update(dist, hashed(ORIGINAL), hashed(PATCHED), ENTRY, accept=True)

    assert unrecorded(dist.records, [plan]) == {dist.path}
    assert patch(dist, accept=True) == ()
    assert dist.row() == row(NAME, PATCHED).decode()
    assert dist.provenance is not None
    assert dist.provenance.files[NAME].patched == ENTRY.patched
    assert restore(dist) == ()
    assert dist.read() == before
