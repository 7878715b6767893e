"""Linkers take an edited library as they take its original, and inspectors find no more to complain of."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from nixpatch.elf import read
from nixpatch.model import ElfEdit, ElfFacts
from support.programs import RICH, Workshop, edit_file, need, run

pytestmark = pytest.mark.gcc

LINKERS = {"bfd": "ld.bfd", "gold": "ld.gold", "lld": "ld.lld"}
LIBRARIES = {
    "plain": (),
    "rich": (*RICH, "-g"),
    "full dynamic section": (*RICH, "-g", "-Wl,--spare-dynamic-tags=1"),
    "made by gold": (*RICH, "-fuse-ld=gold"),
    "made by lld": (*RICH, "-fuse-ld=lld"),
    "64 KiB pages": (*RICH, "-Wl,-z,max-page-size=0x10000"),
    "relr": (*RICH, "-Wl,-z,pack-relative-relocs"),
}
NEW = "/some/other/directory/that/is/longer"


def needed_linkers(flags: tuple[str, ...]) -> None:
    for flag in flags:
        if flag.startswith("-fuse-ld="):
            need(LINKERS[flag.removeprefix("-fuse-ld=")])


@pytest.fixture(params=LIBRARIES)
def flags(request: pytest.FixtureRequest) -> tuple[str, ...]:
    chosen = LIBRARIES[request.param]
    needed_linkers(chosen)
    return chosen


def link(workshop: Workshop, linker: str, library: str, to: str) -> list[str]:
    """Link a program with a library and say what the linker said, without the place of its files."""
    directory = os.path.dirname(library)
    command = [need("gcc"), f"-fuse-ld={linker}", "-o", to, workshop.source("program.c")]
    command += [f"-L{directory}", "-luse", f"-Wl,-rpath,{directory}", f"-Wl,-rpath-link,{workshop.there}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return sorted(line.replace(directory, "").replace(to, "") for line in done.stderr.splitlines())


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("stripped", [False, True], ids=["", "stripped"])
def test_program_links_with_an_edited_library(
    workshop: Workshop, tmp_path: Path, flags: tuple[str, ...], linker: str, stripped: bool
) -> None:
    need(LINKERS[linker])
    original = workshop.library(*flags)
    os.mkdir(os.path.join(tmp_path, "lib"))
    out = os.path.join(tmp_path, "lib", "libuse.so")
    edit_file(original, out, ElfEdit(workshop.there))
    if stripped:
        subprocess.run([need("strip"), "--strip-unneeded", out], check=True)
    program = os.path.join(tmp_path, "program")
    said = link(workshop, linker, out, program)
    assert run(program) == "42 phdr"
    assert said == link(workshop, linker, original, os.path.join(tmp_path, "before"))


@pytest.mark.parametrize("linker", LINKERS)
def test_symbol_versions_are_bound_as_before(workshop: Workshop, tmp_path: Path, linker: str) -> None:
    """The library that defines the versions is edited, too."""
    need(LINKERS[linker])
    out = os.path.join(tmp_path, "libanswer.so")
    edit_file(workshop.answer, out, ElfEdit(NEW))
    program = os.path.join(tmp_path, "program")
    sources = [workshop.source("program.c"), workshop.source("use.c")]
    command = [need("gcc"), f"-fuse-ld={linker}", "-o", program, *sources, out, f"-Wl,-rpath,{tmp_path}"]
    subprocess.run(command, check=True)
    assert run(program) == "42 phdr"
    found = read(program)
    assert isinstance(found, ElfFacts)
    assert ("ANSWER_1",) in [
        need_.versions for need_ in found.version_needs if need_.soname == "libanswer.so"
    ]


INSPECTORS = {
    "readelf": ("readelf", "-aW"),
    "readelf --debug-dump": ("readelf", "-w"),
    "objdump headers": ("objdump", "-x"),
    "objdump contents": ("objdump", "-drRtT"),
    "nm": ("nm", "-D", "--with-symbol-versions"),
    "eu-readelf": ("eu-readelf", "-a"),
    "eu-elflint": ("eu-elflint", "--gnu-ld"),
    "gdb": ("gdb", "-batch", "-nx", "-ex", "info line use", "-ex", "disassemble use", "-ex", "ptype answer"),
}
FILES = {
    **LIBRARIES,
    "program": (*RICH, "-g"),
    "program with a full dynamic section": (*RICH, "-g", "-Wl,--spare-dynamic-tags=1"),
    "program without PIE": (*RICH, "-g", "-no-pie", "-fno-pie"),
    "program made by lld": (*RICH, "-g", "-fuse-ld=lld"),
    "stripped program": (*RICH, "-s"),
}
# The symbol table keeps the old address of a dynamic section that had to move; nothing looks it up there.
ACCEPTED = re.compile(r"_DYNAMIC")


def complaints(command: tuple[str, ...], path: str) -> set[str]:
    done = subprocess.run([*command, path], capture_output=True, check=False)
    text = done.stderr + (done.stdout if "elflint" in command[0] else b"")
    lines = text.decode(errors="replace").replace(path, "FILE").splitlines()
    return {line for line in lines if line != "No errors"}


@pytest.mark.parametrize("tool", INSPECTORS)
@pytest.mark.parametrize("kind", FILES)
def test_inspectors_have_no_new_complaints(workshop: Workshop, tmp_path: Path, kind: str, tool: str) -> None:
    command = INSPECTORS[tool]
    need(command[0])
    needed_linkers(FILES[kind])
    program = "program" in kind
    source = workshop.program(*FILES[kind]) if program else workshop.library(*FILES[kind])
    out = os.path.join(tmp_path, os.path.basename(source))
    result = edit_file(source, out, ElfEdit(NEW, interp="/interpreter" * 10 if program else None))
    new = complaints(command, out) - complaints(command, source)
    if "dynamic section moved" in result.notes:
        new = {line for line in new if not ACCEPTED.search(line)}
    assert new == set()


def test_debugger_stops_in_an_edited_program_and_its_library(workshop: Workshop, tmp_path: Path) -> None:
    out = os.path.join(tmp_path, "program")
    edit_file(workshop.program(*RICH, "-g", "-Wl,--spare-dynamic-tags=1"), out, ElfEdit(workshop.there))
    orders = [
        "set confirm off",
        "break use",
        "run",
        "backtrace",
        "break answer",
        "continue",
        "info sharedlibrary",
    ]
    command = [need("gdb"), "-batch", "-nx", "-iex", "set debuginfod enabled off"]
    command += [word for order in orders for word in ("-ex", order)]
    done = subprocess.run([*command, out], capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("this machine forbids ptrace")
    assert re.search(r"Breakpoint 1, use \(\) at .*use\.c", done.stdout), done.stdout + done.stderr
    assert re.search(r"#1 .* main \(\) at .*program\.c", done.stdout)
    assert re.search(r"Breakpoint 2, .*answer", done.stdout)
    assert re.search(r"libanswer\.so", done.stdout)
