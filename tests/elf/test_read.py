"""What is read agrees with an independent reader; what is no candidate is skipped with a reason."""

import ctypes
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection

from nixpatch.elf import read
from nixpatch.model import ElfEdit, ElfFacts, Linkage, Machine, Skip, SkipReason, Tag, VersionNeed
from support.programs import RICH, Workshop, edit_file, need, patched_bytes


def facts(path: str) -> ElfFacts:
    found = read(path)
    assert isinstance(found, ElfFacts), found
    return found


def skip(path: str) -> SkipReason:
    found = read(path)
    assert isinstance(found, Skip), found
    return found.reason


def name_of(tag: object, attribute: str) -> str:
    return str(getattr(tag, attribute))


def agrees(path: str) -> None:
    """Hold our reader against pyelftools."""
    ours = facts(path)
    with open(path, "rb") as file:
        elf = ELFFile(file)
        segment = next(s for s in elf.iter_segments() if isinstance(s, DynamicSegment))
        tags = list(segment.iter_tags())
        assert ours.needed == tuple(name_of(t, "needed") for t in tags if t.entry.d_tag == "DT_NEEDED")
        assert ours.soname == next((name_of(t, "soname") for t in tags if t.entry.d_tag == "DT_SONAME"), None)
        assert ours.machine.bits == elf.elfclass
        assert (ours.machine.byteorder == "little") == elf.little_endian
        needs, defs = [], []
        for section in elf.iter_sections():
            if isinstance(section, GNUVerNeedSection):
                for need_, versions in section.iter_versions():
                    needs.append(VersionNeed(need_.name or "", tuple(v.name for v in versions)))
            if isinstance(section, GNUVerDefSection):
                for definition, names in section.iter_versions():
                    if not definition["vd_flags"] & 1:
                        defs.append(next(iter(names)).name)
        assert ours.version_needs == tuple(needs)
        assert ours.version_defs == tuple(defs)


@pytest.mark.gcc
def test_facts_of_compiled_programs(workshop: Workshop) -> None:
    program = workshop.program("-pie", "-fPIE", "-Wl,-rpath,/a:/b")
    for path in (program, workshop.library(), workshop.answer, workshop.program("-no-pie")):
        agrees(path)
    found = facts(program)
    assert found.executable
    assert found.needed[0] == "libanswer.so"
    assert found.current == found.original
    assert found.current.search_path == "/a:/b"
    assert found.current.tag is Tag.RUNPATH
    assert VersionNeed("libanswer.so", ("ANSWER_1",)) in found.version_needs
    assert facts(workshop.answer).version_defs == ("ANSWER_1", "ANSWER_2")
    assert not facts(workshop.answer).executable
    assert facts(workshop.answer).soname == "libanswer.so"
    assert facts(workshop.answer).current == Linkage(None, None, None)
    assert facts(workshop.library("-Wl,-z,nodefaultlib")).no_default_lib
    assert facts(workshop.program("-no-pie")).executable


def test_facts_of_the_running_python() -> None:
    python = os.path.realpath(sys.executable)
    agrees(python)
    assert facts(python).executable
    assert facts(python).machine.bits == struct.calcsize("P") * 8


@pytest.mark.gcc
def test_machine_of_this_host(workshop: Workshop) -> None:
    known = {"x86_64": Machine(62, 64, "little"), "aarch64": Machine(183, 64, "little")}
    assert facts(workshop.answer).machine == known.get(os.uname().machine, facts(workshop.answer).machine)


@pytest.mark.gcc
def test_edited_file_tells_both_what_it_is_and_what_it_was(workshop: Workshop, tmp_path: Path) -> None:
    library = workshop.library("-Wl,-rpath,/old,--disable-new-dtags")
    out = os.path.join(tmp_path, "out")
    edit_file(library, out, ElfEdit("/new", Tag.RUNPATH))
    found = facts(out)
    assert found.current == Linkage("/new", Tag.RUNPATH, None)
    assert found.original == Linkage("/old", Tag.RPATH, None)
    assert not found.stale_undo
    agrees(out)


