"""``--unvendor`` on a small wheel: what goes, what is kept and why, and that it all comes back."""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
from importlib import resources
from typing import Any

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from nixpatch.elf.image import Image
from nixpatch.elf.structs import DT_GNU_HASH
from nixpatch.elf.undo import views_of
from support import vendored as vendoring
from support import world as worlds
from support.programs import patched_bytes
from support.vendored import ANSWER, COPY, HELPER, STORE, Vendored
from support.world import Run, World

pytestmark = pytest.mark.gcc

SCHEMA = json.loads(resources.files("nixpatch").joinpath("data/report.schema.json").read_text("utf-8"))


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
    document = json.loads(out)
    jsonschema.validate(document, SCHEMA)
    (tree,) = document["trees"]
    return {os.path.basename(entry["path"]): entry for entry in tree["grafts"]}


def without_symbols(path: str) -> None:
    """Spoil the hash table: the headers are right, the symbols cannot be read."""
    with open(path, "rb") as file:
        headers = views_of(file.fileno()).current.headers
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


def test_what_serves_now_is_told_as_cyclonedx_has_it(vendored: Vendored, nixpatch: Run) -> None:
    assert nixpatch(vendored.world.venv, "--unvendor")[0] == 0
    with open(os.path.join(vendored.world.info, "sboms", "nixpatch.cdx.json"), encoding="ascii") as file:
        document = file.read()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document) is None
    components = {one["name"]: one for one in json.loads(document)["components"]}
    assert {"answer", "helper"} <= components.keys()
    assert components["answer"]["version"] == "1.1"
    replaced = [one["value"] for one in components["answer"]["properties"] if "replaces" in one["name"]]
    assert any(value.startswith(f"pkg.libs/{ANSWER} sha256=") for value in replaced)


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


def test_a_plain_patch_before_and_after(vendored: Vendored, nixpatch: Run) -> None:
    """Linked in whichever order, it ends with the same bytes, and a plain run brings no copy back."""
    venv = vendored.world.venv
    before = vendored.world.snapshot()
    assert nixpatch(venv, "--unvendor")[0] == 0
    at_once = vendored.world.snapshot()
    assert nixpatch(venv)[0] == 0
    assert vendored.world.snapshot() == at_once
    assert nixpatch("restore", venv)[0] == 0
    assert nixpatch(venv, "--append-rpath", "/more")[0] == 0
    assert vendored.ask() == COPY
    patched = vendored.world.snapshot()
    assert patched != before
    assert nixpatch(venv, "--unvendor")[0] == 0
    assert vendored.ask() == STORE
    assert vendored.world.snapshot() == at_once
    assert nixpatch(venv, "--append-rpath", "/more")[0] == 0
    assert (vendored.ask(), vendored.grafts) == (STORE, set())
    assert nixpatch("verify", venv)[0] == 0
    assert nixpatch("restore", venv)[0] == 0
    assert vendored.world.snapshot() == before


@pytest.mark.parametrize(
    ("globs", "left"),
    [
        (("libhelper*",), {ANSWER}),
        (("libanswer.so.1", "libhelper.so.2"), set()),
        (("libnothing*", "*badf00d*"), set()),
        (("libnothing*",), {ANSWER, HELPER}),
    ],
)
def test_globs(vendored: Vendored, nixpatch: Run, globs: tuple[str, ...], left: set[str]) -> None:
    code, out, _ = nixpatch(vendored.world.venv, *(f"--unvendor={glob}" for glob in globs))
    assert code == 0
    assert vendored.grafts == left
    assert vendored.ask() in {COPY, STORE}
    assert ("there is no grafted library that libnothing* matches" in out) is (globs == ("libnothing*",))
    assert nixpatch("verify", vendored.world.venv)[0] == 0


