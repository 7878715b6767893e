"""What other tools do to an edited file afterwards leaves it as whole as they leave an untouched one."""

import os
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from nixpatch.elf import read
from nixpatch.model import ElfEdit, ElfFacts
from support.programs import RICH, Workshop, edit_file, interpreter_alias, load, need, run

pytestmark = pytest.mark.gcc

TOOLS = {
    "strip -S": ("strip", "-S"),
    "strip --strip-unneeded": ("strip", "--strip-unneeded"),
    "strip twice": ("strip", "-S"),
    "objcopy": ("objcopy",),
    "llvm-strip": ("llvm-strip", "-S"),
    "eu-strip": ("eu-strip",),
    "patchelf": ("patchelf", "--shrink-rpath"),
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("flags", [(), ("-Wl,--spare-dynamic-tags=1",), ("-no-pie", "-fno-pie")])
def test_program_runs_after(workshop: Workshop, tmp_path: Path, tool: str, flags: tuple[str, ...]) -> None:
    command = TOOLS[tool]
    need(command[0])
    program = workshop.program(*RICH, "-g", *flags)
    before = read(program)
    assert isinstance(before, ElfFacts)
    assert before.original.interp
    out = os.path.join(tmp_path, "out")
    alias = interpreter_alias(str(tmp_path), before.original.interp, 200)
    edit_file(program, out, ElfEdit(f"{workshop.there}:/nowhere", interp=alias))
    for _ in range(1 + (tool == "strip twice")):
        subprocess.run([*command, out], check=True, capture_output=True)
    assert run(out) == "42 phdr"
    after = read(out)
    assert isinstance(after, ElfFacts)
    assert after.current.interp == alias
    assert (after.current.search_path or "").startswith(workshop.there)


@pytest.mark.parametrize("tool", TOOLS)
def test_library_loads_after(workshop: Workshop, tmp_path: Path, tool: str) -> None:
    command = TOOLS[tool]
    need(command[0])
    out = os.path.join(tmp_path, "out.so")
    edit_file(workshop.library(*RICH, "-g"), out, ElfEdit(workshop.there))
    for _ in range(1 + (tool == "strip twice")):
        subprocess.run([*command, out], check=True, capture_output=True)
    assert load(out) == "42"


def test_linker_takes_an_edited_library(workshop: Workshop, tmp_path: Path) -> None:
    out = os.path.join(tmp_path, "libuse.so")
    edit_file(workshop.library(*RICH), out, ElfEdit(workshop.there))
    program = os.path.join(tmp_path, "program")
    command = [need("gcc"), "-o", program, workshop.source("program.c"), out, f"-Wl,-rpath,{tmp_path}"]
    subprocess.run(command, check=True)
    assert run(program) == "42 phdr"


def test_readelf_has_nothing_to_complain_about(workshop: Workshop, tmp_path: Path) -> None:
    readelf = need("readelf")
    for index, flags in enumerate([(), ("-Wl,--spare-dynamic-tags=1",), ("-fuse-ld=lld",)]):
        program = workshop.program(*RICH, "-g", *flags)
        out = os.path.join(tmp_path, str(index))
        edit_file(program, out, ElfEdit("/new", interp="/" + "i" * 300))
        done = subprocess.run([readelf, "-aW", out], capture_output=True, text=True, check=True)
        assert done.stderr == ""


def test_symbols_as_an_independent_reader_sees_them(workshop: Workshop, tmp_path: Path) -> None:
    out = os.path.join(tmp_path, "out")
    edit_file(workshop.program(*RICH, "-g"), out, ElfEdit("/new"))
    assert symbols(out) == symbols(workshop.program(*RICH, "-g"))


def symbols(path: str) -> list[tuple[str, int]]:
    with open(path, "rb") as file:
        elf = ELFFile(file)
        section = elf.get_section_by_name(".dynsym")
        assert isinstance(section, SymbolTableSection)
        return [(symbol.name, symbol["st_value"]) for symbol in section.iter_symbols()]
