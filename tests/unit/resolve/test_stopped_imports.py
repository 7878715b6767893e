"""Which files with unmet needs stop an import."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace

import pytest

from nixpatch.model import Answer, FilePlan, Origin, TreeFile
from nixpatch.resolve.stopped_imports import mark_stopped, module_name
from support.resolving import TARGET


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("_x.cpython-312-x86_64-linux-gnu.so", ("_x", True)),
        ("_x.cpython-312.so", ("_x", True)),
        ("_x.cpython-311-x86_64-linux-gnu.so", None),
        ("_x.abi3.so", ("_x", True)),
        ("_x.so", ("_x", False)),
        ("libfoo.so", ("libfoo", False)),
        ("libfoo.so.1", None),
        ("libfoo-2.so", None),
        ("libfoo.1.so", None),
    ],
)
def test_the_name_under_which_python_imports_a_file(name: str, expected: tuple[str, bool] | None) -> None:
    assert module_name(f"/site/pkg/{name}", TARGET) == expected


def test_a_target_of_unknown_version_takes_modules_of_every_version() -> None:
    unknown = replace(TARGET, version=None)
    assert module_name("/_x.cpython-39-x86_64-linux-gnu.so", unknown) == ("_x", True)


def _file(name: str, *needs: str, missing: Collection[str] = (), opens: Collection[str] = ()) -> FilePlan:
    answers = [Answer(need, Origin.OWN_DIST, path=f"/t/{need}") for need in needs]
    answers += [Answer(need, Origin.MISSING) for need in missing]
    answers += [Answer(need, Origin.OWN_DIST, path=f"/t/{need}", opener="/t/code.py:1") for need in opens]
    return FilePlan(TreeFile(f"/t/{name}", 1), None, answers=tuple(answers))


def _stops(*files: FilePlan, starts: Collection[str]) -> dict[str, tuple[str, ...]]:
    marked = mark_stopped(files, lambda file: os.path.basename(file.file.path) in starts, str)
    return {os.path.basename(file.file.path): file.stops for file in marked}


def test_what_a_module_needs_through_another_library_stops_it() -> None:
    module, between = _file("m.so", "a.so"), _file("a.so", "b.so")
    lacking, plugin = _file("b.so", missing=["libx.so"]), _file("plugin.so", missing=["liby.so"])
    stops = _stops(module, between, lacking, plugin, starts={"m.so"})
    assert stops == {"m.so": (), "a.so": (), "b.so": ("/t/m.so",), "plugin.so": ()}


def test_a_plugin_that_needs_a_module_does_not_stop_it() -> None:
    stops = _stops(_file("m.so"), _file("plugin.so", "m.so", missing=["libx.so"]), starts={"m.so"})
    assert stops["plugin.so"] == ()


def test_a_library_that_code_opens_by_name_stops_nothing() -> None:
    stops = _stops(_file("m.so", opens=["b.so"]), _file("b.so", missing=["libx.so"]), starts={"m.so"})
    assert stops["b.so"] == ()


def test_circles_end() -> None:
    stops = _stops(_file("m.so", "a.so"), _file("a.so", "m.so", missing=["libx.so"]), starts={"m.so"})
    assert stops["a.so"] == ("/t/m.so",)
