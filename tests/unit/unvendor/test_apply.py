"""A vendored library is taken out of a dist and brought back: files, RECORD, provenance and SBOM."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fuzz.forge import Forged
from nixpatch import fs
from nixpatch.elf.inplace_writer import write_edited
from nixpatch.errors import FileRefused
from nixpatch.installed.provenance import RemovedGraft
from nixpatch.model import ElfEdit, TreeFile, VendoredPlan
from nixpatch.unvendor import apply as unvendor
from support import recorded
from support.installed_trees import row, write
from support.recorded import ENTRY, LIBRARY, NAME, TOOL, Recorded, sha256
from support.resolving import provider

COPY = "pkg.libs/libz-0badf00d.so.1.2.11"
KEPT = "pkg-1.0.dist-info/nixpatch-grafts/libz-0badf00d.so.1.2.11"
SBOM = "pkg-1.0.dist-info/sboms/nixpatch.cdx.json"
JSON = "pkg-1.0.dist-info/nixpatch.json"
CONTENTS = Forged().data()


@pytest.fixture
def dist(tmp_path: Path) -> Recorded:
    return make(str(tmp_path))


def make(root: str) -> Recorded:
    """Install a dist with a vendored library, whose user needs the store's library already."""
    made = recorded.make(root)
    write(os.path.join(made.site, COPY), CONTENTS)
    record = made.read().encode()
    made.patched()
    made.write_provenance({NAME: ENTRY})
    json = made.read("nixpatch.json").encode()
    made.write(row(COPY, CONTENTS) + b"\r\n" + record + row(JSON, json) + b"\n")
    return made


def plan(dist: Recorded) -> VendoredPlan:
    library = replace(provider(LIBRARY), package="z-1")
    file = TreeFile(os.path.join(dist.site, COPY), len(CONTENTS), (dist.info,))
    return VendoredPlan(file, "libz.so.1.2.11", (dist.path,), "libz.so.1", library, (), "1.2.11", "1")


def take_out(
    dist: Recorded, *plans: VendoredPlan, keep: bool = True, needed: frozenset[str] = frozenset()
) -> None:
    unvendor.remove_grafts(dist.records, plans, needed, tool=TOOL, keep=keep)


def bring_back(dist: Recorded) -> None:
    unvendor.bring_back(dist.records)
    unvendor.record_return(dist.records, tool=TOOL)


def snapshot(dist: Recorded) -> dict[str, bytes]:
    """Return all files and directories below site-packages."""
    found: dict[str, bytes] = {}
    for directory, folders, names in os.walk(dist.site):
        found.update((os.path.relpath(os.path.join(directory, name), dist.site), b"") for name in folders)
        for name in names:
            with open(os.path.join(directory, name), "rb") as file:
                found[os.path.relpath(file.name, dist.site)] = file.read()
    return found


def test_out_and_back_again(dist: Recorded) -> None:
    before = snapshot(dist)

    take_out(dist, plan(dist))

    after = snapshot(dist)
    assert "pkg.libs" not in after
    assert after[KEPT] == CONTENTS
    assert dist.row(KEPT) == row(KEPT, CONTENTS).decode()
    assert dist.row(COPY) is None
    assert dist.row(SBOM) == row(SBOM, after[SBOM]).decode()
    assert dist.row(JSON) == row(JSON, after[JSON]).decode()
    assert dist.provenance is not None
    assert dist.provenance.files == {NAME: ENTRY}
    assert dist.provenance.unvendored == {
        COPY: RemovedGraft(
            sha256(CONTENTS),
            row(COPY, CONTENTS).decode() + "\r\n",
            KEPT,
            "libz.so.1",
            LIBRARY,
            "1.2.11",
            "1",
        )
    }
    assert not unvendor.unsettled(dist.records)
    assert list(unvendor.lost_grafts(dist.records)) == []

    bring_back(dist)

    assert snapshot(dist) == before
    assert unvendor.removed_grafts(dist.records) == {}


def test_the_document_names_what_serves_and_what_it_replaces(dist: Recorded) -> None:
    take_out(dist, plan(dist))

    document = json.loads(snapshot(dist)[SBOM])

    (component,) = document["components"]
    assert (component["name"], component["version"]) == ("z", "1")
    values = {entry["value"] for entry in component["properties"]}
    assert values == {os.path.dirname(os.path.dirname(LIBRARY)), LIBRARY, f"{COPY} {sha256(CONTENTS)}"}


