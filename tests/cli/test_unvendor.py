"""``--unvendor`` on a small wheel: what goes, what is kept and why, and that it all comes back."""

from __future__ import annotations

import glob
import json
import os
import shutil
from typing import Any

import pytest

from cli import vendored as vendoring
from cli import world as worlds
from cli.vendored import ANSWER, COPY, HELPER, STORE, Vendored
from cli.world import Run, World
from elf.programs import patched_bytes
from nixpatch.elf.image import Image
from nixpatch.elf.symbols import DT_GNU_HASH
from nixpatch.elf.undo import look

pytestmark = pytest.mark.gcc


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Vendored:
    """A wheel with two grafts, made once."""
    return vendoring.make(worlds.make(str(tmp_path_factory.mktemp("vendored"))))


@pytest.fixture
def world(template: Vendored) -> World:
    """A copy of the wheel's venv: what ``nixpatch`` runs in."""
    shutil.rmtree(os.path.join(template.world.root, "work"), ignore_errors=True)
    return template.world.copy("work")


@pytest.fixture
def vendored(world: World) -> Vendored:
    """The wheel."""
    return Vendored(world)


def grafts(nixpatch: Run, vendored: Vendored, *more: str) -> dict[str, dict[str, Any]]:
    """Return what a plan says of each graft."""
    _, out, _ = nixpatch("plan", vendored.world.venv, "--unvendor=*", "--json", *more)
    (tree,) = json.loads(out)["trees"]
    return {os.path.basename(entry["path"]): entry for entry in tree["grafts"]}


def without_symbols(path: str) -> None:
    """Spoil the hash table: the headers are right, the symbols cannot be read."""
    with open(path, "rb") as file:
        headers = look(file.fileno()).current
        assert Image.of(file.fileno()).size
    offset = headers.file_offset(headers.values[DT_GNU_HASH])
    assert offset is not None

    def absurd(data: bytearray) -> None:
        data[offset : offset + 4] = b"\xff\xff\xff\x7f"

    patched_bytes(path, path, absurd)


def test_the_copies_go_and_come_back(vendored: Vendored, nixpatch: Run) -> None:
    before = vendored.world.snapshot()
    assert vendored.ask() == COPY
    code, out, err = nixpatch(vendored.world.venv, "--unvendor")
    assert (code, err) == (0, "")
    assert "Un-vendored 2 of 2" in out
    assert vendored.ask() == STORE
    assert vendored.grafts == set()
    assert not os.path.exists(vendored.libs)
    after = vendored.world.snapshot()
    assert nixpatch(vendored.world.venv, "--unvendor")[0] == 0
    assert vendored.world.snapshot() == after
    assert nixpatch("verify", vendored.world.venv)[0] == 0
    assert nixpatch("restore", vendored.world.venv)[0] == 0
    assert vendored.ask() == COPY
    assert vendored.world.snapshot() == before


@pytest.mark.parametrize("name", [ANSWER, HELPER])
def test_a_graft_whose_symbols_cannot_be_read_is_kept(vendored: Vendored, nixpatch: Run, name: str) -> None:
    path = os.path.join(vendored.libs, name)
    without_symbols(path)
    vendored.record()
    entry = grafts(nixpatch, vendored)[name]
    assert not entry["unvendored"]
    assert any(f"the symbols of {path} cannot be read" in reason for reason in entry["kept"])


def test_a_user_whose_symbols_cannot_be_read_keeps_all(vendored: Vendored, nixpatch: Run) -> None:
    without_symbols(vendored.world.extension)
    vendored.record()
    for entry in grafts(nixpatch, vendored).values():
        assert any(f"the symbols of {vendored.world.extension}" in reason for reason in entry["kept"])


def test_a_library_of_the_store_whose_symbols_cannot_be_read_does_not_serve(
    vendored: Vendored, nixpatch: Run
) -> None:
    (path,) = glob.glob(f"{vendored.world.store}/*-answer-*/lib/libanswer.so.1")
    shutil.copy(path, f"{path}.whole")
    without_symbols(path)
    try:
        found = grafts(nixpatch, vendored)
    finally:
        os.replace(f"{path}.whole", path)
    assert any(f"the symbols of {path} cannot be read" in reason for reason in found[ANSWER]["kept"])


def test_a_user_that_is_no_elf_file_any_more_keeps_what_it_names(vendored: Vendored, nixpatch: Run) -> None:
    """Cut off: whoever mends it wants the copy back."""
    broken = os.path.join(vendored.world.site, "pkg", "_broken.so")
    data = bytearray()

    def cut(whole: bytearray) -> None:
        data.extend(whole)
        del whole[-2000:]
        whole[0x28:0x30] = bytes(8)

    patched_bytes(vendored.world.extension, broken, cut)
    with open(broken, "r+b") as file:
        file.truncate(max(data.find(ANSWER.encode()) + 100, 200))
    found = grafts(nixpatch, vendored)
    assert any(f"{broken} has its name" in reason for reason in found[ANSWER]["kept"])
    assert not any("_broken" in reason for reason in found[HELPER]["kept"])


def test_a_source_that_cannot_be_read_keeps_all(vendored: Vendored, nixpatch: Run) -> None:
    source = os.path.join(vendored.world.site, "pkg", "__init__.py")
    os.unlink(source)
    os.symlink("elsewhere.py", source)
    for entry in grafts(nixpatch, vendored).values():
        assert any(f"{source} cannot be read" in reason for reason in entry["kept"])
