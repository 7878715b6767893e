"""nixpatch elf --replace-needed: another name in DT_NEEDED and in the version needs, and the way back."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nixpatch import elf
from nixpatch.model import ElfFacts
from support.programs import RICH, Workshop, content, copy, load, need
from support.world import Run as Elf

pytestmark = pytest.mark.gcc

OLD, NEW = "libanswer.so", "libanswer-0badf00d.so.1"


@pytest.fixture
def source(workshop: Workshop) -> str:
    return workshop.library(*RICH, "-Wl,-rpath,$ORIGIN")


@pytest.fixture
def library(source: str, tmp_path: Path) -> str:
    return copy(source, os.path.join(tmp_path, "libuse.so"))


@pytest.fixture
def renamed(workshop: Workshop, tmp_path: Path) -> str:
    """The needed library beside it, under the new name only."""
    to = os.path.join(tmp_path, NEW)
    shutil.copy(workshop.answer, to)
    subprocess.run([need("patchelf"), "--set-soname", NEW, to], check=True)
    return to


def version_needs(path: str) -> dict[str, tuple[str, ...]]:
    facts = elf.read(path)
    assert isinstance(facts, ElfFacts)
    return {one.soname: one.versions for one in facts.version_needs}


def test_it_loads_by_the_new_name_and_by_the_old_one_again(
    library: str, source: str, renamed: str, elf_command: Elf
) -> None:
    before = version_needs(library)
    assert elf_command("--replace-needed", OLD, NEW, library) == (0, "", "")
    assert load(library) == "42"
    assert version_needs(library)[NEW] == before[OLD]
    assert OLD not in version_needs(library)
    lines = elf_command(library)[1].splitlines()
    assert f"needed: {NEW}" in lines
    assert f"original needed: {OLD}" in lines
    assert elf_command("--restore", library)[0] == 0
    assert content(library) == content(source)


def test_the_old_name_again_is_the_old_file(library: str, source: str, elf_command: Elf) -> None:
    assert elf_command("--replace-needed", OLD, "libother.so", library)[0] == 0
    assert elf_command("--replace-needed", "libother.so", NEW, library)[0] == 0
    assert NEW in elf_command("--print-needed", library)[1].splitlines()
    assert elf_command("--replace-needed", NEW, OLD, library)[0] == 0
    assert content(library) == content(source)


@pytest.mark.parametrize(
    "pairs",
    [
        ((OLD, NEW), ("libc.so.6", "libd.so.7")),
        ((OLD, "libc.so.6"), ("libc.so.6", OLD)),
        ((OLD, "libfirst.so"), (OLD, NEW)),
        ((OLD, NEW), (NEW, "libnever.so")),
        (("libnobody.so", "libx.so"), (OLD, NEW)),
    ],
)
def test_several_names_at_once_as_patchelf_does(
    library: str, source: str, tmp_path: Path, elf_command: Elf, pairs: tuple[tuple[str, str], ...]
) -> None:
    theirs = copy(source, os.path.join(tmp_path, "theirs.so"))
    flags = [word for pair in pairs for word in ("--replace-needed", *pair)]
    subprocess.run([need("patchelf"), *flags, theirs], check=True)
    assert elf_command(*flags, library) == (0, "", "")
    assert elf_command("--print-needed", library)[1] == elf_command("--print-needed", theirs)[1]
    assert version_needs(library) == version_needs(theirs)


def test_other_edits_keep_the_name(library: str, renamed: str, elf_command: Elf) -> None:
    assert elf_command("--replace-needed", OLD, NEW, library)[0] == 0
    assert elf_command("--add-rpath", "/more", library)[0] == 0
    assert NEW in elf_command("--print-needed", library)[1].splitlines()
    assert load(library) == "42"
    assert elf_command("--remove-rpath", "--replace-needed", NEW, "libz.so", library)[0] == 0
    out = elf_command("--print-rpath", "--print-needed", library)[1].splitlines()
    assert out[0] == ""
    assert "libz.so" in out


def test_output_leaves_the_file_alone(
    library: str, source: str, renamed: str, tmp_path: Path, elf_command: Elf
) -> None:
    out = os.path.join(tmp_path, "out.so")
    assert elf_command("--replace-needed", OLD, NEW, "--output", out, library) == (0, "", "")
    assert content(library) == content(source)
    assert load(out) == "42"


def test_what_it_does_not_need_stays_as_with_patchelf(library: str, source: str, elf_command: Elf) -> None:
    assert elf_command("--replace-needed", "libnobody.so", NEW, library) == (0, "", "")
    assert content(library) == content(source)


def test_the_needs_are_those_that_patchelf_writes(library: str, tmp_path: Path, elf_command: Elf) -> None:
    theirs = copy(library, os.path.join(tmp_path, "theirs.so"))
    subprocess.run([need("patchelf"), "--replace-needed", OLD, NEW, theirs], check=True)
    assert elf_command("--replace-needed", OLD, NEW, library)[0] == 0
    ours = elf_command("--print-needed", library)[1]
    assert ours == elf_command("--print-needed", theirs)[1]
    assert version_needs(library) == version_needs(theirs)


def test_two_values_and_no_restore(library: str, elf_command: Elf) -> None:
    assert elf_command("--restore", "--replace-needed", OLD, NEW, library)[0] == 2
    assert elf_command("--replace-needed", OLD)[0] == 2
    assert elf_command("--replace-needed", OLD, "", library)[0] == 2
