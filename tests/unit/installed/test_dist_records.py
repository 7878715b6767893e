"""RECORD and provenance of one dist: read once, read again when somebody wrote them, and written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from nixpatch.installed.dist_records import DistRecords, TreeRecords
from nixpatch.installed.provenance import ProvenanceError
from nixpatch.model import Answer, FilePlan, Origin, TreeFile
from support import recorded
from support.installed_trees import row
from support.recorded import ENTRY, LIBRARY, NAME, Recorded


@pytest.fixture
def dist(tmp_path: Path) -> Recorded:
    return recorded.make(str(tmp_path))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all files that are opened from now on."""
    names: list[str] = []
    original = os.open

    def counting(path: str, *arguments: Any, **keywords: Any) -> int:
        names.append(os.path.basename(path))
        return original(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", counting)
    return names


def test_both_files_are_read_once(dist: Recorded, opened: list[str]) -> None:
    dist.write_provenance({NAME: ENTRY})
    records = TreeRecords()
    for _ in range(3):
        of_dist = records.of(dist.tree, dist.info)
        assert of_dist.read_record().rows_of({dist.path})
        assert of_dist.read_provenance() == dist.provenance
        assert of_dist.algorithms([dist.path]) == {"sha256"}
        assert of_dist.written_by_lief() == {}

    assert opened.count("RECORD") == 1
    assert opened.count("nixpatch.json") == 1 + 3  # three by the test itself


def test_a_file_that_somebody_wrote_is_read_again(dist: Recorded) -> None:
    records = dist.records
    assert records.read_provenance() is None
    before = records.read_record()
    dist.write_provenance({NAME: ENTRY})
    dist.write(row("other.py") + b"\n")

    assert records.read_provenance() == dist.provenance
    assert [item.path for item in records.read_record().record.rows] == ["other.py"]
    assert before.rows_of({dist.path})  # a state that was read stays what it was

    os.unlink(os.path.join(dist.info, "RECORD"))
    os.unlink(os.path.join(dist.info, "nixpatch.json"))
    with pytest.raises(FileNotFoundError):
        records.read_record()
    assert records.read_provenance() is None


def test_record_is_replaced_only_in_the_state_that_was_read(dist: Recorded) -> None:
    records = dist.records
    old = records.read_record()
    dist.write(row("pip-was-here.py") + b"\n")

    with pytest.raises(OSError, match="changed while nixpatch worked on it"):
        records.replace_record(old, old.record.without(NAME), durable=False)

    assert dist.read().startswith("pip-was-here.py,")
    now = records.read_record()
    records.replace_record(now, now.record.without("pip-was-here.py"), durable=False)
    assert dist.read() == ""


def test_a_record_without_a_change_is_not_written(dist: Recorded) -> None:
    before = os.stat(os.path.join(dist.info, "RECORD"))
    record = dist.records.read_record()

    dist.records.replace_record(record, record.record, durable=False)

    assert os.stat(os.path.join(dist.info, "RECORD")) == before


def test_provenance_that_cannot_be_used_raises_each_time(dist: Recorded) -> None:
    dist.write(b"{", "nixpatch.json")
    records = dist.records
    for _ in range(2):
        with pytest.raises(ProvenanceError, match="not JSON"):
            records.read_provenance()
    assert records.usable_provenance() is None
    dist.write_provenance({NAME: ENTRY})
    assert records.usable_provenance() == dist.provenance


def test_all_spellings_of_a_file_are_its_rows(dist: Recorded) -> None:
    os.symlink("pkg", os.path.join(dist.site, "link"))
    spellings = [NAME, f"./{NAME}", "pkg\\x.so", "link/x.so", dist.path, f"../site-packages/{NAME}"]
    dist.write(b"".join(row(name) + b"\n" for name in (*spellings, "pkg/y.so", "../../../x.so")))

    rows = dist.records.read_record().rows_of({dist.path})

    assert [item.path for item in rows[dist.path]] == spellings
    assert list(rows) == [dist.path]


def test_the_algorithms_of_rows_are_those_to_check_and_to_write(dist: Recorded) -> None:
    dist.write(row(NAME, algorithm="md5") + b"\n" + row("pkg/y.so", algorithm="sha512") + b"\n")
    other = os.path.join(dist.site, "pkg/y.so")

    assert dist.records.algorithms([dist.path]) == {"sha256", "md5"}
    assert dist.records.algorithms([other, dist.path]) == {"sha256", "md5", "sha512"}


def test_files_that_no_dist_claims_have_provenance_but_no_record(dist: Recorded) -> None:
    records = DistRecords(dist.tree, "")

    name = os.path.relpath(dist.path, dist.tree.prefix)
    assert (records.record_path, records.key(dist.path)) == (None, name)
    assert records.provenance_path == os.path.join(dist.tree.prefix, ".nixpatch.json")
    assert records.algorithms([dist.path]) == {"sha256"}
    with pytest.raises(FileNotFoundError):
        records.read_record()


def test_needs_are_written_without_a_path_of_the_tree(dist: Recorded) -> None:
    answers = (
        Answer("libz.so.1", Origin.STORE, None, LIBRARY),
        Answer("libown.so", Origin.OWN_DIST, None, os.path.join(dist.site, "pkg.libs", "libown.so")),
        Answer("libc.so.6", Origin.LIBC, None, "/nix/store/glibc/lib/libc.so.6"),
        Answer("libcuda.so.1", Origin.DRIVER),
        Answer("libgone.so", Origin.MISSING),
    )

    assert dist.records.needs_of(FilePlan(TreeFile(dist.path, 1), None, None, answers)) == {
        "libz.so.1": LIBRARY,
        "libown.so": "site:pkg.libs/libown.so",
        "libc.so.6": "libc",
        "libcuda.so.1": "driver",
        "libgone.so": "missing",
    }


@pytest.mark.parametrize("name", ["x.so", "pkg//x.so", "pkg/../x.so", "pkg/./x.so", "../../bin/x"])
def test_a_key_is_the_path_relative_to_the_site_directory(dist: Recorded, name: str) -> None:
    path = f"{dist.site}/{name}"
    assert dist.records.key(path) == os.path.relpath(path, dist.site)
