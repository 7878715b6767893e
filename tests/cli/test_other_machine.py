"""A tree for another machine: patched here with that machine's libraries, and nothing of it is run."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from nixpatch import elf
from nixpatch.model import ElfFacts
from support.world import FIXTURES, HASH, Run, World, shared

pytestmark = [pytest.mark.cross, pytest.mark.gcc]

ROOT = "/usr/aarch64-linux-gnu"


def cross(source: str, output: str, *options: str) -> str:
    """Compile one of the fixtures for aarch64."""
    for tool in ("aarch64-linux-gnu-gcc", "qemu-aarch64-static"):
        if shutil.which(tool) is None:
            pytest.skip(f"not installed: {tool}")
    os.makedirs(os.path.dirname(output), exist_ok=True)
    command = ["aarch64-linux-gnu-gcc", "-o", output, os.path.join(FIXTURES, source), *options]
    subprocess.run(command, check=True, capture_output=True)
    return output


def test_an_aarch64_tree_gets_aarch64_libraries(world: World, nixpatch: Run) -> None:
    """The store has the same library for this machine too, in a package that sorts first."""
    arm = os.path.join(world.store, f"{HASH[::-1]}-answer-1.0", "lib")
    library = cross(
        "library.c", os.path.join(arm, "libanswer.so.1"), "-shared", "-fPIC", "-Wl,-soname,libanswer.so.1"
    )
    tree = os.path.join(world.root, "tree")
    loader = f"-Wl,--dynamic-linker={ROOT}/lib/ld-linux-aarch64.so.1"
    python = cross("library.c", os.path.join(world.root, "python3"), "-DMAIN", loader)
    program = cross("program.c", os.path.join(tree, "bin", "tool"), library)
    cross("extension.c", os.path.join(tree, "lib", "ext.so"), "-shared", "-fPIC", library)
    stranger = shared("extension.c", os.path.join(tree, "lib", "x86.so"), f"{world.library}/libanswer.so.1")
    with open(stranger, "rb") as file:
        before = file.read()

    code, out, _ = nixpatch(tree, "--python", python, "-v")

    assert code == 0, out
    assert "aarch64" in out
    for name in ("bin/tool", "lib/ext.so"):
        facts = elf.read(os.path.join(tree, name))
        assert isinstance(facts, ElfFacts)
        assert facts.current.search_path == arm
    assert "lib/x86.so: skipped, built for another machine (x86_64, the target is aarch64)" in out
    with open(stranger, "rb") as file:
        assert file.read() == before
    assert subprocess.run(["qemu-aarch64-static", "-L", ROOT, program], check=False).returncode == 42
    assert nixpatch("verify", tree, "--python", python)[0] == 0