def test_once_more_changes_nothing(dist: Recorded) -> None:
    take_out(dist, plan(dist))
    once = snapshot(dist)
    take_out(dist)
    assert snapshot(dist) == once


def test_one_that_is_not_kept_is_deleted_and_lost(dist: Recorded) -> None:
    take_out(dist, plan(dist), keep=False)

    after = snapshot(dist)
    assert {COPY, KEPT, "pkg.libs", os.path.dirname(KEPT)} & set(after) == set()
    assert (dist.row(COPY), dist.row(KEPT)) == (None, None)
    assert dist.provenance is not None
    assert dist.provenance.unvendored[COPY].kept is None
    assert not unvendor.unsettled(dist.records)
    assert list(unvendor.lost_grafts(dist.records)) == [
        (os.path.basename(COPY), os.path.join(dist.site, COPY))
    ]
    bring_back(dist)
    assert snapshot(dist) == after


def test_a_patched_one_is_kept_as_it_was_installed(dist: Recorded) -> None:
    path = os.path.join(dist.site, COPY)
    with fs.replacement(path) as temp:
        write_edited(path, temp, ElfEdit("/somewhere"))
    with open(path, "rb") as file:
        patched = file.read()
    dist.write(dist.read().encode().replace(row(COPY, CONTENTS), row(COPY, patched)))

    take_out(dist, replace(plan(dist), original_sha256=hashlib.sha256(CONTENTS).digest()))

    assert snapshot(dist)[KEPT] == CONTENTS
    assert dist.row(KEPT) == row(KEPT, CONTENTS).decode()
    bring_back(dist)
    assert snapshot(dist)[COPY] == CONTENTS
    assert dist.row(COPY) == row(COPY, CONTENTS).decode()


def test_a_patched_one_gets_the_row_back_that_it_was_installed_with(dist: Recorded) -> None:
    installed = row(COPY, CONTENTS, "md5") + b"\r\n"
    path = os.path.join(dist.site, COPY)
    with fs.replacement(path) as temp:
        write_edited(path, temp, ElfEdit("/somewhere"))
    with open(path, "rb") as file:
        patched = file.read()
    entry = replace(ENTRY, original=sha256(CONTENTS), patched=sha256(patched), rows=(installed.decode(),))
    dist.write_provenance({NAME: ENTRY, COPY: entry})
    dist.write(dist.read().encode().replace(row(COPY, CONTENTS), row(COPY, patched)))

    take_out(dist, replace(plan(dist), original_sha256=hashlib.sha256(CONTENTS).digest()))
    bring_back(dist)

    assert dist.read().encode().startswith(installed)


def test_an_undo_record_that_the_wheel_brought_is_kept_with_the_file(dist: Recorded) -> None:
    path = os.path.join(dist.site, COPY)
    with fs.replacement(path) as temp:
        write_edited(path, temp, ElfEdit("/somewhere"))
    with open(path, "rb") as file:
        shipped = file.read()
    dist.write(dist.read().encode().replace(row(COPY, CONTENTS), row(COPY, shipped)))

    take_out(dist, plan(dist))

    assert snapshot(dist)[KEPT] == shipped
    assert dist.row(KEPT) == row(KEPT, shipped).decode()


def test_one_that_is_needed_again_is_recorded_as_present(dist: Recorded) -> None:
    """A run without --unvendor, after restore was killed between the copy and RECORD."""
    before = snapshot(dist)
    take_out(dist, plan(dist))
    unvendor.bring_back(dist.records)
    assert unvendor.unsettled(dist.records)

    take_out(dist, needed=frozenset({os.path.join(dist.site, COPY)}))

    assert snapshot(dist) == before


def test_a_row_that_went_since_the_plan_stops_the_removal(dist: Recorded) -> None:
    dist.write(row(NAME) + b"\n")
    before = snapshot(dist)
    with pytest.raises(FileRefused, match="does not list"):
        take_out(dist, plan(dist))
    assert snapshot(dist) == before