def test_files_that_are_not_elf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data in {"empty": b"", "text": b"INPUT(libfoo.so.1)\n", "archive": b"!<arch>\n" * 9}.items():
        path = os.path.join(tmp_path, name)
        Path(path).write_bytes(data)
        assert skip(path) is SkipReason.NOT_ELF
    assert skip(str(tmp_path)) is SkipReason.NOT_ELF
    fifo, link, sock = (os.path.join(tmp_path, name) for name in ("fifo", "link", "sock"))
    os.mkfifo(fifo)
    os.symlink(sys.executable, link)
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # the path of a socket has a small limit
        listener.bind("sock")
    for path in (fifo, link, sock):
        assert skip(path) is SkipReason.NOT_ELF


def test_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(os.path.join(tmp_path, "nothing"))


@pytest.mark.gcc
def test_kinds_of_elf_that_are_left_alone(workshop: Workshop, tmp_path: Path) -> None:
    source = workshop.source("answer.c")
    assert skip(workshop.gcc("answer.o", "-c", source)) is SkipReason.RELOCATABLE
    assert skip(workshop.gcc("static", "-static", "-x", "c", os.path.join(tmp_path, main(tmp_path)))) is (
        SkipReason.STATIC
    )
    for linker in ("bfd", "lld", "mold"):
        need(f"ld.{linker}")
        static = workshop.gcc("static-pie", f"-fuse-ld={linker}", "-static-pie", "-x", "c", main(tmp_path))
        assert skip(static) is SkipReason.STATIC
        assert skip(without_pie_flag(static, os.path.join(tmp_path, linker))) is SkipReason.STATIC
    library = workshop.library(*RICH, "-g")
    debug = os.path.join(tmp_path, "debug")
    subprocess.run([need("objcopy"), "--only-keep-debug", library, debug], check=True)
    assert skip(debug) is SkipReason.DEBUG_FILE


@pytest.mark.gcc
@pytest.mark.parametrize("hashes", ["gnu", "sysv", "both"])
@pytest.mark.parametrize("linker", ["bfd", "gold", "lld", "mold"])
def test_library_without_soname_and_needs_is_a_library(workshop: Workshop, linker: str, hashes: str) -> None:
    need(f"ld.{linker}")
    flags = ("-shared", "-fPIC", "-nostdlib", f"-fuse-ld={linker}", f"-Wl,--hash-style={hashes}")
    found = facts(workshop.gcc("libbare.so", *flags, workshop.source("answer.c")))
    assert (found.soname, found.needed, found.executable) == (None, (), False)


def without_pie_flag(source: str, to: str) -> str:
    """Remove DF_1_PIE, which linkers before 2018 did not set."""

    with open(source, "rb") as file:
        segment = next(s for s in ELFFile(file).iter_segments() if isinstance(s, DynamicSegment))
        index = [tag.entry.d_tag for tag in segment.iter_tags()].index("DT_FLAGS_1")
    value = segment["p_offset"] + 16 * index + 8

    def change(data: bytearray) -> None:
        data[value : value + 8] = bytes(8)

    return patched_bytes(source, to, change)


def main(tmp_path: Path) -> str:
    path = os.path.join(tmp_path, "main.c")
    Path(path).write_text("int main(void) { return 0; }\n")
    return path


@pytest.mark.gcc
def test_separate_debug_file_of_elfutils(workshop: Workshop, tmp_path: Path) -> None:
    debug = os.path.join(tmp_path, "debug")
    out = os.path.join(tmp_path, "stripped")
    subprocess.run([need("eu-strip"), "-f", debug, "-o", out, workshop.library(*RICH, "-g")], check=True)
    assert skip(debug) is SkipReason.DEBUG_FILE
    assert facts(out).needed


