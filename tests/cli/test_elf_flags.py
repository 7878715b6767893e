"""The other edits of patchelf beside the real one: the same needs, names, flags, versions and symbols."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection, GNUVerSymSection
from elftools.elf.sections import SymbolTableSection

from support.programs import RICH, Workshop, content, copy, load, need, run
from support.world import Run as Elf

pytestmark = [pytest.mark.gcc, pytest.mark.pypi]

LINKERS = ("bfd", "gold", "lld", "mold")
KINDS = {"library": ("-shared", "-fPIC"), "pie": ("-pie", "-fPIE"), "non-pie": ("-no-pie", "-fno-pie")}
ADDRESSES = {
    "DT_HASH",
    "DT_GNU_HASH",
    "DT_SYMTAB",
    "DT_RELA",
    "DT_REL",
    "DT_VERSYM",
    "DT_VERNEED",
    "DT_VERDEF",
}
FREE = {"DT_STRTAB", "DT_STRSZ", "DT_NULL", "DT_JMPREL", "DT_INIT", "DT_FINI", *ADDRESSES}
NAMED = {"DT_NEEDED": "needed", "DT_SONAME": "soname", "DT_RPATH": "rpath", "DT_RUNPATH": "runpath"}


def features(path: str) -> dict[str, Any]:
    """Read all that these edits change. patchelf moves tables, so their addresses do not count."""
    with open(path, "rb") as stream:
        file = ELFFile(stream)
        dynamic = next(s for s in file.iter_segments() if isinstance(s, DynamicSegment))
        tags = [
            (tag.entry.d_tag, getattr(tag, NAMED.get(tag.entry.d_tag, ""), tag.entry.d_val))
            for tag in dynamic.iter_tags()
            if tag.entry.d_tag not in FREE
        ]
        stacks = [s["p_flags"] for s in file.iter_segments() if s["p_type"] == "PT_GNU_STACK"]
        return {
            "needed": [value for tag, value in tags if tag == "DT_NEEDED"],
            "others": Counter(entry for entry in tags if entry[0] != "DT_NEEDED"),
            "stack": stacks,
            "abi": file["e_ident"]["EI_OSABI"],
            "symbols": Counter(symbols(file)),
            "versions": list(versions(file)),
        }


def symbols(file: ELFFile) -> Iterator[tuple[Any, ...]]:
    numbers = next((s for s in file.iter_sections() if isinstance(s, GNUVerSymSection)), None)
    table = next(s for s in file.iter_sections() if s.name == ".dynsym")
    assert isinstance(table, SymbolTableSection)
    for index, symbol in enumerate(table.iter_symbols()):
        version = numbers.get_symbol(index)["ndx"] if numbers else None
        is_needed = symbol["st_shndx"] == "SHN_UNDEF"
        yield symbol.name, version, symbol["st_size"], str(symbol["st_info"]), is_needed


def versions(file: ELFFile) -> Iterator[tuple[str, list[str]]]:
    for section in file.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            for record, names in section.iter_versions():
                yield str(record.name), [str(name.name) for name in names]


FLAGS = [
    ("--add-needed", "libz.so.9"),
    ("--add-needed", "libz.so.9", "--add-needed", "libb.so", "--add-needed", "liba.so", "--set-rpath", "/q"),
    ("--remove-needed", "libanswer.so"),
    ("--remove-needed", "libnothing.so"),
    ("--replace-needed", "libanswer.so", "liba.so", "--replace-needed", "libc.so.6", "libd.so"),
    (
        "--remove-needed",
        "libanswer.so",
        "--add-needed",
        "libb.so",
        "--replace-needed",
        "libc.so.6",
        "libd.so",
    ),
    ("--set-soname", "libnew.so.1"),
    ("--no-default-lib",),
    ("--set-execstack",),
    ("--clear-execstack",),
    ("--add-debug-tag",),
    ("--set-os-abi", "linux"),
    ("--set-os-abi", " System-V "),
    ("--clear-symbol-version", "answer"),
    ("--clear-symbol-version", "answer", "--clear-symbol-version", "printf", "--clear-symbol-version", "no"),
    ("--rename-dynamic-symbols", "{map}"),
    ("--set-soname", "@{file}", "--add-needed", "@{file}", "--clear-symbol-version", "@{file}"),
    (
        *("--add-needed", "liba.so", "--set-soname", "libnew.so", "--no-default-lib", "--set-execstack"),
        *("--add-debug-tag", "--set-os-abi", "gnu", "--rename-dynamic-symbols", "{map}"),
        *("--clear-symbol-version", "answer", "--set-rpath", "/q" * 90),
    ),
]


def compiled(workshop: Workshop, kind: str, linker: str, *flags: str) -> str:
    flags = (*KINDS[kind], *RICH, f"-fuse-ld={linker}", *flags)
    return workshop.library(*flags) if kind == "library" else workshop.program(*flags)


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: " ".join(flags)[:50])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("linker", LINKERS)
def test_edits_as_patchelf_edits(
    workshop: Workshop,
    tmp_path: Path,
    elf_command: Elf,
    newest_patchelf: str,
    linker: str,
    kind: str,
    flags: Sequence[str],
) -> None:
    need(f"ld.{linker}")
    Path(tmp_path, "map").write_text("use employ\nanswer reply\nprintf print_it\nuse_data used\n")
    Path(tmp_path, "file").write_text("answer")
    places = {name: os.path.join(tmp_path, name) for name in ("map", "file")}
    flags = [flag.format(**places) for flag in flags]
    source = compiled(workshop, kind, linker)
    theirs, ours = (copy(source, os.path.join(tmp_path, name)) for name in ("theirs", "ours"))
    done = subprocess.run([newest_patchelf, *flags, theirs], capture_output=True, text=True, check=False)
    if kind == "non-pie" and "--set-soname" in flags:  # patchelf does nothing, without a word
        code, _, err = elf_command(*flags, ours)
        assert (code, "ET_EXEC" in err, content(ours)) == (1, True, content(source))
        return
    code, out, _ = elf_command(*flags, ours)
    assert (code, out) == (done.returncode, "")
    assert features(ours) == features(theirs)
    if content(ours) != content(source):
        assert elf_command("--restore", ours)[0] == 0
    assert content(ours) == content(source)


# 0.14 mixes up the strings of several edits in one call, and has no others.
FLAGS_OF_DEBIAN = [
    ("--add-needed", "libz.so.9"),
    ("--remove-needed", "libanswer.so"),
    ("--replace-needed", "libanswer.so", "liba.so", "--replace-needed", "libc.so.6", "libd.so"),
    ("--set-soname", "libnew.so.1"),
    ("--no-default-lib",),
    ("--clear-symbol-version", "answer", "--clear-symbol-version", "printf"),
]


@pytest.mark.parametrize("flags", FLAGS_OF_DEBIAN, ids=lambda flags: flags[0])
@pytest.mark.parametrize("kind", ["library", "pie"])
@pytest.mark.parametrize("linker", LINKERS)
def test_edits_as_the_patchelf_of_debian_edits(
    workshop: Workshop, tmp_path: Path, elf_command: Elf, linker: str, kind: str, flags: Sequence[str]
) -> None:
    test_edits_as_patchelf_edits(workshop, tmp_path, elf_command, need("patchelf"), linker, kind, flags)


@pytest.mark.parametrize("library", ["libz.so.1", "libssl.so.3", "libstdc++.so.6", "libm.so.6"])
def test_edits_libraries_of_the_system_as_patchelf_edits_them(
    tmp_path: Path, elf_command: Elf, newest_patchelf: str, library: str
) -> None:
    source = next(
        path
        for path in (f"{directory}/{library}" for directory in ("/lib/x86_64-linux-gnu", "/usr/lib"))
        if os.path.exists(path)
    )
    theirs, ours = (copy(source, os.path.join(tmp_path, name)) for name in ("theirs", "ours"))
    Path(tmp_path, "map").write_text("deflate deflator\nSSL_new SSL_old\nsin sinus\nmalloc my_malloc\n")
    flags = [
        *("--add-needed", "liba.so", "--set-soname", "libnew.so", "--no-default-lib", "--set-execstack"),
        *("--clear-symbol-version", "free", "--rename-dynamic-symbols", f"{tmp_path}/map"),
    ]
    subprocess.run([newest_patchelf, *flags, theirs], check=True)
    assert elf_command(*flags, ours)[0] == 0
    assert features(ours) == features(theirs)
    assert elf_command("--restore", ours) == (0, "", "")
    assert content(ours) == content(source)


# Of the program for s390x with fixed addresses patchelf 0.19 fails an assertion of its own.
OTHER_MACHINES = [
    (triple, kind)
    for triple in ("i686", "aarch64", "s390x", "powerpc64le", "riscv64", "arm")
    for kind in KINDS
    if (triple, kind) != ("s390x", "non-pie")
]


@pytest.mark.cross
@pytest.mark.parametrize(("triple", "kind"), OTHER_MACHINES)
def test_edits_files_of_other_machines_as_patchelf_edits_them(
    tmp_path: Path, elf_command: Elf, newest_patchelf: str, triple: str, kind: str
) -> None:
    """32 and 64 bits, both byte orders."""
    compiler = f"{triple}-linux-gnu{'eabihf' if triple == 'arm' else ''}-gcc"
    need(compiler)
    workshop = Workshop(os.path.join(tmp_path, "made"), compiler)
    Path(tmp_path, "map").write_text("use employ\nanswer reply\nprintf print_it\n")
    edits: list[tuple[str, ...]] = [
        ("--add-needed", "liba.so"),
        ("--set-execstack",),
        ("--add-debug-tag",),
        ("--set-os-abi", "linux"),
        ("--clear-symbol-version", "answer"),
        ("--set-rpath", "/q" * 90),
        ("--rename-dynamic-symbols", f"{tmp_path}/map"),
        *([] if kind == "non-pie" else [("--set-soname", "libnew.so")]),
        # patchelf 0.19 sets the bit of the other byte order.
        *([] if triple == "s390x" else [("--no-default-lib",)]),
    ]
    source = compiled(workshop, kind, "bfd")
    theirs, ours = (copy(source, os.path.join(tmp_path, name)) for name in ("theirs", "ours"))
    for edit in edits:
        subprocess.run([newest_patchelf, *edit, theirs], check=True)
    assert elf_command(*(word for edit in edits for word in edit), ours)[0] == 0
    assert features(ours) == features(theirs)
    assert elf_command("--no-default-lib", ours)[0] == 0
    flags = [value for tag, value in features(ours)["others"] if tag == "DT_FLAGS_1"]
    assert [value & 0x800 for value in flags] == [0x800]
    assert elf_command("--restore", ours)[0] == 0
    assert content(ours) == content(source)


@pytest.mark.parametrize("hash_style", ["gnu", "sysv", "both"])
@pytest.mark.parametrize("linker", LINKERS)
def test_ld_so_finds_symbols_by_their_new_names(
    workshop: Workshop, tmp_path: Path, elf_command: Elf, linker: str, hash_style: str
) -> None:
    """The symbols of a library and of the program that imports them get the same new names."""
    need(f"ld.{linker}")
    names = [f"function_{number}" for number in range(80)]
    code = [f"int {name}(void) {{ return {number}; }}" for number, name in enumerate(names)]
    code += [f"int (*pointer_{number})(void) = {name};" for number, name in enumerate(names)]
    code += ["int datum = 7;"]
    calls = "+".join(f"{name}()*{number}" for number, name in enumerate(names))
    declared = "".join(f"int {name}(void);" for name in names) + "extern int datum;"
    Path(tmp_path, "many.c").write_text("\n".join(code))
    Path(tmp_path, "main.c").write_text(
        f'#include <stdio.h>\n{declared}\nint main(void) {{ printf("%d\\n", {calls} + datum); return 0; }}'
    )
    style = (f"-fuse-ld={linker}", f"-Wl,--hash-style={hash_style}")
    library = workshop.gcc(
        "libmany.so", "-shared", "-fPIC", *style, "-Wl,-soname,libmany.so", f"{tmp_path}/many.c"
    )
    program = workshop.gcc("main", *style, f"{tmp_path}/main.c", library, "-Wl,-rpath,$ORIGIN")
    copies = [copy(path, os.path.join(tmp_path, os.path.basename(path))) for path in (library, program)]
    before = run(copies[1])
    assert before == str(sum(number * number for number in range(80)) + 7)
    renamed = [
        f"{name} renamed_{name}_{'x' * (number % 9)}\n" for number, name in enumerate(names) if number % 3
    ]
    Path(tmp_path, "map").write_text("".join([*renamed, "datum data\n"]))
    for path in copies:
        assert elf_command("--rename-dynamic-symbols", f"{tmp_path}/map", path) == (0, "", "")
    assert run(copies[1]) == before
    assert load(copies[0], "renamed_function_4_xxxx") == "4"
    assert load(copies[0], "function_3") == "3"
    assert load(copies[0], "function_4").startswith("failed")
    # Back by the same way, and by --restore.
    Path(tmp_path, "back").write_text("".join(" ".join(reversed(line.split())) + "\n" for line in renamed))
    once = content(copies[0])
    assert elf_command("--rename-dynamic-symbols", f"{tmp_path}/back", copies[0]) == (0, "", "")
    assert load(copies[0], "function_4") == "4"
    assert elf_command("--rename-dynamic-symbols", f"{tmp_path}/map", copies[0]) == (0, "", "")
    assert content(copies[0]) == once
    for path, original in zip(copies, (library, program), strict=True):
        assert elf_command("--restore", path) == (0, "", "")
        assert content(path) == content(original)


REFUSALS = [
    (("--set-soname", ""), "--set-soname takes a name"),
    (("--add-needed", ""), "--add-needed takes a name"),
    (("--set-os-abi", "windows"), "no OS ABI"),
    (("--set-execstack", "--clear-execstack"), "use only one"),
    (("--rename-dynamic-symbols", "{map}"), "map:2: 1 names"),
    (("--rename-dynamic-symbols", "{twice}"), "twice:2: a has a line already"),
    (("--rename-dynamic-symbols", "{version}"), "version:1: a name without @"),
    (("--rename-dynamic-symbols", "{nothing}"), "nothing: No such file"),
]


@pytest.mark.parametrize(("flags", "message"), REFUSALS)
def test_a_wrong_value_is_one_line(
    workshop: Workshop, tmp_path: Path, elf_command: Elf, flags: Sequence[str], message: str
) -> None:
    texts = {"map": "a b\nc\n", "twice": "a b\na c\n", "version": "a b@V1\n"}
    for name, text in texts.items():
        Path(tmp_path, name).write_text(text)
    flags = [
        flag.format(nothing=f"{tmp_path}/nothing", **{n: f"{tmp_path}/{n}" for n in texts}) for flag in flags
    ]
    library = copy(workshop.library(*RICH), os.path.join(tmp_path, "lib.so"))
    code, _, err = elf_command(*flags, library)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert content(library) == content(workshop.library(*RICH))


def test_several_edits_one_after_the_other_are_one(
    workshop: Workshop, tmp_path: Path, elf_command: Elf
) -> None:
    """Ten edits give the bytes of all in one, from whichever order, and one ``--restore`` takes all back."""
    source = compiled(workshop, "library", "bfd")
    Path(tmp_path, "map").write_text("use employ\n")
    steps = [
        ("--add-needed", "liba.so"),
        ("--set-soname", "libnew.so"),
        ("--set-rpath", "/q"),
        ("--rename-dynamic-symbols", f"{tmp_path}/map"),
        ("--clear-symbol-version", "answer"),
        ("--no-default-lib",),
        ("--set-execstack",),
    ]
    single, many = (copy(source, os.path.join(tmp_path, name)) for name in ("single", "many"))
    for step in steps:
        assert elf_command(*step, many)[0] == 0
    assert elf_command(*(word for step in steps for word in step), single)[0] == 0
    assert content(many) == content(single)
    for step in steps:  # they are made already
        assert elf_command(*step, many) == (0, "", "")
    assert content(many) == content(single)
    assert elf_command("--remove-needed", "liba.so", "--set-rpath", "", many)[0] == 0
    assert features(many)["needed"] == features(source)["needed"]
    assert elf_command("--restore", many)[0] == 0
    assert content(many) == content(source)


def test_versions_without_their_library_get_a_note(
    workshop: Workshop, tmp_path: Path, elf_command: Elf
) -> None:
    """patchelf writes the same file, without a word, and ld.so ends it by an assertion."""
    program = copy(compiled(workshop, "pie", "bfd"), os.path.join(tmp_path, "program"))
    code, _, err = elf_command("--remove-needed", "libanswer.so", "--set-rpath", workshop.there, program)
    assert (code, "asks for symbol versions of libanswer.so" in err) == (0, True)
    assert "Assertion" in run(program)
    assert elf_command("--add-needed", "libanswer.so", program)[0] == 0
    assert run(program) == "42 phdr"


def test_a_file_for_another_system_is_printed_edited_and_restored(
    workshop: Workshop, tmp_path: Path, elf_command: Elf
) -> None:
    source = workshop.library(*RICH)
    library = copy(source, os.path.join(tmp_path, "lib.so"))
    code, _, err = elf_command("--set-os-abi", "FreeBSD", library)
    assert (code, "opens no library" in err) == (0, True)
    assert load(library).startswith("failed")
    assert elf_command("--print-os-abi", "--print-soname", library)[1] == "FreeBSD\nlibuse.so\n"
    assert elf_command("--set-rpath", workshop.there, library)[0] == 0
    assert elf_command("--print-os-abi", library)[1] == "FreeBSD\n"
    assert elf_command("--set-os-abi", "gnu", library) == (0, "", "")
    assert load(library) == "42"
    assert elf_command("--restore", library) == (0, "", "")
    assert content(library) == content(source)


def test_stack_and_system_of_a_static_program_are_printed(
    workshop: Workshop, tmp_path: Path, elf_command: Elf, newest_patchelf: str
) -> None:
    source = os.path.join(tmp_path, "main.c")
    Path(source).write_text("int main(void) { return 0; }")
    program = workshop.gcc("static", "-static", source)
    flags = ("--print-os-abi", "--print-execstack")
    done = subprocess.run([newest_patchelf, *flags, program], capture_output=True, text=True, check=True)
    assert elf_command(*flags, program) == (0, done.stdout, "")
    code, _, err = elf_command("--set-execstack", program)
    assert (code, "static" in err, err.count("\n")) == (1, True, 1)


def test_without_an_option_the_changes_are_named(
    workshop: Workshop, tmp_path: Path, elf_command: Elf
) -> None:
    library = copy(workshop.library(*RICH), os.path.join(tmp_path, "lib.so"))
    assert "also changed" not in elf_command(library)[1]
    assert elf_command("--set-soname", "a.so", "--add-needed", "b.so", "--set-execstack", library)[0] == 0
    assert "also changed: needed libraries, soname, execstack\n" in elf_command(library)[1]


def test_an_empty_list_of_names_changes_and_prints_nothing(
    workshop: Workshop, tmp_path: Path, elf_command: Elf
) -> None:
    Path(tmp_path, "map").write_text("\n")
    library = copy(workshop.library(*RICH), os.path.join(tmp_path, "lib.so"))
    assert elf_command("--rename-dynamic-symbols", f"{tmp_path}/map", library) == (0, "", "")
    assert content(library) == content(workshop.library(*RICH))


def test_several_files_get_the_same_edit(workshop: Workshop, tmp_path: Path, elf_command: Elf) -> None:
    files = [copy(compiled(workshop, kind, "bfd"), os.path.join(tmp_path, kind)) for kind in KINDS]
    assert elf_command("--add-needed", "liba.so", "--no-default-lib", *files)[0] == 0
    code, out, _ = elf_command("--print-needed", *files)
    assert (code, out.count("liba.so\n")) == (0, 3)


def test_a_stack_header_that_is_not_there_is_refused(
    workshop: Workshop, tmp_path: Path, elf_command: Elf
) -> None:
    library = workshop.library("-Wl,-z,nognustack", "-fuse-ld=lld")
    assert features(library)["stack"] == []
    ours = copy(library, os.path.join(tmp_path, "lib.so"))
    code, _, err = elf_command("--clear-execstack", ours)
    assert (code, "PT_GNU_STACK" in err, err.count("\n")) == (1, True, 1)
    assert elf_command("--print-execstack", ours)[1] == "execstack: ?\n"
    assert content(ours) == content(library)


def test_an_unused_header_becomes_the_stack_header(
    workshop: Workshop, tmp_path: Path, elf_command: Elf
) -> None:
    ours = copy(workshop.library(*RICH), os.path.join(tmp_path, "lib.so"))
    with open(ours, "r+b") as stream:
        file = ELFFile(stream)
        index = [s["p_type"] for s in file.iter_segments()].index("PT_GNU_STACK")
        stream.seek(file["e_phoff"] + index * file["e_phentsize"])
        stream.write(bytes(4))
    before = content(ours)
    assert elf_command("--print-execstack", ours)[1] == "execstack: ?\n"
    assert elf_command("--clear-execstack", ours)[0] == 0
    assert elf_command("--print-execstack", ours)[1] == "execstack: -\n"
    assert elf_command("--set-execstack", ours)[0] == 0
    assert features(ours)["stack"] == [7]
    assert elf_command("--restore", ours)[0] == 0
    assert content(ours) == before
