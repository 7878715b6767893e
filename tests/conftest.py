"""Fixtures around the Nix store of the tests, and the rule that in CI nothing is skipped."""

import os
import shutil
import sys
from collections.abc import Generator, Iterator

import pytest

from support.testbed import sandbox as sandboxes
from support.testbed import store as stores
from support.testbed.sandbox import Sandbox
from support.testbed.store import NixStore
from support.testbed.venv import StoreVenv, StoreVenvFactory, create

# A tree or wheel without a Python of its own is linked for the one on PATH, which may be a shim (pyenv) that
# leads to none.
os.environ["PATH"] = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"

# In CI a test that skips is a test that nobody runs.
NO_SKIP = os.environ.get("NIXPATCH_NO_SKIP", "0") not in {"", "0"}
# What a fixture says about the test: `-m "not nix"` must be reliable.
MARKERS = {"nix_store": "nix", "sandbox": "sandbox", "store_venv": "pypi"}


@pytest.fixture(scope="session")
def nix_store() -> NixStore:
    """The Nix store made of Debian packages; built by the first test that needs it."""
    if reason := stores.lacks():
        pytest.skip(reason)
    return stores.build()


@pytest.fixture(scope="session")
def sandbox(nix_store: NixStore) -> Sandbox:
    """A NixOS-like root to run programs in."""
    if reason := sandboxes.lacks():
        pytest.skip(reason)
    return Sandbox(nix_store)


@pytest.fixture(scope="session")
def store_venv(nix_store: NixStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreVenvFactory]:
    """Make virtual environments. They go with the session: pytest would keep those of the last three."""
    made: list[str] = []

    def make(*requirements: str, pip: bool = False) -> StoreVenv:
        path = str(tmp_path_factory.mktemp("venv") / "venv")
        made.append(path)
        venv = create(nix_store, path, pip=pip)
        if requirements:
            venv.install(*requirements)
        return venv

    yield make
    for path in made:
        shutil.rmtree(path, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests by the fixtures they use."""
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in MARKERS:
                item.add_marker(MARKERS[fixture])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail instead of skipping, if so told. An expected failure, reported as skipped too, stays one."""
    report = yield
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = _not_skipped(report.longrepr)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips as a whole."""
    report = yield
    if NO_SKIP and report.skipped:
        report.outcome = "failed"
        report.longrepr = _not_skipped(report.longrepr)
    return report


def _not_skipped(longrepr: object) -> str:
    reason = longrepr[2] if isinstance(longrepr, tuple) else longrepr
    return f"skipped, which NIXPATCH_NO_SKIP forbids: {reason}"
