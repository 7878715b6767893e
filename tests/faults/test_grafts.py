"""Grafts leave and come back: killed anywhere, a tree loads, and one more run ends with the same bytes."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from faults.conftest import SETTLED
from faults.tree import unlisted
from nixpatch.fs import is_temporary
from support import vendored as vendoring
from support import world as worlds
from support.injector import Fault, Injector, Kind, Site, TreeState, copy_tree, state_of
from support.vendored import COPY, STORE, Vendored
from support.world import World

pytestmark = [pytest.mark.gcc, pytest.mark.faults]


@dataclass
class Grafted:
    """Trees before and after, and runs between them."""

    injector: Injector
    vendored: Vendored

    @property
    def work(self) -> Vendored:
        """The tree that a run works on."""
        world = self.vendored.world
        return Vendored(World(world.root, os.path.join(world.root, "work"), world.store, world.library))

    def run(self, source: str, *arguments: str, fault: Fault = Fault.NONE, at: int = 0) -> tuple[Site, ...]:
        """Put a tree in place and run a command line on it; return the calls that it made."""
        copy_tree(source, self.work.world.venv)
        ended = self.injector.run(self.line(arguments), fault, Kind.CHANGE, at)
        assert fault is not Fault.NONE or ended.code == 0, ended.said
        return ended.sites

    def line(self, arguments: Sequence[str]) -> list[str]:
        return [self.work.world.venv if word == "TREE" else word for word in arguments]

    def state(self) -> TreeState:
        return state_of(self.work.world.venv)

    def tree(self, name: str) -> str:
        """Keep the tree as it is."""
        to = os.path.join(self.vendored.world.root, name)
        copy_tree(self.work.world.venv, to)
        return to


@pytest.fixture(scope="module")
def grafted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grafted]:
    root = os.path.realpath(tmp_path_factory.mktemp("grafts"))
    made = vendoring.make(worlds.make(os.path.join(root, "world")))
    for name in ("Activate.ps1", "activate", "activate.csh", "activate.fish"):
        os.unlink(os.path.join(made.world.venv, "bin", name))
    runs = os.path.join(root, "runs")
    os.makedirs(runs)
    environment = {
        "NIX_STORE_DIR": made.world.store,
        "XDG_CACHE_HOME": os.path.join(root, "cache"),
        "COLUMNS": "200",
        "CI": "1",
    }
    time.sleep(SETTLED)
    with Injector(runs, environment) as injector:
        found = Grafted(injector, made)
        found.run(made.world.venv, "TREE", "--unvendor=*")  # fills the cache
        yield found


def answers(vendored: Vendored) -> str:
    """Load the extension in a child: no fresh interpreter, as there are a hundred of them."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, str(ctypes.CDLL(vendored.world.extension).ask()).encode())
        except OSError as error:
            os.write(writing, str(error).encode()[:4000])
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


def calls(sites: Sequence[Site]) -> list[Site]:
    """Of the calls of one kind on one file, the last one; all with ``NIXPATCH_FAULTS=all``."""
    sites = [site for site in sites if site.kind is Kind.CHANGE]
    if os.environ.get("NIXPATCH_FAULTS") == "all":
        return sites
    # Temporary files have other names in each run: by the directory, and by what follows.
    named = {}
    for site, following in zip(sites, [*sites[1:], sites[-1]], strict=True):
        name = "" if is_temporary(os.path.basename(site.path)) else site.path
        named[site.call, name or os.path.dirname(site.path), following.call] = site
    return sorted(named.values(), key=lambda site: site.number)


def disturb(grafted: Grafted, source: str, *arguments: str) -> list[str]:
    """Kill a run at each of its calls, look, and run once more."""
    sites = calls(grafted.run(source, *arguments))
    assert len(sites) > 10
    end = grafted.state()
    begin = state_of(source)
    wrong: list[str] = []
    for site in sites:
        for fault in (Fault.KILL_ALL, Fault.TORN) if site.writes else (Fault.KILL_ALL,):
            grafted.run(source, *arguments, fault=fault, at=site.number)
            where = f"{fault.name} at {site.call} {os.path.basename(site.path)} ({site.number})"
            if (said := answers(grafted.work)) not in {COPY, STORE}:
                wrong.append(f"{where}: does not load: {said}")
            if left := unlisted(grafted.work.world.venv, begin):
                wrong.append(f"{where}: no RECORD lists {left}")
            again = grafted.injector.run(grafted.line(arguments))
            now = grafted.state()
            if again.code != 0 or now != end:
                lines = [name for name in now.keys() | end.keys() if now.get(name) != end.get(name)]
                wrong.append(
                    f"{where}: the next run exits with {again.code}, differs in {lines}: {again.said}"
                )
    return wrong


def test_on_the_way_out(grafted: Grafted) -> None:
    assert disturb(grafted, grafted.vendored.world.venv, "TREE", "--unvendor=*") == []
    assert answers(grafted.work) == STORE


def test_on_the_way_back(grafted: Grafted) -> None:
    grafted.run(grafted.vendored.world.venv, "TREE", "--unvendor=*")
    gone = grafted.tree("gone")
    assert disturb(grafted, gone, "restore", "TREE") == []
    assert answers(grafted.work) == COPY
    assert grafted.state() == state_of(grafted.vendored.world.venv)


def test_a_plain_run_finishes_what_was_begun(grafted: Grafted) -> None:
    """Killed, and then run without ``--unvendor``: it loads, and restore knows the way back."""
    venv = grafted.vendored.world.venv
    sites = calls(grafted.run(venv, "TREE", "--unvendor=*"))
    installed = state_of(venv)
    wrong = []
    for site in sites[::2]:
        grafted.run(venv, "TREE", "--unvendor=*", fault=Fault.KILL_ALL, at=site.number)
        for arguments in (["TREE"], ["verify", "TREE"], ["restore", "TREE"]):
            ended = grafted.injector.run(grafted.line(arguments))
            if ended.code or answers(grafted.work) not in {COPY, STORE}:
                wrong.append(f"{site}: {arguments} exits with {ended.code}: {ended.said}")
        now = grafted.state()
        if now != installed:
            lines = [name for name in now.keys() | installed.keys() if now.get(name) != installed.get(name)]
            wrong.append(f"{site}: restored, {lines} differ")
    assert wrong == []
