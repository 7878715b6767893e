"""An unmet need counts if an import or a program fails without it; a plugin's is a line."""

from __future__ import annotations

import json
import os

import pytest

from support.world import Run, World, record_row, shared

pytestmark = pytest.mark.gcc


@pytest.fixture
def plugin(world: World) -> str:
    """Return a library of the dist that nothing of it needs, and that lacks a library."""
    gone = os.path.join(world.root, "libsodium.so.26")
    shared("library.c", gone, "-Wl,-soname,libsodium.so.26")
    path = os.path.join(world.site, "pkg", "plugins", "libdriver.so")
    os.makedirs(os.path.dirname(path))
    shared("extension.c", path, gone, "-DPyInit__ext=driver_init")
    world.write_record(record_row(path, world.site))
    return path


def source(world: World, text: str, plugin: str) -> None:
    path = os.path.join(world.site, "pkg", "driver.py")
    with open(path, "w") as file:
        file.write(text)
    world.write_record(record_row(path, world.site), record_row(plugin, world.site))


def test_a_plugin_that_lacks_a_library_is_a_line_and_no_error(
    world: World, nixpatch: Run, plugin: str
) -> None:
    code, out, _ = nixpatch(world.venv)

    assert code == 0
    assert "Libraries that only optional parts lack (no import fails): pkg 1.0 1; -v lists them" in out
    assert "not found" not in out
    code, out, _ = nixpatch("plan", "-v", world.venv)
    assert code == 0
    assert "libsodium.so.26, needed by " in out
    assert "nixpkgs has it in libsodium" in out


def test_verify_has_a_note_for_it(world: World, nixpatch: Run, plugin: str) -> None:
    assert nixpatch(world.venv)[0] == 0
    for options in ((), ("--load",)):
        code, out, _ = nixpatch("verify", *options, world.venv)
        assert code == 0
        assert "note: optional parts that do not load: 1; -v lists them" in out


def test_strict_counts_it(world: World, nixpatch: Run, plugin: str) -> None:
    code, out, _ = nixpatch("--strict", world.venv)

    assert code == 1
    assert "Not found" in out
    assert f"To add it: nixpatch --nixpkgs nixpkgs {world.venv}" in out
    for command in ("plan", "missing"):
        assert nixpatch(command, "--strict", world.venv)[0] == 1
        assert nixpatch(command, world.venv)[0] == 0


@pytest.mark.parametrize(
    "text",
    [
        'import ctypes\nctypes.CDLL("pkg/plugins/libdriver.so")\n',
        "LIBRARY = 'libdriver'\n",
        'import glob\nglob.glob("plugins/lib*.so")\n',
    ],
)
def test_a_plugin_that_a_module_names_counts(world: World, nixpatch: Run, plugin: str, text: str) -> None:
    source(world, text, plugin)

    code, out, _ = nixpatch(world.venv)

    assert code == 1
    assert "libsodium.so.26, needed by " in out


def test_a_library_that_the_module_needs_counts_and_says_what_it_stops(
    world: World, nixpatch: Run, plugin: str
) -> None:
    module = os.path.join(world.site, "pkg", "_drive.so")
    shared(
        "extension.c",
        module,
        "-DPyInit__ext=PyInit__drive",
        "-Wl,--no-as-needed",
        plugin,
        "-Wl,-rpath,$ORIGIN/plugins",
        "-Wl,--unresolved-symbols=ignore-all",
    )
    world.write_record(record_row(module, world.site), record_row(plugin, world.site))

    code, out, _ = nixpatch(world.venv)

    assert code == 1
    assert "libdriver.so (stops pkg/_drive.so): nixpkgs has it in libsodium" in out
    code, out, _ = nixpatch("plan", "--json", world.venv)
    (file,) = (file for file in json.loads(out)["trees"][0]["files"] if file["path"] == plugin)
    assert file["stops"] == [module]


def test_a_file_of_no_dist_counts(world: World, nixpatch: Run, plugin: str) -> None:
    world.write_record()

    assert nixpatch(world.venv)[0] == 1
