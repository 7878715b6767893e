"""The same code path on other machines: classes, byte orders and page sizes that this host has not."""

import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from nixpatch.elf import read
from nixpatch.elf.check_pair import shared_pages
from nixpatch.elf.headers import parse
from nixpatch.elf.image import Image
from nixpatch.elf.resolution_cache import obstacle
from nixpatch.elf.undo import open_views
from nixpatch.elf.writer import write_checked
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, ElfFacts, ManualEdit, Writer
from support.programs import RICH, Workshop, content, edit_file, interpreter_alias, need, restore_file, run

pytestmark = pytest.mark.cross


@dataclass(frozen=True)
class Cross:
    name: str
    triple: str
    qemu: str


MACHINES = [
    Cross("aarch64", "aarch64-linux-gnu", "qemu-aarch64-static"),
    Cross("armv7l", "arm-linux-gnueabihf", "qemu-arm-static"),
    Cross("i686", "i686-linux-gnu", "qemu-i386-static"),
    Cross("ppc64le", "powerpc64le-linux-gnu", "qemu-ppc64le-static"),
    Cross("s390x", "s390x-linux-gnu", "qemu-s390x-static"),
    Cross("riscv64", "riscv64-linux-gnu", "qemu-riscv64-static"),
]


@pytest.fixture(params=MACHINES, ids=lambda cross: cross.name)
def cross(request: pytest.FixtureRequest) -> Cross:
    found: Cross = request.param
    need(f"{found.triple}-gcc")
    need(found.qemu)
    return found


