"""pip installs and uninstalls while nixpatch works in the same venv; neither knows of the other."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from nixpatch.fs import is_temporary
from nixpatch.installed import record
from nixpatch.installed.hashing import DEFAULT_ALGORITHM, hash_file
from support import world as worlds
from support.injector import state_of
from support.shop import Shop

pytestmark = pytest.mark.gcc

NAMES = ("one", "two")


@pytest.fixture
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The small world with pip in its venv."""
    world = worlds.make(str(tmp_path_factory.mktemp("pip") / "world"))
    subprocess.run(
        [sys.executable, "-m", "venv", world.venv], check=True, capture_output=True
    )  # pip comes into the venv that is there
    return Shop(world, os.path.join(world.root, "wheels"))


def _environment(shop: Shop) -> dict[str, str]:
    return {
        **os.environ,
        "NIX_STORE_DIR": shop.world.store,
        "XDG_CACHE_HOME": os.path.join(shop.world.root, "cache"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INDEX": "1",
    }


def _start(shop: Shop, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=_environment(shop), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _nixpatch(shop: Shop, *arguments: str) -> subprocess.Popen[str]:
    return _start(shop, sys.executable, "-m", "nixpatch", *arguments)


def _pip(shop: Shop, *arguments: str) -> subprocess.Popen[str]:
    return _start(shop, os.path.join(shop.world.venv, "bin", "python"), "-m", "pip", *arguments)


def _ended(process: subprocess.Popen[str]) -> int:
    process.communicate()
    return process.returncode


def _beside(shop: Shop, *arguments: str) -> None:
    """Run nixpatch again and again for as long as pip runs; neither stumbles over the other."""
    pip = _pip(shop, *arguments)
    while True:
        over = pip.poll() is not None
        run = _nixpatch(shop, shop.world.venv, "--jobs", "1")
        out, err = run.communicate()
        # Something may remain: a file that pip was about to replace. It is told, and nothing worse.
        assert run.returncode in {0, 1}, out + err
        assert "Traceback" not in err
        if over:
            break
    out, err = pip.communicate()
    assert pip.returncode == 0, out + err


def _torn(shop: Shop) -> Iterator[str]:
    """Yield what is half there: files of ours that no one knows, RECORDs that do not describe their files."""
    for path in state_of(shop.world.venv):
        if is_temporary(os.path.basename(path)):
            yield path
    for book in glob.glob(f"{shop.world.site}/*.dist-info/RECORD"):
        with open(book, "rb") as file:
            rows = record.parse(file.read()).rows
        for row in rows:
            path = os.path.join(shop.world.site, row.path or "")
            if not os.path.exists(path):
                yield f"{book}: {row.path} is not there"
            elif row.agrees(hash_file(path, {row.check_algorithm or DEFAULT_ALGORITHM})) is False:
                yield f"{book}: {row.path} is not as the row has it"


def test_neither_stumbles_over_the_other_and_one_more_run_is_right(shop: Shop) -> None:
    wheels = [shop.wheel(name, version) for version in ("1.0", "2.0") for name in NAMES]

    _beside(shop, "install", "--no-deps", *wheels[:2])
    _beside(shop, "install", "--no-deps", "--upgrade", *wheels[2:])
    _beside(shop, "install", "--no-deps", "--force-reinstall", *wheels[2:])

    assert _ended(_nixpatch(shop, shop.world.venv)) == 0
    assert list(_torn(shop)) == []
    assert _ended(_nixpatch(shop, "verify", shop.world.venv)) == 0
    assert [shop.ask(name) for name in NAMES] == [shop.world.ask()] * 2

    _beside(shop, "uninstall", "--yes", "one")

    assert not os.path.exists(os.path.join(shop.world.site, "one"))
    assert _ended(_nixpatch(shop, shop.world.venv)) == 0
    assert shop.ask("two") == shop.world.ask()
    assert _ended(_pip(shop, "uninstall", "--yes", "two")) == 0
    assert glob.glob(f"{shop.world.site}/two*") == []
