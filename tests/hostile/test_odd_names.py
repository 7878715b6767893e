"""Names that are no file's, and files where nixpatch writes its own: no traceback, and the rest is done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nixpatch.cli import run
from support import opened
from support import vendored as vendoring
from support import world as worlds
from support.injector import state_of
from support.vendored import ANSWER, Vendored
from support.world import World

pytestmark = pytest.mark.gcc

NAMES = {
    "a NUL": "pkg/a\0b",
    "half of a surrogate pair": "pkg/\ud800",
    "a byte that is no UTF-8": "pkg/\udcff",
    "below a file": "pkg/__init__.py/x.so",
    "too long": "pkg/" + "a" * 300,
    "a graft below a file": "pkg/__init__.py/libx-0badf00d.so.1",
    "a graft with a name that is too long": "pkg.libs/lib" + "a" * 300 + "-0badf00d.so.1",
    "too deep": "a/" * 3000 + "x",
    "nothing": "",
    "a directory": "pkg",
    "RECORD": "pkg-1.0.dist-info/RECORD",
    "a line feed": "pkg/a\nb",
}
PLACES = {
    "RECORD.jws": "pkg-1.0.dist-info/RECORD.jws",
    "provenance": "pkg-1.0.dist-info/nixpatch.json",
    "provenance of files of no dist": "../../../.nixpatch.json",
    "the directory of SBOMs": "pkg-1.0.dist-info/sboms",
    "the SBOM": "pkg-1.0.dist-info/sboms/nixpatch.cdx.json",
    "the directory of originals": "pkg-1.0.dist-info/nixpatch-grafts",
    "an original": f"pkg-1.0.dist-info/nixpatch-grafts/{ANSWER}",
    "the start-up file": opened.STARTUP,
    "the roots": "../../../.nixpatch-roots",
}


def _directory(path: str) -> None:
    os.makedirs(os.path.join(path, "x"))


KINDS: dict[str, Callable[[str], None]] = {
    "directory": _directory,
    "FIFO": os.mkfifo,
    "link": lambda path: os.symlink("/nonexistent/x", path),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Vendored:
    made = vendoring.make(worlds.make(str(tmp_path_factory.mktemp("odd"))))
    opened.install(made.world)
    shutil.copy(made.world.extension, os.path.join(made.world.site, "loose.so"))
    return made


@pytest.fixture
def world(template: Vendored, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("NIX_STORE_DIR", template.world.store)
    monkeypatch.setenv("XDG_CACHE_HOME", os.path.join(template.world.root, "cache"))
    monkeypatch.delenv("NIX_BUILD_TOP", raising=False)
    yield template.world.copy("work")
    shutil.rmtree(os.path.join(template.world.root, "work"))


def _tables(name: str, file: dict[str, Any], graft: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return provenance that has a name wherever a name can be."""
    text = {"kind": "script", "sha256": name, "original": name, "program": name, "uses": [name]}
    other = "pkg.libs/libx-0badf00d.so.1"
    return {
        "files": {name: file, "pkg/_ext.so": {**file, "needs": {name: name}, "renamed": {name: name}}},
        "unvendored": {
            name: {**graft, "kept": f"pkg-1.0.dist-info/nixpatch-grafts/{os.path.basename(name)}"},
            other: {**graft, "kept": name, "row": name, "library": name, "soname": name},
        },
        "texts": {name: text, "bin/x": text},
    }


@pytest.mark.parametrize("table", ["files", "unvendored", "texts"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_files_stops_no_command(world: World, name: str, table: str) -> None:
    assert run([world.venv, "--unvendor=*"]) == 0
    place = os.path.join(world.info, "nixpatch.json")
    with open(place, encoding="utf-8") as file:
        document = json.load(file)
    entries = (next(iter(document["files"].values())), next(iter(document["unvendored"].values())))
    document.setdefault(table, {}).update(_tables(NAMES[name], *entries)[table])
    with open(place, "w", encoding="utf-8") as file:
        json.dump(document, file)
    with open(world.record, "ab") as record:
        record.write(NAMES[name].encode("utf-8", "replace").replace(b"\n", b" ") + b",,\n")

    for command in ("verify", "plan", "patch", "restore"):
        assert run([command, world.venv]) in {0, 1}

    with open(os.path.join(world.venv, "bin", "opener-run"), "rb") as script:
        assert script.read() == opened.SCRIPT  # the rest of the venv is restored


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_what_stands_where_nixpatch_writes_stops_no_command(world: World, place: str, kind: str) -> None:
    path = os.path.normpath(os.path.join(world.site, PLACES[place]))
    before = state_of(world.venv)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    KINDS[kind](path)

    for command in (["patch", "--unvendor=*"], ["verify"], ["restore"]):
        assert run([*command, world.venv]) in {0, 1}

    if os.path.lexists(path):
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    if path.endswith(ANSWER):
        shutil.rmtree(os.path.dirname(path), ignore_errors=True)
    assert run(["restore", world.venv]) == 0
    assert state_of(world.venv) == before