@pytest.fixture
def there(cross: Cross, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(str(tmp_path_factory.mktemp(cross.name)), f"{cross.triple}-gcc")


@pytest.mark.parametrize(
    "kind", [("-pie", "-fPIE"), ("-no-pie", "-fno-pie"), ("-pie", "-fPIE", "-Wl,--spare-dynamic-tags=1")]
)
def test_lief_edits_it_right_or_not_at_all(
    cross: Cross, there: Workshop, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    """Where GNU ld leaves no gap between segments (s390x, riscv64) there is no room for LIEF's headers."""
    program = there.program(*RICH, *kind)
    facts = read(program)
    assert isinstance(facts, ElfFacts)
    loader = f"/usr/{cross.triple}{facts.original.interp}"
    edit = ElfEdit(there.there, interp=interpreter_alias(str(tmp_path), loader, 200))
    out = os.path.join(tmp_path, "out")
    with open(program, "rb") as source, open(out, "x+b") as temp:
        try:
            written = write_checked(source.fileno(), temp.fileno(), edit, writer=Writer.LIEF)
        except FileRefused:
            assert cross.name in {"s390x", "riscv64"}
            return
        os.fchmod(temp.fileno(), 0o755)
    assert written.writer is Writer.LIEF
    assert run(out, runner=(need(cross.qemu), "-L", f"/usr/{cross.triple}")) == "42 phdr"
    assert pages_shared_in(out) == pages_shared_in(program)


def pages_shared_in(path: str) -> set[int]:
    """PT_LOADs that would overwrite another on a kernel with the largest pages; qemu runs with 4 KiB ones."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return shared_pages(parse(Image.of(fd)))
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", [("-pie", "-fPIE"), ("-no-pie", "-fno-pie")], ids=["pie", "non-pie"])
@pytest.mark.parametrize("shape", [(), ("-Wl,--spare-dynamic-tags=1",)], ids=["spare", "full"])
def test_program_of_another_machine(
    cross: Cross, there: Workshop, tmp_path: Path, kind: tuple[str, ...], shape: tuple[str, ...]
) -> None:
    program = there.program(*RICH, "-g", *kind, *shape)
    runner = (need(cross.qemu), "-L", f"/usr/{cross.triple}")
    before = read(program)
    assert isinstance(before, ElfFacts)
    assert before.machine.name == cross.name
    assert before.original.interp
    loader = f"/usr/{cross.triple}{before.original.interp}"
    alias = interpreter_alias(str(tmp_path), loader, 200)
    out, back = os.path.join(tmp_path, "out"), os.path.join(tmp_path, "back")
    edit_file(program, out, ElfEdit(there.there, interp=alias))
    assert run(program, runner=runner).startswith("failed")
    assert run(out, runner=runner) == "42 phdr"
    assert pages_shared_in(out) == pages_shared_in(program) == set()
    restore_file(out, back)
    assert content(back) == content(program)
    strip = shutil.which(f"{cross.triple}-strip")
    if strip:
        subprocess.run([strip, "--strip-unneeded", out], check=True)
        assert run(out, runner=runner) == "42 phdr"


def test_program_without_room_whose_last_segment_holds_code(
    cross: Cross, there: Workshop, tmp_path: Path
) -> None:
    """The count of relative relocations gives its place; ld.so of each machine does without it."""
    last = (f"-Wl,-T,{there.source('code_last.ld')}", there.source("code_last.c"))
    program = there.program(*RICH, "-pie", "-fPIE", "-Wl,--spare-dynamic-tags=1", *last)
    runner = (need(cross.qemu), "-L", f"/usr/{cross.triple}")
    out, back = os.path.join(tmp_path, "out"), os.path.join(tmp_path, "back")
    result = edit_file(program, out, ElfEdit(there.there))
    assert "count of relative relocations" in str(result.notes)
    assert run(program, runner=runner).startswith("failed")
    assert run(out, runner=runner) == "42 phdr"
    restore_file(out, back)
    assert content(back) == content(program)


def test_resolution_cache_on_another_machine(cross: Cross, there: Workshop, tmp_path: Path) -> None:
    """Where the notes of GNU properties are aligned to 4 bytes, all notes are in one PT_NOTE, which stays."""
    program = there.program(*RICH, "-g", "-Wl,--build-id")
    cache = (("libanswer.so", f"?/a:={there.answer}"),)
    with open_views(program) as views:
        if why := obstacle(views.original):
            assert (cross.name, "PT_GNU_PROPERTY" in why) == ("i686", True)
            return
    out, back = os.path.join(tmp_path, "out"), os.path.join(tmp_path, "back")
    edit_file(program, out, ElfEdit(f"/a:{there.there}", resolution_cache=cache))
    runner = (need(cross.qemu), "-L", f"/usr/{cross.triple}")
    assert run(out, runner=runner) == "42 phdr"
    with open(out, "rb") as stream:
        segments = (s for s in ELFFile(stream).iter_segments() if isinstance(s, NoteSegment))
        notes = {note["n_name"]: bytes(note["n_descdata"]) for s in segments for note in s.iter_notes()}
    assert notes["NixOS"] == f"libanswer.so\0?/a:={there.answer}\0\0".encode()
    restore_file(out, back)
    assert content(back) == content(program)
    subprocess.run([need(f"{cross.triple}-strip"), "--strip-unneeded", out], check=True)
    assert run(out, runner=runner) == "42 phdr"
    facts = read(out)
    assert isinstance(facts, ElfFacts)
    assert facts.current.resolution_cache == cache


def test_library_of_another_machine(cross: Cross, there: Workshop, tmp_path: Path) -> None:
    library = there.library(*RICH)
    out = os.path.join(tmp_path, "libuse.so")
    edit_file(library, out, ElfEdit(there.there))
    program = there.gcc(
        "with-library",
        there.source("program.c"),
        library,
        f"-Wl,-rpath,{tmp_path}",
        "-Wl,--allow-shlib-undefined",
    )
    runner = (need(cross.qemu), "-L", f"/usr/{cross.triple}")
    assert run(program, runner=runner) == "42 phdr"


@pytest.mark.parametrize("style", ["gnu", "sysv", "both"])
@pytest.mark.parametrize("kind", [("-pie", "-fPIE"), ("-no-pie", "-fno-pie")], ids=["pie", "non-pie"])
def test_every_edit_of_a_program_and_its_library(
    cross: Cross, there: Workshop, tmp_path: Path, kind: tuple[str, ...], style: str
) -> None:
    """Both get new names for the same symbols: ld.so of the machine finds them in the hash tables."""
    hashes = f"-Wl,--hash-style={style}"
    library = there.gcc(
        "libpair.so",
        "-shared",
        "-fPIC",
        hashes,
        "-Wl,-soname,libpair.so",
        there.source("pair.c"),
        there.answer,
    )
    main = (there.source("pair_main.c"), library, there.answer)
    program = there.gcc("pair", *kind, "-rdynamic", hashes, *main, f"-Wl,-rpath,$ORIGIN:{there.there}")
    names = ("pair_sum", "pair_11", "pair_38", "pair_datum", "pair_pointer_17", "pair_base", "pair_tls")
    renamed = tuple((name, f"new_name_of_{name}") for name in names)
    common = ManualEdit(
        executable_stack=False, os_abi=3, no_default_lib=False, debug_tag=True, renamed_symbols=renamed
    )
    needed = {path: facts_of(path).needed for path in (library, program)}
    edits = {
        library: ElfEdit(
            there.there,
            manual=replace(common, soname="libother.so.7", needed=("libm.so.6", *needed[library])),
        ),
        program: ElfEdit(
            f"{tmp_path}:{there.there}",
            renames=(("libpair.so", "libother.so.7"),),
            manual=replace(common, unversioned_symbols=("answer",)),
        ),
    }
    runner = (need(cross.qemu), "-L", f"/usr/{cross.triple}")
    out = {library: os.path.join(tmp_path, "libother.so.7"), program: os.path.join(tmp_path, "out")}
    for path, edit in edits.items():
        edit_file(path, out[path], edit)
        restored = os.path.join(tmp_path, f"{os.path.basename(path)}.back")
        restore_file(out[path], restored)
        assert content(restored) == content(path)
    assert run(out[program], runner=runner) == "224 11 25 38 5 17 3"
    assert facts_of(out[library]).manual.needed == ("libm.so.6", *needed[library])


def facts_of(path: str) -> ElfFacts:
    facts = read(path)
    assert isinstance(facts, ElfFacts)
    return facts
