"""Wheels for another machine: reported unless they bring something for the target, too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nixpatch.installed.scan import scan
from nixpatch.model import Libc, Machine, Target
from nixpatch.operations.foreign_dists import foreign_dists
from support.installed_trees import ELF, SITE, dist, write
from support.target_world import AARCH64, X86_64, World

I686 = Machine(3, 32, "little")


@pytest.fixture
def target(tmp_path: Path) -> Target:
    world = World(os.path.realpath(tmp_path))
    python = world.python("python/bin/python3.11", world.glibc("glibc/lib"))
    return world.find(world.out(), python)


def errors(
    tmp_path: Path, target: Target, machines: dict[str, Machine], *tags: str, musl: tuple[str, ...] = ()
) -> list[str]:
    out = os.path.realpath(tmp_path / "tree")
    info = dist(os.path.join(out, SITE), "pkg", {f"pkg/{name}.so": ELF for name in machines})
    if tags:
        write(os.path.join(info, "WHEEL"), "".join(f"Tag: cp311-cp311-{tag}\n" for tag in tags).encode())
    paths = {os.path.join(out, SITE, f"pkg/{name}.so"): machine for name, machine in machines.items()}
    libcs = {os.path.join(out, SITE, f"pkg/{name}.so"): Libc.MUSL for name in musl}
    return [finding.text for finding in foreign_dists(scan(out), paths, target, libcs)]


@pytest.mark.parametrize(
    "tags", [(), ("manylinux_2_28_aarch64",), ("manylinux2014_aarch64", "linux_aarch64")]
)
def test_a_wheel_for_another_machine(tmp_path: Path, target: Target, tags: tuple[str, ...]) -> None:
    (text,) = errors(tmp_path, target, {"a": AARCH64, "b": AARCH64}, *tags)

    assert text == ("pkg 1.0 was built for aarch64, the target is x86_64: install the build for that machine")


@pytest.mark.parametrize("tags", [(), ("musllinux_1_2_x86_64",), ("linux_x86_64",)])
def test_a_wheel_for_another_libc(tmp_path: Path, target: Target, tags: tuple[str, ...]) -> None:
    (text,) = errors(tmp_path, target, {"a": X86_64, "b": X86_64}, *tags, musl=("a", "b"))

    assert text == "pkg 1.0 was built for musl, the target uses glibc: install its manylinux wheel"


@pytest.mark.parametrize(
    ("musl", "tags"),
    [
        (("a",), ("musllinux_1_2_x86_64",)),  # the other one is static, or for every libc
        (("a", "b"), ("any",)),  # for a container, in a wheel for every machine
        (("a", "b"), ("musllinux_1_2_x86_64", "manylinux_2_28_x86_64")),
    ],
)
def test_files_for_another_libc_in_a_wheel_for_the_target(
    tmp_path: Path, target: Target, musl: tuple[str, ...], tags: tuple[str, ...]
) -> None:
    assert errors(tmp_path, target, {"a": X86_64, "b": X86_64}, *tags, musl=musl) == []


@pytest.mark.parametrize(
    ("machines", "tags"),
    [
        ({"attach_x86_64": X86_64, "attach_i686": I686}, ("manylinux_2_17_x86_64",)),
        ({"firmware": AARCH64}, ("any",)),  # for a device, in a wheel for every machine
        ({"kernel": Machine(224, 64, "little")}, ("manylinux_2_28_x86_64",)),  # for a graphics card
        ({}, ("manylinux_2_28_aarch64",)),
    ],
)
def test_files_for_other_machines_in_a_wheel_for_the_target(
    tmp_path: Path, target: Target, machines: dict[str, Machine], tags: tuple[str, ...]
) -> None:
    assert errors(tmp_path, target, machines, *tags) == []


def test_a_directory_of_programs_for_another_machine(tmp_path: Path, target: Target) -> None:
    path = write(tmp_path / "plain/tool", mode=0o755)
    tree = scan(str(tmp_path / "plain"))

    (finding,) = foreign_dists(tree, {os.path.realpath(path): AARCH64}, target)

    assert finding.text == "was built for aarch64, the target is x86_64: nothing in it can be linked"
    assert list(foreign_dists(tree, {os.path.realpath(path): X86_64}, target)) == []
