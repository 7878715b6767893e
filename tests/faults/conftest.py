"""One injector and one patched and one unpatched tree for all runs of a worker."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from faults import tree
from faults.stories import Bench
from support.injector import Injector

SETTLED = 2.1  # seconds; the cache remembers no file that is younger (store/cache.py)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Where runs are repeated with a fault at one call after the other."""
    root = os.path.realpath(tmp_path_factory.mktemp("faults"))
    assert not root.startswith("/dev/"), "preload.c takes no part in what is below /dev: another --basetemp"
    world = tree.make(os.path.join(root, "world"))
    runs = os.path.join(root, "runs")
    os.makedirs(runs)
    environment = {
        "NIX_STORE_DIR": world.store,
        "XDG_CACHE_HOME": os.path.join(root, "cache"),
        "COLUMNS": "200",
        "CI": "1",
    }
    time.sleep(SETTLED)
    with Injector(runs, environment) as injector:
        bench = Bench(injector, world, os.path.join(root, "cache"))
        bench.prepare()
        yield bench