def test_one_after_the_other_ends_like_both_at_once(vendored: Vendored, nixpatch: Run) -> None:
    venv = vendored.world.venv
    before = vendored.world.snapshot()
    assert nixpatch(venv, "--unvendor")[0] == 0
    at_once = vendored.world.snapshot()
    assert nixpatch("restore", venv)[0] == 0
    assert nixpatch(venv, "--unvendor=libhelper*")[0] == 0
    assert nixpatch(venv, "--unvendor=libanswer*")[0] == 0
    assert vendored.world.snapshot() == at_once
    assert nixpatch("restore", venv)[0] == 0
    assert vendored.world.snapshot() == before


def test_a_build_deletes_the_originals_and_restore_says_so(
    vendored: Vendored, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIX_BUILD_TOP", vendored.world.root)
    monkeypatch.setenv("NIX_ENFORCE_PURITY", "1")
    libs = glob.glob(f"{vendored.world.store}/*/lib")
    options = [word for directory in libs for word in ("--lib", directory)]
    assert nixpatch(vendored.world.venv, "--unvendor", *options)[0] == 0
    assert vendored.ask() == STORE
    names = {os.path.basename(path) for path in vendored.world.snapshot()}
    assert not {ANSWER, HELPER} & names
    with open(vendored.world.record, encoding="utf-8") as file:
        assert "badf00d" not in file.read()
    code, out, _ = nixpatch("restore", vendored.world.venv)
    assert code == 1
    assert "was deleted when it was un-vendored" in out
    assert vendored.ask() == STORE  # what cannot go back all the way stays as it is


def test_uninstalling_takes_the_originals_along(vendored: Vendored, nixpatch: Run, pip_venv: str) -> None:
    venv = vendored.world.venv
    assert nixpatch(venv, "--unvendor")[0] == 0
    assert any("nixpatch-grafts" in path for path in vendored.world.snapshot())
    pip = [
        os.path.join(pip_venv, "bin", "python"),
        "-m",
        "pip",
        "--python",
        os.path.join(venv, "bin", "python"),
    ]
    subprocess.run([*pip, "uninstall", "-y", "pkg"], check=True, capture_output=True)
    assert not [path for path in vendored.world.snapshot() if "pkg" in path.replace("site-packages", "")]
    assert not os.path.exists(vendored.world.info)


def test_programs_read_what_goes_what_stays_and_what_is_there_twice(
    vendored: Vendored, nixpatch: Run
) -> None:
    source = os.path.join(vendored.world.site, "pkg", "__init__.py")
    with open(source, "w", encoding="utf-8") as file:
        file.write(f"import ctypes\nctypes.CDLL('{ANSWER}')\n")
    _, out, _ = nixpatch("plan", vendored.world.venv, "--unvendor", "--json")
    document = json.loads(out)
    jsonschema.validate(document, SCHEMA)
    (tree,) = document["trees"]
    found = {os.path.basename(entry["path"]): entry for entry in tree["grafts"]}
    assert (found[HELPER]["unvendored"], found[HELPER]["soname"]) == (True, "libhelper.so.2")
    assert found[HELPER]["new_version"] == "2.1"
    assert found[ANSWER]["kept"] == [f"{source} has its name: it may open it"]
    # The dist's program needs the store's.
    (twice,) = tree["duplicates"]
    assert twice["library"] == "libanswer"
    assert len(twice["paths"]) == 2
    assert nixpatch(vendored.world.venv, "--json")[0] == 0


def test_a_library_that_is_a_link_into_the_cache_of_uv_is_kept(vendored: Vendored, nixpatch: Run) -> None:
    cache = os.path.join(vendored.world.root, "uv-cache")
    shutil.move(vendored.libs, cache)
    os.makedirs(vendored.libs)
    for name in (ANSWER, HELPER):
        os.symlink(os.path.join(cache, name), os.path.join(vendored.libs, name))

    code, out, _ = nixpatch(vendored.world.venv, "--unvendor=*")

    assert (code, "it is a link" in out) == (0, True)
    assert vendored.ask() == COPY
    shutil.rmtree(cache)
