"""The target of an output of a build, which has neither a Python nor a script that names one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nixpatch.installed.provenance import NAME, PatchedFile, Provenance, dump
from nixpatch.installed.scan import scan
from nixpatch.model import Target
from nixpatch.operations.target import target_of_output
from support.installed_trees import SITE, dist, write
from support.target_world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(os.path.realpath(tmp_path))


def find(world: World, out: str, path_env: str | None = None) -> Target:
    return target_of_output(scan(out), None, path_env, world.read, world.path("store"))


def patched(interp: str | None, **needs: str) -> bytes:
    entry = PatchedFile("sha256=" + "0" * 64, "sha256=" + "0" * 64, None, None, interp, needs)
    return dump(Provenance("nixpatch 0", {"../../../bin/tool": entry}))


def test_its_provenance_names_the_loader(world: World) -> None:
    loader = world.glibc("store/glibc/lib")
    out = world.path("store/out")
    info = dist(os.path.join(out, SITE), "pkg", {})
    write(os.path.join(info, NAME), patched(loader))
    world.python("usr/bin/python3.11", world.glibc("usr/lib", "2.41"))

    target = find(world, out, world.path("usr/bin"))

    assert (target.loader, target.found_by, target.has_python) == (loader, "provenance", False)
    assert target.libc_version == (2, 36)


def test_nixpkgs_names_the_python_of_its_packages(world: World) -> None:
    python = world.python("store/python/bin/python3.11", world.glibc("store/glibc/lib"))
    out = world.path("store/out")
    dist(os.path.join(out, SITE), "pkg", {})
    inputs = f"{world.path('store/typer')} {world.path('store/python')} \n"
    write(os.path.join(out, "nix-support/propagated-build-inputs"), inputs.encode())

    target = find(world, out)

    assert (target.python, target.found_by) == (python, "the tree")


def test_a_tree_outside_the_store_is_for_the_python_on_path(world: World) -> None:
    loader = world.glibc("store/glibc/lib")
    info = dist(os.path.join(world.path("home"), SITE), "pkg", {})
    write(os.path.join(info, NAME), patched(loader))
    python = world.python("usr/bin/python3.11", world.glibc("usr/lib", "2.41"))

    target = find(world, world.path("home"), world.path("usr/bin"))

    assert (target.python, target.found_by) == (python, "PATH")
