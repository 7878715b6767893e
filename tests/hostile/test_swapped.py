"""A directory of the tree is swapped for a link while a run is at work: nothing outside changes."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from nixpatch import fs
from nixpatch.elf.writer import write_checked
from nixpatch.errors import MachineError
from nixpatch.fs import TEMP_PREFIX, TEMP_SUFFIX, remove, replace_bytes, replacement
from nixpatch.model import Outcome, Plan
from nixpatch.operations import apply as applying
from nixpatch.operations.plan import make_plan
from nixpatch.operations.request import PatchRequest
from nixpatch.operations.restore import plan_restore
from nixpatch.store.nix_store import Store
from support import vendored as vendoring
from support import world as worlds
from support.injector import state_of
from support.vendored import Vendored
from support.world import World

pytestmark = pytest.mark.gcc


def _store(world: World) -> Store:
    return Store(world.store, world.store)


def _outside(world: World, name: str) -> str:
    """Return a directory that the tree has no business with, with all in it that the tree's own has."""
    outside = os.path.join(world.root, "outside", name)
    shutil.copytree(os.path.join(world.venv, name), outside)
    return outside


def _swap(world: World, name: str, outside: str) -> None:
    directory = os.path.join(world.venv, name)
    os.rename(directory, f"{directory}-moved")
    os.symlink(outside, directory)


def _names(world: World) -> dict[str, str]:
    site = os.path.relpath(world.site, world.venv)
    return {"package": f"{site}/pkg", "dist-info": f"{site}/pkg-1.0.dist-info", "bin": "bin", "lib": "lib"}


WHICH = ["package", "dist-info", "bin", "lib"]


def _errors(outcome: Outcome) -> list[str]:
    failed = [str(file.error) for file in outcome.failed]
    return failed + [finding.text for finding in outcome.findings if finding.severity == "error"]


@pytest.mark.parametrize("which", WHICH)
def test_between_plan_and_patch(world: World, which: str) -> None:
    name = _names(world)[which]
    outside = _outside(world, name)
    before = state_of(os.path.join(world.root, "outside"))
    plan = make_plan(PatchRequest(world.venv, _store(world)))

    _swap(world, name, outside)
    outcome = applying.apply(plan)

    assert state_of(os.path.join(world.root, "outside")) == before
    assert _errors(outcome)


