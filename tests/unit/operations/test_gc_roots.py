"""Which roots of a tree are dropped: those of store paths that nothing in it names now."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from nixpatch.model.installed import ROOTS_DIRECTORY
from nixpatch.operations.gc_roots import prune
from nixpatch.operations.patch import prune_roots
from nixpatch.store import gc_roots
from nixpatch.tree_lock import hold_tree

USED, UNUSED = "/nix/store/" + "a" * 32 + "-used-1", "/nix/store/" + "b" * 32 + "-unused-1"


@pytest.fixture
def tree(tmp_path: Path) -> str:
    """A tree with two roots and no file that uses either."""
    os.makedirs(tmp_path / ROOTS_DIRECTORY)
    for number, path in enumerate((USED, UNUSED)):
        os.symlink(path, tmp_path / ROOTS_DIRECTORY / str(number))
    return os.path.realpath(tmp_path)


def held(tree: str) -> set[str]:
    return set(gc_roots.links(tree).values())


def test_what_nothing_names_goes(tree: str) -> None:
    prune(tree)
    assert held(tree) == set()
    assert not os.path.exists(os.path.join(tree, ROOTS_DIRECTORY))


def test_what_env_links_to_stays(tree: str) -> None:
    os.makedirs(os.path.join(tree, ".nixpatch-env"))
    os.makedirs(os.path.join(tree, "x-1.dist-info"))
    os.symlink(f"{USED}/lib/libz.so.1", os.path.join(tree, ".nixpatch-env", "libz.so.1"))
    prune(tree)
    assert held(tree) == {USED}


def test_roots_are_not_dropped_while_another_run_holds_the_tree(tree: str) -> None:
    """That run adds its roots before the first file names their store paths."""
    messages: list[str] = []
    pruning = threading.Thread(target=lambda: prune_roots(tree, messages.append))
    with hold_tree(tree, messages.append):
        pruning.start()
        while not messages:
            time.sleep(0.01)
        assert held(tree) == {USED, UNUSED}
    pruning.join(30)
    assert held(tree) == set()
