"""The same edit on files linked against musl, by musl's own loader."""

import os
import subprocess
from pathlib import Path

import pytest

from nixpatch.elf import read
from nixpatch.model import ElfEdit, ElfFacts
from support.programs import RICH, Workshop, content, edit_file, interpreter_alias, need, restore_file

pytestmark = pytest.mark.gcc


@pytest.fixture
def musl(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    need("musl-gcc")
    return Workshop(str(tmp_path_factory.mktemp("musl")), "musl-gcc")


def said(program: str, **environment: str) -> str:
    done = subprocess.run([program], capture_output=True, text=True, check=False, env=environment)
    return done.stdout.strip() if done.returncode == 0 else f"failed {done.returncode}"


def test_search_path_in_place_of_a_hint(musl: Workshop, tmp_path: Path) -> None:
    last = (f"-Wl,-T,{musl.source('code_last.ld')}", musl.source("code_last.c"))
    program = musl.program(*RICH, "-pie", "-fPIE", "-Wl,--spare-dynamic-tags=1", *last)
    out = os.path.join(tmp_path, "out")
    result = edit_file(program, out, ElfEdit(musl.there))
    assert "count of relative relocations" in str(result.notes)
    assert said(program).startswith("failed")
    assert said(out).startswith("42")


@pytest.mark.parametrize("kind", [("-pie", "-fPIE"), ("-no-pie", "-fno-pie")], ids=["pie", "no-pie"])
def test_program_finds_its_library_and_goes_back(
    musl: Workshop, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    program = musl.program(*RICH, *kind)
    facts = read(program)
    assert isinstance(facts, ElfFacts)
    assert facts.original.interp
    assert "ld-musl" in facts.original.interp
    expected = said(program, LD_LIBRARY_PATH=musl.there)
    assert expected.startswith("42")
    assert said(program).startswith("failed")
    out, back = os.path.join(tmp_path, "out"), os.path.join(tmp_path, "back")

    loader = interpreter_alias(str(tmp_path), facts.original.interp, 200)
    edit_file(program, out, ElfEdit(musl.there, interp=loader))

    assert said(out) == expected
    restore_file(out, back)
    assert content(back) == content(program)


def test_library_of_musl_finds_its_library(musl: Workshop, tmp_path: Path) -> None:
    library = musl.library(*RICH)
    out = os.path.join(tmp_path, "libuse.so")

    edit_file(library, out, ElfEdit(musl.there))

    program = musl.gcc("main", musl.source("program.c"), out, f"-Wl,-rpath,{tmp_path}")
    assert said(program).startswith("42")