@pytest.mark.parametrize("which", WHICH)
def test_while_a_file_is_written(world: World, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = _names(world)[which]
    outside = _outside(world, name)
    before = state_of(os.path.join(world.root, "outside"))
    plan = make_plan(PatchRequest(world.venv, _store(world)))
    swaps = [lambda: _swap(world, name, outside)]

    def swapping(*arguments: object, **options: object) -> object:
        while swaps:
            swaps.pop()()
        return write_checked(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("nixpatch.operations.edit_jobs.write_checked", swapping)
    applying.apply(plan)

    assert state_of(os.path.join(world.root, "outside")) == before


@pytest.mark.parametrize("which", WHICH)
def test_between_plan_and_restore(world: World, which: str) -> None:
    applying.apply(make_plan(PatchRequest(world.venv, _store(world))))
    name = _names(world)[which]
    outside = _outside(world, name)
    before = state_of(os.path.join(world.root, "outside"))
    plan = plan_restore(world.venv)

    _swap(world, name, outside)
    outcome = applying.apply(plan)

    assert state_of(os.path.join(world.root, "outside")) == before
    assert _errors(outcome)


def test_what_a_killed_run_left_is_removed_only_in_the_tree(world: World) -> None:
    leftover = f"{TEMP_PREFIX}1-x.so{TEMP_SUFFIX}"
    with open(os.path.join(world.site, "pkg", leftover), "wb") as file:
        file.write(b"half")
    name = _names(world)["package"]
    outside = _outside(world, name)
    plan = make_plan(PatchRequest(world.venv, _store(world)))
    assert len(plan.tree.leftovers) == 1

    _swap(world, name, outside)
    outcome = applying.apply(plan)

    assert os.path.exists(os.path.join(outside, leftover))
    assert any("cannot be removed" in text for text in _errors(outcome))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Vendored:
    """A wheel with grafts that nobody has taken out yet."""
    return vendoring.make(worlds.make(str(tmp_path_factory.mktemp("vendored"))))


@pytest.fixture(scope="module")
def unvendored(template: Vendored) -> World:
    """The same wheel without them."""
    world = template.world.copy("unvendored")
    assert not applying.apply(_unvendoring(world)).failed
    return world


def _unvendoring(world: World) -> Plan:
    return make_plan(PatchRequest(world.venv, _store(world), unvendor=("*",)))


def _returning(world: World) -> Plan:
    return plan_restore(world.venv)


def _renewed(begin: World, template: World, unvendored: World) -> Iterator[World]:
    """Yield copies of a world; beside each is another tree with all files that a run writes or removes."""
    while True:
        for name in ("work", "outside"):
            shutil.rmtree(os.path.join(begin.root, name), ignore_errors=True)
        outside = template.copy("outside")
        for name in ("sboms", "nixpatch-grafts"):
            shutil.copytree(os.path.join(unvendored.info, name), os.path.join(outside.info, name))
        yield begin.copy("work")


def _swap_at(count: int, swap: Callable[[], None], patch: pytest.MonkeyPatch) -> list[str]:
    """Swap just before the run opens a directory for the ``count``-th time; return what it opens."""
    opened: list[str] = []
    original = fs._open_directory

    def open_directory(path: str) -> contextlib.AbstractContextManager[int]:
        opened.append(path)
        if len(opened) == count:
            swap()
        return original(path)

    patch.setattr(fs, "_open_directory", open_directory)
    return opened


@pytest.mark.parametrize("which", ["libraries", "dist-info", "sboms", "originals", "package", "lib"])
@pytest.mark.parametrize("story", ["out", "back"])
def test_at_each_step_of_unvendoring_and_back(
    template: Vendored, unvendored: World, which: str, story: str
) -> None:
    begin, planned = (template.world, _unvendoring) if story == "out" else (unvendored, _returning)
    copies = _renewed(begin, template.world, unvendored)
    world = next(copies)
    site, info = (os.path.relpath(path, world.venv) for path in (world.site, world.info))
    name = {
        "libraries": f"{site}/pkg.libs",
        "dist-info": info,
        "sboms": f"{info}/sboms",
        "originals": f"{info}/nixpatch-grafts",
        "package": f"{site}/pkg",
        "lib": "lib",
    }[which]
    outside = os.path.join(world.root, "outside")

    def swap() -> None:
        directory = os.path.join(world.venv, name)
        if os.path.lexists(directory):
            os.rename(directory, f"{directory}-moved")
        os.symlink(os.path.join(outside, name), directory)

    with pytest.MonkeyPatch.context() as patch:
        opened = _swap_at(0, swap, patch)
        applying.apply(planned(world))
        steps = len(opened)
    assert steps > 15
    for count in range(1, steps + 1):
        world = next(copies)
        before = state_of(outside)
        plan = planned(world)
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(MachineError):
            opened = _swap_at(count, swap, patch)
            applying.apply(plan)
        assert state_of(outside) == before, opened[: count + 1]


@pytest.mark.parametrize("which", ["libraries", "dist-info", "lib"])
def test_between_plan_and_unvendoring(template: Vendored, unvendored: World, which: str) -> None:
    world = next(_renewed(template.world, template.world, unvendored))
    site, info = (os.path.relpath(path, world.venv) for path in (world.site, world.info))
    name = {"libraries": f"{site}/pkg.libs", "dist-info": info, "lib": "lib"}[which]
    outside = os.path.join(world.root, "outside")
    before = state_of(outside)
    plan = _unvendoring(world)

    _swap(world, name, os.path.join(outside, name))
    outcome = applying.apply(plan)

    assert state_of(outside) == before
    assert _errors(outcome)


DONE: dict[str, Callable[[str], object]] = {
    "write": lambda path: replace_bytes(path, b"new"),
    "remove": remove,
    "link": lambda path: fs.replace_link(path, "elsewhere"),
    "make a directory": lambda path: fs.make_directory(f"{path}-new"),
    "remove a directory": fs.remove_directory,
    "move away": lambda path: fs.move(path, f"{path}-new", overwrite=False),
    "move over": lambda path: fs.move(os.path.realpath(path), path, overwrite=True),
}


@pytest.mark.parametrize("what", DONE)
@pytest.mark.parametrize("depth", [1, 2])
def test_nothing_is_done_through_a_linked_directory(
    tmp_path: os.PathLike[str], what: str, depth: int
) -> None:
    root = os.path.realpath(tmp_path)
    os.makedirs(os.path.join(root, "real", "deep"))
    file = os.path.join(root, "real", "deep", "file")
    replace_bytes(file, b"old")
    if depth == 1:
        os.symlink("deep", os.path.join(root, "real", "link"))
        linked = os.path.join(root, "real", "link", "file")
    else:
        os.symlink("real", os.path.join(root, "link"))
        linked = os.path.join(root, "link", "deep", "file")

    with pytest.raises(OSError, match="a link has taken the place of a directory"):
        DONE[what](linked)

    assert os.listdir(os.path.dirname(file)) == ["file"]
    with open(file, "rb") as opened:
        assert opened.read() == b"old"


def test_a_directory_that_was_swapped_since_it_was_opened_gets_the_file_all_the_same(
    tmp_path: os.PathLike[str],
) -> None:
    """The directory that was opened is the one that was meant, wherever it has been moved to."""
    root = os.path.realpath(tmp_path)
    os.makedirs(os.path.join(root, "real"))
    os.makedirs(os.path.join(root, "outside"))
    path = os.path.join(root, "real", "file")
    with replacement(path) as descriptor:
        os.write(descriptor, b"new")
        os.rename(os.path.join(root, "real"), os.path.join(root, "moved"))
        os.symlink("outside", os.path.join(root, "real"))

    assert os.listdir(os.path.join(root, "outside")) == []
    assert os.listdir(os.path.join(root, "moved")) == ["file"]


@pytest.mark.parametrize("change", ["replaced", "written to", "gone", "a link", "a directory"])
def test_a_file_that_changes_meanwhile_is_not_replaced(tmp_path: os.PathLike[str], change: str) -> None:
    path = os.path.join(os.path.realpath(tmp_path), "file")
    replace_bytes(path, b"old")

    with pytest.raises(OSError, match="changed while nixpatch worked on it"), replacement(path) as descriptor:  # noqa: PT012
        os.write(descriptor, b"new")
        match change:
            case "replaced":
                os.rename(path, f"{path}-away")
                replace_bytes(path, b"pip")
            case "written to":
                with open(path, "ab") as file:
                    file.write(b"more")
            case "gone":
                os.unlink(path)
            case "a link":
                os.unlink(path)
                os.symlink("/etc/passwd", path)
            case _:
                os.unlink(path)
                os.mkdir(path)

    assert not any(name.startswith(TEMP_PREFIX) for name in os.listdir(tmp_path))
