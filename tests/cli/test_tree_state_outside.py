"""What is known of a tree is not used when anything outside that the answer depends on has changed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from nixpatch.operations.plan import make_plan
from nixpatch.store import cache
from support.world import HASH, Run, World, shared

pytestmark = pytest.mark.gcc

PYTHON = os.path.realpath(sys.executable)


@pytest.fixture(autouse=True)
def young(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are settled at once: those of a test are younger than two seconds."""
    monkeypatch.setattr(cache, "_SETTLED", 0)


def learn(nixpatch: Run, *arguments: str) -> int:
    """Run until the tree is known; return the exit code."""
    return [nixpatch(*arguments)[0] for _ in range(3)][-1]


def answer(nixpatch: Run, *arguments: str) -> tuple[int, list[str], str]:
    code, text, err = nixpatch(*arguments)
    return code, [line.partition(") in ")[0] for line in text.splitlines()], err


def agrees(nixpatch: Run, *arguments: str) -> int:
    """Compare a run with one that keeps nothing; return the exit code."""
    known, fresh = answer(nixpatch, *arguments), answer(nixpatch, "--no-cache", *arguments)
    assert known == fresh
    return known[0]


@pytest.fixture
def bare(world: World) -> str:
    """Return a path in the store that has no library; nothing else has."""
    shutil.rmtree(os.path.dirname(world.library))
    path = os.path.join(world.store, f"{HASH[::-1]}-answer-2")
    os.mkdir(path)
    return path


@pytest.mark.parametrize("has_directory", [True, False])
def test_a_library_that_comes_into_a_store_path_is_seen(
    world: World, nixpatch: Run, bare: str, has_directory: bool
) -> None:
    """A path that is being built has neither all its files nor the time stamps that Nix gives it."""
    library = os.path.join(bare, "lib")
    if has_directory:
        os.mkdir(library)
    assert learn(nixpatch, world.venv) == 1
    shared("library.c", os.path.join(library, "libanswer.so.1"), "-Wl,-soname,libanswer.so.1")
    assert nixpatch(world.venv)[0] == 0
    assert world.ask() == "42"


def test_a_file_of_the_store_that_becomes_a_library_is_seen(world: World, nixpatch: Run, bare: str) -> None:
    library = Path(bare, "lib", "libanswer.so.1")
    library.parent.mkdir()
    library.write_bytes(b"not yet")
    assert learn(nixpatch, world.venv) == 1
    made = shared("library.c", os.path.join(world.root, "made.so"), "-Wl,-soname,libanswer.so.1")
    library.write_bytes(Path(made).read_bytes())
    assert nixpatch(world.venv)[0] == 0
    assert world.ask() == "42"


@pytest.fixture
def target(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a site-packages whose Python is found by PATH, in its second directory."""
    os.mkdir(os.path.join(world.root, "first"))
    os.mkdir(os.path.join(world.root, "second"))
    os.symlink(PYTHON, os.path.join(world.root, "second", "python3"))
    monkeypatch.setenv("PATH", ":".join(os.path.join(world.root, name) for name in ("first", "second")))
    site = os.path.join(world.root, "above", "site")
    shutil.copytree(world.site, site)
    return site


def test_a_python_that_is_no_more_on_path_is_missed(world: World, nixpatch: Run, target: str) -> None:
    assert learn(nixpatch, target) == 0
    os.unlink(os.path.join(world.root, "second", "python3"))
    assert agrees(nixpatch, target) == 2


def test_a_python_that_comes_first_on_path_is_seen(world: World, nixpatch: Run, target: str) -> None:
    assert learn(nixpatch, target) == 0
    shutil.copy(PYTHON, os.path.join(world.root, "first", "python3"))
    assert agrees(nixpatch, target) == 0
    assert "/first/python3" in nixpatch(target)[1]


def test_a_mark_of_the_package_manager_is_seen(nixpatch: Run, target: str) -> None:
    assert learn(nixpatch, target) == 0
    Path(os.path.dirname(target), "EXTERNALLY-MANAGED").write_text("[externally-managed]\n", encoding="utf-8")
    assert agrees(nixpatch, target) == 2


def test_a_link_to_the_python_that_was_named_counts(world: World, nixpatch: Run) -> None:
    link = os.path.join(world.root, "python")
    os.symlink(PYTHON, link)
    assert learn(nixpatch, "--python", link, world.venv) == 0
    os.unlink(link)
    assert agrees(nixpatch, "--python", link, world.venv) == 2


def test_what_a_wrapper_starts_counts(world: World, nixpatch: Run) -> None:
    wrapper, started = Path(world.root, "python3"), os.path.join(world.root, "python3.11")
    wrapper.write_text(f'#!/bin/sh\nexec "{started}" "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    os.symlink(PYTHON, started)
    assert learn(nixpatch, "--python", str(wrapper), world.venv) == 0
    os.unlink(started)
    assert agrees(nixpatch, "--python", str(wrapper), world.venv) == 2


def during(monkeypatch: pytest.MonkeyPatch, nixpatch: Run, tree: str, disturb: Any) -> None:
    """Run, and change something after the plan was made."""

    def disturbed(*args: Any, **kwargs: Any) -> Any:
        plan = make_plan(*args, **kwargs)
        disturb()
        return plan

    with monkeypatch.context() as patched:
        patched.setattr("nixpatch.operations.patch.make_plan", disturbed)
        nixpatch(tree)


def test_what_is_moved_into_the_tree_while_a_run_looks_is_seen(
    world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pip moves a package away, and back if the next one cannot be installed: its files stay as they were."""
    assert nixpatch(world.venv)[0] == 0
    package = os.path.join(world.root, "new")
    library = os.path.join(world.library, "libanswer.so.1")
    shared("extension.c", os.path.join(package, "_new.so"), library)
    moved = os.path.join(world.site, "new")
    during(monkeypatch, nixpatch, world.venv, lambda: os.rename(package, moved))
    assert "Patched 1 of 3" in nixpatch(world.venv)[1]


def test_what_is_removed_from_the_tree_while_a_run_looks_is_missed(
    world: World, nixpatch: Run, bare: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nixpatch(world.venv)[0] == 1

    def remove() -> None:
        shutil.rmtree(os.path.join(world.site, "pkg"))
        os.unlink(world.program)

    during(monkeypatch, nixpatch, world.venv, remove)
    assert agrees(nixpatch, world.venv) == 0


def test_a_link_to_a_store_path_that_is_not_sealed_is_followed_each_time(world: World, nixpatch: Run) -> None:
    package = os.path.join(world.store, f"{HASH[::-1]}-python-1", "linked")
    os.makedirs(package)
    os.symlink(package, os.path.join(world.site, "linked"))
    assert learn(nixpatch, world.venv) == 0
    shutil.copy(world.extension, os.path.join(package, "_more.so"))
    assert agrees(nixpatch, world.venv) == 0
