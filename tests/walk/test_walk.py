"""A dozen short walks; ``python -m walk`` takes others."""

from __future__ import annotations

import os

import pytest

from walk.shop import Shop
from walk.walker import walk

pytestmark = pytest.mark.gcc

SEEDS = range(12)
STEPS = 8


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(os.path.realpath(tmp_path_factory.mktemp("shop")))
    shop.build()
    return shop


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_done_to_a_venv_the_promises_hold_and_it_ends_as_a_fresh_one(
    shop: Shop, seed: int, tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIX_STORE_DIR", shop.store)
    monkeypatch.setenv("XDG_CACHE_HOME", os.path.join(shop.root, "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NIX_BUILD_TOP", raising=False)
    walk(shop, os.path.join(os.path.realpath(tmp_path), "walk"), seed, STEPS)
