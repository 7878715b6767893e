"""One row a machine: what a new architecture needs stands in ``arch.py`` and nowhere else."""

import ast
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from elftools.elf import enums

import nixpatch
from nixpatch import elf
from nixpatch.arch import ARCHES, Arch, arch_of
from nixpatch.model import ElfFacts, Libc
from nixpatch.policy import default_policy, packaged_table

NAMES = frozenset(arch.name for arch in ARCHES)
SOURCES = os.path.dirname(nixpatch.__file__)


def _libc_of(path: str) -> Libc | None:
    return default_policy().libc_of(os.path.basename(path))


def test_no_two_rows_are_the_same_machine() -> None:
    identities = Counter((arch.e_machine, arch.bits, arch.byteorder) for arch in ARCHES)
    assert identities.most_common(1)[0][1] == 1
    assert len(NAMES) == len(ARCHES)


def test_the_machine_of_this_process_has_its_row() -> None:
    facts = elf.read(os.path.realpath(sys.executable), payload_ok=True)
    assert isinstance(facts, ElfFacts)
    assert facts.machine.arch in ARCHES
    if platform.architecture()[0] == "64bit":
        assert facts.machine.name == platform.machine()


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_a_row_is_complete_enough_to_work_with(arch: Arch) -> None:
    assert arch_of(arch.e_machine, arch.bits, arch.byteorder) is arch
    assert arch.max_page in {0x1000, 0x10000}
    assert arch.loader is None or (os.path.isabs(arch.loader) and _libc_of(arch.loader) is Libc.GLIBC)
    assert all(
        arch.manylinux_since is not None and minor >= arch.manylinux_since for minor in arch.auditwheel
    )


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_the_number_of_the_relative_relocation_is_the_one_of_pyelftools(arch: Arch) -> None:
    tables = (value for name, value in vars(enums).items() if name.startswith("ENUM_RELOC_TYPE_"))
    numbers = {name: number for table in tables for name, number in table.items()}
    names = {3: "386", 21: "PPC64", 22: "390", 40: "ARM", 62: "X86_64", 183: "AARCH64", 258: "LARCH"}
    name = f"R_{names.get(arch.e_machine)}_RELATIVE"
    assert name not in numbers or arch.relative == numbers[name]
    assert (arch.relative is None) == (arch.refused is not None)


def test_names_in_nixpkgs_and_debian_where_they_are_not_the_machine_s_own() -> None:
    rows = {arch.name: (arch.nix_system, arch.multiarch) for arch in ARCHES}
    assert rows["x86_64"] == ("x86_64-linux", "x86_64-linux-gnu")
    assert rows["i686"] == ("i686-linux", "i386-linux-gnu")
    assert rows["armv7l"] == ("armv7l-linux", "arm-linux-gnueabihf")
    assert rows["ppc64le"] == ("powerpc64le-linux", "powerpc64le-linux-gnu")
    assert rows["mips64el"] == ("mips64el-linux", "mips64el-linux-gnuabi64")


def test_a_machine_without_a_row_gets_the_careful_answers() -> None:
    unknown = arch_of(190, 64, "little")
    assert unknown.name == "machine 190"
    assert (unknown.max_page, unknown.loader, unknown.manylinux_since) == (0x10000, None, None)
    assert unknown.refused is None


def test_the_manylinux_policies_name_machines_that_have_a_row() -> None:
    data = packaged_table("manylinux.toml")
    named = {name for machines in data["only"].values() for name in machines}
    named |= {
        key.removeprefix("symbols_") for row in data["policy"] for key in row if key.startswith("symbols_")
    }
    assert named <= NAMES


def _keys(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            yield from filter(None, node.keys)
        elif isinstance(node, ast.Set | ast.List):
            yield from node.elts


def test_no_other_module_has_a_table_of_machines() -> None:
    tables = []
    for directory, _, names in os.walk(SOURCES):
        for name in names:
            path = os.path.join(directory, name)
            if name.endswith(".py") and name != "arch.py":
                with open(path, encoding="utf-8") as file:
                    keys = [
                        key.value for key in _keys(ast.parse(file.read())) if isinstance(key, ast.Constant)
                    ]
                tables += [(path, key) for key in keys if key in NAMES]
    assert tables == []


@pytest.mark.parametrize(
    ("minor", "machines"),
    [
        (5, "i686 x86_64"),
        (17, "aarch64 armv7l i686 ppc64 ppc64le s390x x86_64"),
        (28, "aarch64 armv7l i686 ppc64le s390x x86_64"),
        (31, "aarch64 armv7l i686 ppc64le riscv64 s390x x86_64"),
        (41, "aarch64 armv7l i686 loongarch64 ppc64le riscv64 s390x x86_64"),
    ],
)
def test_machines_of_a_policy_are_those_of_auditwheel(minor: int, machines: str) -> None:
    assert sorted(arch.name for arch in ARCHES if minor in arch.auditwheel) == machines.split()
