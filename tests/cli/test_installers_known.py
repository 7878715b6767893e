"""An installer that changes nothing in a tree that is known costs no look at the tree; any change is seen."""

import os
from typing import Any

import pytest

from nixpatch.installed.scan import scan
from nixpatch.store import cache
from support.shop import Call, Shop

pytestmark = pytest.mark.gcc


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trees that were scanned for the changes of an installer."""
    monkeypatch.setattr(cache, "_SETTLED", 0)  # the files of a test are younger than two seconds
    paths: list[str] = []

    def counted(path: str, **options: Any) -> Any:
        paths.append(path)
        return scan(path, **options)

    monkeypatch.setattr("nixpatch.operations.installer_changes.scan", counted)
    return paths


@pytest.fixture
def known(shop: Shop, call: Call, scans: list[str]) -> Shop:
    """Return a shop whose venv is patched, and known by an install that had nothing to do."""
    one = shop.wheel("one")
    assert call("pip", "install", "--no-index", one)[0] == 0
    assert call(shop.world.venv)[0] == 0
    assert call("pip", "install", "--no-index", one)[0] == 0
    scans.clear()
    return shop


def install(shop: Shop, call: Call, *names: str) -> tuple[int, str, str]:
    return call("pip", "install", "--no-index", "--find-links", shop.wheels, *names)


def test_an_install_that_changes_nothing_looks_at_nothing(known: Shop, call: Call, scans: list[str]) -> None:
    code, _, err = install(known, call, "one")
    assert (code, err, scans) == (0, "", [])


def test_what_is_installed_is_patched(known: Shop, call: Call) -> None:
    known.wheel("two")
    code, _, err = install(known, call, "two")
    assert code == 0
    assert "Patched 1 of 1 ELF files" in err
    assert known.ask("two") == "42"


def test_what_is_installed_again_is_patched(known: Shop, call: Call) -> None:
    code, _, err = install(known, call, "--force-reinstall", "one")
    assert code == 0
    assert "Patched 1 of 1 ELF files" in err
    assert known.ask("one") == "42"


def test_what_came_by_another_way_is_not_taken_for_known(known: Shop, call: Call) -> None:
    extension = known.extension("one")
    with open(extension, "rb") as file:
        data = file.read()
    path = os.path.join(known.world.site, "loose.so")
    with open(path, "wb") as file:
        file.write(data[: len(data) // 2])
    assert install(known, call, "one")[0] == 0
    known.wheel("two")
    code, _, err = install(known, call, "two")
    assert code == 0
    assert "Patched 1 of 1 ELF files" in err


def test_a_known_tree_that_lost_its_library_says_so(known: Shop, call: Call, scans: list[str]) -> None:
    os.rename(known.world.library, known.world.library + ".away")
    install(known, call, "one")
    assert scans
