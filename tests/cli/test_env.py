"""nixpatch env: code that opens a library by bare name, in real processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.world import Run, World, shared

pytestmark = pytest.mark.gcc

OPEN = "import ctypes; print(ctypes.CDLL('libanswer.so.1'))\n"


@pytest.fixture
def module(world: World) -> str:
    """A module that opens the store's library, libc, a driver, one of the tree's, and one that is gone."""
    path = os.path.join(world.site, "pkg", "opens.py")
    names = ("libanswer.so.1", "libc.so.6", "libcuda.so.1", "_ext.so", "libgone.so.9")
    with open(path, "w", encoding="utf-8") as file:
        file.write("import ctypes\n" + "".join(f"ctypes.CDLL({name!r})\n" for name in names))
    # Beside it lies what must not override anything.
    shared("library.c", os.path.join(world.library, "libother.so.1"), "-Wl,-soname,libother.so.1")
    return path


def test_only_what_is_needed_is_in_the_directory(world: World, nixpatch: Run, module: str) -> None:
    code, out, err = nixpatch("env", "--print", "-v", world.venv)

    directory = os.path.join(world.venv, ".nixpatch-env")
    assert code == 1
    assert out == f"{directory}:/run/opengl-driver/lib\n"
    assert os.listdir(directory) == ["libanswer.so.1"]
    assert os.readlink(f"{directory}/libanswer.so.1") == f"{world.library}/libanswer.so.1"
    where = os.path.relpath(module, world.venv)
    assert f"libanswer.so.1: {world.library}/libanswer.so.1, opened by {where}:2" in err
    assert f"libc.so.6: libc, opened by {where}:3" in err
    assert f"libcuda.so.1: driver, opened by {where}:4" in err
    assert f"_ext.so: in the tree, opened by {where}:5" in err
    assert f"libgone.so.9: not found, opened by {where}:6" in err
    assert "every child process inherits it" in err


def test_a_command_finds_it(world: World, nixpatch: Run, module: str) -> None:
    python = os.path.join(world.venv, "bin", "python")
    bare = subprocess.run([python, "-c", OPEN], capture_output=True, text=True, check=False)
    assert "libanswer.so.1: cannot open shared object file" in bare.stderr

    command = [sys.executable, "-m", "nixpatch", "env", "--tree", world.venv, "--", python, "-c", OPEN]
    environment = {**os.environ, "NIX_STORE_DIR": world.store, "LD_LIBRARY_PATH": "/before"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "libanswer.so.1" in done.stdout
    assert "every child process inherits it" in done.stderr
    show = [*command[:-3], "sh", "-c", "echo $LD_LIBRARY_PATH; exit 7"]
    done = subprocess.run(show, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.strip().split(":")[0], done.returncode) == (f"{world.venv}/.nixpatch-env", 7)
    assert done.stdout.endswith(":/before\n")


def test_what_is_no_longer_needed_goes(world: World, nixpatch: Run, module: str) -> None:
    nixpatch("env", "--print", world.venv)
    os.unlink(module)

    assert nixpatch("env", "--print", world.venv) == (0, "\n", "")
    assert not os.path.lexists(os.path.join(world.venv, ".nixpatch-env"))


def test_find_library_gets_the_name_that_a_linker_looks_for(world: World, nixpatch: Run, module: str) -> None:
    with open(module, "w", encoding="utf-8") as file:
        file.write("from ctypes.util import find_library\nfind_library('answer'); find_library('c')\n")

    code, out, _ = nixpatch("env", "--print", world.venv)

    assert code == 0
    assert sorted(os.listdir(out.strip())) == ["libanswer.so", "libanswer.so.1"]


def test_wrong_words(world: World, nixpatch: Run) -> None:
    assert nixpatch("env")[0] == 2
    assert nixpatch("env", "--print", world.venv, "more")[0] == 2
    assert nixpatch("env", "--tree", world.venv, "--", "/no/such/program")[0] == 3


def test_a_link_in_the_place_of_the_directory_is_not_followed(
    world: World, nixpatch: Run, module: str
) -> None:
    outside = os.path.join(world.root, "outside")
    os.makedirs(outside)
    os.symlink("/nowhere", os.path.join(outside, "libold.so.1"))
    os.symlink(outside, os.path.join(world.venv, ".nixpatch-env"))

    code, _, err = nixpatch("env", "--print", world.venv)

    assert code == 3
    assert "a link has taken the place of a directory" in err
    assert os.listdir(outside) == ["libold.so.1"]


def test_a_computed_name_is_reached_by_the_directories_of_lib(
    world: World, nixpatch: Run, module: str
) -> None:
    with open(module, "w", encoding="utf-8") as file:
        file.write("import ctypes\n\ndef load():\n    ctypes.CDLL(input())\n")

    code, out, err = nixpatch("env", "--print", "-v", "--lib", world.library, world.venv)

    assert code == 0
    assert sorted(os.listdir(out.strip())) == ["libanswer.so.1", "libother.so.1"]
    where = os.path.relpath(module, world.venv)
    assert f"names that the code computes: name their directories by --lib; opened by {where}:4" in err