SPOILED: dict[str, Callable[[Recorded], object]] = {
    "the copy is there again": lambda dist: write(os.path.join(dist.site, COPY), CONTENTS),
    "its directory is left": lambda dist: os.mkdir(os.path.join(dist.site, os.path.dirname(COPY))),
    "the document is gone": lambda dist: os.unlink(os.path.join(dist.site, SBOM)),
    "RECORD is the old one": lambda dist: dist.write(dist.read("RECORD.old").encode()),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_a_killed_run_left_is_seen_and_finished(dist: Recorded, name: str) -> None:
    dist.write(dist.read().encode(), "RECORD.old")
    take_out(dist, plan(dist))
    whole = snapshot(dist)
    SPOILED[name](dist)

    assert unvendor.unsettled(dist.records)
    take_out(dist)

    assert not unvendor.unsettled(dist.records)
    assert snapshot(dist) == whole


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours handles it."""


@pytest.mark.parametrize("story", ["out", "back"])
def test_killed_at_each_step_the_next_run_ends_with_the_same_bytes(
    tmp_path: Path, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def story_of(dist: Recorded) -> None:
        if story == "back":
            bring_back(dist)
        else:
            is_begun = bool(unvendor.removed_grafts(dist.records))
            take_out(dist, *([] if is_begun else [plan(dist)]))

    def begin(name: str) -> Recorded:
        dist = make(str(tmp_path / name))
        if story == "back":
            take_out(dist, plan(dist))
        return dist

    whole = begin("whole")
    story_of(whole)
    original = fs._open_directory
    for step in range(1, 100):
        dist = begin(str(step))
        opened: list[str] = []

        def open_directory(path: str, opened: list[str] = opened, step: int = step) -> Any:
            opened.append(path)
            if len(opened) == step:
                raise Killed
            return original(path)

        with monkeypatch.context() as patch:
            patch.setattr(fs, "_open_directory", open_directory)
            try:
                story_of(dist)
            except Killed:
                killed = True
            else:
                killed = False
        story_of(dist)
        assert snapshot(dist) == snapshot(whole), opened
        if not killed:
            break
    assert 8 < step < 99


FORGED: dict[str, tuple[dict[str, Any], str]] = {
    "outside": ({"path": "../../../../libz-0badf00d.so.1"}, "outside of the tree"),
    "no vendored library": ({"path": NAME, "row": f"{NAME},,\n"}, "no name of a grafted library"),
    "the row of another file": ({"row": f"{NAME},,\n"}, "names another file"),
    "two rows": ({"row": f"{COPY},,\n{NAME},,\n"}, "names another file"),
    "kept elsewhere": ({"kept": "pkg/libz-0badf00d.so.1.2.11"}, "would not be in nixpatch-grafts"),
    "kept under another name": (
        {"kept": "pkg-1.0.dist-info/nixpatch-grafts/other"},
        "would not be in nixpatch-grafts",
    ),
    "not listed": (
        {"path": "pkg.libs/liby-0badf00d.so.1", "row": "pkg.libs/liby-0badf00d.so.1,,\n"},
        "RECORD of the dist does not list it",
    ),
    "another digest": ({"sha256": "sha256=00"}, "the file there is another one"),
}


@pytest.mark.parametrize("name", FORGED)
def test_an_entry_that_does_not_fit_the_dist_is_reported_and_ignored(dist: Recorded, name: str) -> None:
    fields, reason = FORGED[name]
    path = fields.get("path", COPY)
    digest = sha256(CONTENTS)
    entry = {"sha256": digest, "row": f"{COPY},,\n", "kept": None, "soname": None, "library": None, **fields}
    entry.pop("path", None)
    if name == "not listed":
        write(os.path.join(dist.site, path), CONTENTS)
    dist.write_provenance({}, {path: RemovedGraft(**entry)})
    before = snapshot(dist)

    (finding,) = unvendor.distrusted(dist.records)

    assert (finding.severity, reason in finding.text) == ("error", True)
    assert unvendor.removed_grafts(dist.records) == {}
    assert not unvendor.unsettled(dist.records)
    assert unvendor.bring_back(dist.records) == ()
    unvendor.record_return(dist.records, tool=TOOL)
    assert list(unvendor.lost_grafts(dist.records)) == []
    assert snapshot(dist) == before


def test_nothing_is_believed_where_record_cannot_be_read(dist: Recorded) -> None:
    take_out(dist, plan(dist))
    os.unlink(os.path.join(dist.info, "RECORD"))
    (finding,) = unvendor.distrusted(dist.records)
    assert "RECORD of the dist cannot be read" in finding.text
    assert unvendor.removed_grafts(dist.records) == {}