@pytest.mark.gcc
@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (7, 9, SkipReason.OTHER_OSABI),
        (7, 3, None),
        (16, 4, SkipReason.CORE),
        (16, 0, SkipReason.CORE),
        (4, 3, SkipReason.MALFORMED),
        (5, 0, SkipReason.MALFORMED),
        (6, 2, SkipReason.MALFORMED),
        (54, 1, SkipReason.MALFORMED),
        (56, 0, SkipReason.MALFORMED),
        (57, 0xFF, SkipReason.MALFORMED),
    ],
)
def test_header_bytes(
    workshop: Workshop, tmp_path: Path, offset: int, value: int, reason: SkipReason | None
) -> None:
    def change(data: bytearray) -> None:
        data[offset] = value

    path = patched_bytes(workshop.library(), os.path.join(tmp_path, "changed"), change)
    found = read(path)
    assert (found.reason if isinstance(found, Skip) else None) is reason


@pytest.mark.gcc
def test_truncated_file(workshop: Workshop, tmp_path: Path) -> None:
    path = patched_bytes(
        workshop.library(),
        os.path.join(tmp_path, "cut"),
        lambda data: data.__delitem__(slice(len(data) * 2 // 3, None)),
    )
    assert skip(path) is SkipReason.UNMAPPABLE


@pytest.mark.gcc
def test_a_file_whose_segments_do_not_fit_into_pages(workshop: Workshop, tmp_path: Path) -> None:
    # As strip leaves a library that auditwheel has edited.
    def change(data: bytearray) -> None:
        start, size, count = (
            int.from_bytes(data[32:40], "little"),
            *struct.unpack_from("<HH", data, 54),
        )
        for place in range(start, start + size * count, size):
            kind, flags, offset, _, _, length = struct.unpack_from("<IIQQQQ", data, place)
            if kind == 1 and flags & 1:  # the code, in which the reader looks for nothing
                struct.pack_into("<Q", data, place + 8, offset + 16)
                struct.pack_into("<Q", data, place + 32, length - 16)

    path = patched_bytes(workshop.library(), os.path.join(tmp_path, "shifted.so"), change)
    found = read(path)

    assert isinstance(found, Skip)
    assert found.reason is SkipReason.UNMAPPABLE
    assert "load command address/offset not page-aligned" in found.detail
    with pytest.raises(OSError, match="load command address/offset not page-aligned"):
        ctypes.CDLL(path)


@pytest.mark.gcc
@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"PK\3\4" + b"x" * 500 + b"PK\5\6" + bytes(18), "zip"),
        (b"x" * 500 + b"MEI\014\013\012\013\016" + bytes(80), "PyInstaller"),
        (b"x" * 500 + b"\n---- Bun! ----\n" + bytes(8), "bun"),
        (b"x" * 500 + b"d3n0l4nd" + bytes(24), "deno"),
        (b"hsqs" + bytes(5000), "squashfs"),
        (b"anything at all", "unknown"),
        (bytes(5000) + b"x", "unknown"),
        (bytes(16), None),
        (bytes(17), None),
        (bytes(3 << 20), None),
        (b"x", None),
        (b"", None),
    ],
)
def test_programs_with_appended_data(
    workshop: Workshop, tmp_path: Path, data: bytes, name: str | None
) -> None:
    path = patched_bytes(workshop.program(), os.path.join(tmp_path, "with"), lambda file: file.extend(data))
    found = read(path)
    if name is None:
        assert isinstance(found, ElfFacts)
    else:
        assert isinstance(found, Skip)
        assert found.reason is SkipReason.PAYLOAD
        assert name in found.detail
    assert isinstance(read(path, payload_ok=True), ElfFacts)
    library = patched_bytes(workshop.library(), os.path.join(tmp_path, "lib"), lambda file: file.extend(data))
    assert isinstance(read(library), ElfFacts)


@pytest.mark.gcc
def test_appimage_is_named(workshop: Workshop, tmp_path: Path) -> None:
    def change(data: bytearray) -> None:
        data[8:11] = b"AI\2"
        data.extend(b"hsqs" + bytes(5000))

    found = read(patched_bytes(workshop.program(), os.path.join(tmp_path, "with"), change))
    assert isinstance(found, Skip)
    assert found.detail.startswith("AppImage")
