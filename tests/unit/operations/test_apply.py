"""How often a run opens RECORD: counted at open(2), over plan, apply, verify and restore."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest

from nixpatch.installed.dist_records import TreeRecords
from nixpatch.model import Outcome
from nixpatch.operations.apply import apply
from nixpatch.operations.plan import make_plan
from nixpatch.operations.request import PatchRequest
from nixpatch.operations.restore import plan_restore
from nixpatch.operations.verify import check_tree
from nixpatch.store.nix_store import Store
from support import vendored as vendoring
from support import world as worlds
from support.vendored import Vendored
from support.world import World

pytestmark = pytest.mark.gcc

SCAN = 2
"""once for the magic of ELF files, as any file without a suffix; once for its paths. Nothing else of it is
kept: most dists do not change, and the rows of all would take megabytes"""
READ = 1
"""of the rows, when they are first needed; and once more after the run itself has written RECORD"""
WRITE = 1
"""of the old file, whose extended attributes the new one gets"""


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file name is opened, from now on."""
    counts: Counter[str] = Counter()
    original = os.open

    def counting(path: str, *arguments: Any, **keywords: Any) -> int:
        counts[os.path.basename(path)] += 1
        return original(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", counting)
    return counts


@pytest.fixture
def vendored(tmp_path: os.PathLike[str]) -> Vendored:
    return vendoring.make(worlds.make(os.fspath(tmp_path)))


def _patch(world: World, *, unvendor: bool = False) -> Outcome:
    records = TreeRecords()
    store = Store(world.store, world.store)
    plan = make_plan(PatchRequest(world.venv, store, unvendor=("*",) if unvendor else ()), records=records)
    return apply(plan, records=records)


def _restore(world: World) -> Outcome:
    records = TreeRecords()
    return apply(plan_restore(world.venv, records), records=records)


def test_patch_verify_and_restore(vendored: Vendored, opened: Counter[str]) -> None:
    world = vendored.world
    assert _patch(world).files
    assert opened["RECORD"] == SCAN + READ + WRITE

    opened.clear()
    assert not _patch(world).files
    assert opened["RECORD"] == SCAN + READ

    opened.clear()
    check_tree(world.venv, Store(world.store, world.store))
    assert opened["RECORD"] == SCAN + READ

    opened.clear()
    assert _restore(world).files
    assert opened["RECORD"] == SCAN + READ + WRITE


def test_unvendoring_and_back(vendored: Vendored, opened: Counter[str]) -> None:
    world = vendored.world
    assert _patch(world, unvendor=True).files
    # By the edits, for the new places of the originals, and when they are there.
    assert opened["RECORD"] == SCAN + 3 * (READ + WRITE)

    opened.clear()
    assert not _patch(world, unvendor=True).files
    assert opened["RECORD"] == SCAN + READ

    opened.clear()
    assert _restore(world).files
    assert opened["RECORD"] == SCAN + 3 * (READ + WRITE)
