"""Dynamic symbols, held against pyelftools and LIEF, which go by section headers where we go by DT_ tags."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

import lief
import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection, GNUVerSymSection
from elftools.elf.sections import SymbolTableSection

from nixpatch.elf import read, read_symbols
from nixpatch.elf.structs import DT_GNU_HASH, DT_SYMTAB, DT_VERSYM
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, Skip, SymbolKind, Symbols
from support.programs import RICH, Workshop, content, edit_file, patched_bytes, read_headers

pytestmark = pytest.mark.gcc

REAL = (
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/x86_64-linux-gnu/libm.so.6",
    "/lib/x86_64-linux-gnu/libz.so.1",
    "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
    "/lib/x86_64-linux-gnu/libgcc_s.so.1",
    "/usr/bin/env",
)
SOURCE = r"""
__attribute__((visibility("hidden"))) int quiet(void) { return 1; }
__attribute__((visibility("protected"))) int guarded(void) { return quiet(); }
int common_one, data_one = 7;
long table[11] = {1};
__thread int per_thread = 3;
__attribute__((weak)) int weakly(void) { return 2; }
extern int puts(const char *), nobody(void) __attribute__((weak));
static int chosen(void) { return 5; }
static int (*pick(void))(void) { return chosen; }
int indirect(void) __attribute__((ifunc("pick")));
int old_one(void) { return 1; }
int new_one(void) { return 2; }
#ifdef VERSIONS
__asm__(".symver old_one,both@V_1");
__asm__(".symver new_one,both@@V_2");
#endif
int say(void) { return puts("x") + (nobody ? nobody() : 0); }
"""
VERSIONS = "V_1 { global: *; local: quiet; }; V_2 { } V_1;\n"
PROGRAM = "int answer(void); void _start(void) { answer(); }\n"


NUMBERS = {"VER_NDX_LOCAL": 0, "VER_NDX_GLOBAL": 1}


class Export(NamedTuple):
    name: str
    version: str | None
    hidden: bool
    kind: str
    size: int
    vague: bool


class Import(NamedTuple):
    name: str
    version: str | None
    soname: str | None


KINDS = {
    "STT_OBJECT": "DATA",
    "STT_COMMON": "DATA",
    "STT_FUNC": "CODE",
    "STT_LOOS": "CODE",  # STT_GNU_IFUNC
    "STT_GNU_IFUNC": "CODE",
    "STT_TLS": "TLS",
}


def ours(path: str) -> tuple[set[Export], set[Import], bool]:
    found = read_symbols(path)
    exports = {
        Export(name, one.version, one.hidden, one.kind.name, one.size, one.vague)
        for name, all_of_it in found.defined.items()
        for one in all_of_it
    }
    return exports, {Import(*reference) for reference in map(_fields, found.wanted)}, found.versioned


def _fields(reference: object) -> tuple[str, str | None, str | None]:
    return tuple(getattr(reference, name) for name in ("name", "version", "soname"))


def theirs(path: str) -> tuple[set[Export], set[Import], bool]:
    """By pyelftools."""
    exports, imports = set(), set()
    with open(path, "rb") as file:
        sections = list(ELFFile(file).iter_sections())
        table = next(s for s in sections if isinstance(s, SymbolTableSection) and s.name == ".dynsym")
        versions = next((s for s in sections if isinstance(s, GNUVerSymSection)), None)
        defs: dict[int, str] = {}
        needs: dict[int, tuple[str, str]] = {}
        for section in sections:
            if isinstance(section, GNUVerDefSection):
                for record, names in section.iter_versions():
                    defs[record["vd_ndx"]] = next(iter(names)).name
            elif isinstance(section, GNUVerNeedSection):
                for record, names in section.iter_versions():
                    needs.update({one["vna_other"]: (one.name, record.name) for one in names})
        for number, symbol in enumerate(table.iter_symbols()):
            binding, visible = symbol["st_info"]["bind"], symbol["st_other"]["visibility"]
            if binding not in {"STB_GLOBAL", "STB_WEAK", "STB_LOOS", "STB_GNU_UNIQUE"} or not symbol.name:
                continue
            ndx: str | int = versions.get_symbol(number)["ndx"] if versions else 1
            index = NUMBERS[ndx] if isinstance(ndx, str) else ndx
            low = index & 0x7FFF
            if symbol["st_shndx"] == "SHN_UNDEF":
                imports.add(Import(symbol.name, *(needs[low] if low > 1 else (None, None))))
            elif visible in {"STV_DEFAULT", "STV_PROTECTED"}:
                kind = KINDS.get(symbol["st_info"]["type"], "ANY")
                version = defs.get(low) if low > 1 else None
                vague, hidden = binding != "STB_GLOBAL", bool(index & 0x8000)
                exports.add(Export(symbol.name, version, hidden, kind, symbol["st_size"], vague))
    return exports, imports, versions is not None


def by_lief(path: str) -> tuple[set[tuple[str, int]], set[str]]:
    """Names and sizes of exports, names of imports."""
    binary = lief.ELF.parse(path)
    assert isinstance(binary, lief.ELF.Binary)
    shown = {lief.ELF.Symbol.VISIBILITY.DEFAULT, lief.ELF.Symbol.VISIBILITY.PROTECTED}
    local = lief.ELF.Symbol.BINDING.LOCAL
    symbols = [s for s in binary.dynamic_symbols if s.name and s.binding != local]
    exports = {(str(s.name), int(s.size)) for s in symbols if s.shndx and s.visibility in shown}
    return exports, {str(s.name) for s in symbols if not s.shndx}


def agree(path: str) -> Symbols:
    exports, imports, versioned = ours(path)
    assert (exports, imports, versioned) == theirs(path)
    assert ({(one.name, one.size) for one in exports}, {one.name for one in imports}) == by_lief(path)
    return read_symbols(path)


def make(workshop: Workshop, tmp_path: Path, *flags: str, source: str = SOURCE) -> str:
    file = tmp_path / "source.c"
    file.write_text(source)
    return workshop.gcc("libsymbols.so", "-shared", "-fPIC", str(file), "-Wl,-soname,libsymbols.so", *flags)


@pytest.mark.parametrize("hashes", ["gnu", "sysv", "both"])
@pytest.mark.parametrize("bits", ["-m64", "-m32"])
def test_every_kind_with_and_without_versions(
    workshop: Workshop, tmp_path: Path, hashes: str, bits: str
) -> None:
    flags = ["-fcommon", f"-Wl,--hash-style={hashes}", bits]
    flags += ["-nostdlib"] if bits == "-m32" else []
    (tmp_path / "versions.map").write_text(VERSIONS)
    plain = agree(make(workshop, tmp_path, *flags))
    assert plain.defined["table"][0].size == 11 * (8 if bits == "-m64" else 4)
    assert plain.defined["per_thread"][0].kind is SymbolKind.TLS
    assert plain.defined["indirect"][0].kind is SymbolKind.CODE
    assert plain.defined["weakly"][0].vague
    assert "quiet" not in plain.defined
    script = f"-Wl,--version-script={tmp_path / 'versions.map'}"
    versioned = agree(make(workshop, tmp_path, *flags, "-DVERSIONS", script))
    both = {(one.version, one.hidden) for one in versioned.defined["both"]}
    assert both == {("V_1", True), ("V_2", False)}


@pytest.mark.parametrize("hashes", ["gnu", "sysv"])
def test_a_program_that_exports_nothing_imports_all_the_same(
    workshop: Workshop, tmp_path: Path, hashes: str
) -> None:
    """GNU ld's DT_GNU_HASH of such a program does not tell how many symbols there are."""
    file = tmp_path / "program.c"
    file.write_text(PROGRAM)
    flags = ("-nostdlib", str(file), f"-Wl,--hash-style={hashes}", workshop.answer)
    found = agree(workshop.gcc("bare", *flags))
    assert [reference.name for reference in found.wanted] == ["answer"]
    assert not found.defined


@pytest.mark.parametrize("path", [*REAL, sys.executable])
def test_real_files(path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"not there: {path}")
    assert agree(os.path.realpath(path)).wanted or path.endswith("libc.so.6")


def test_extension_modules_of_this_python() -> None:
    directory = sysconfig.get_config_var("DESTSHARED") or ""
    modules = [n for n in sorted(os.listdir(directory)) if n.endswith(".so")] if directory else []
    if not modules:
        pytest.skip("its modules are built in")
    for path in (os.path.join(directory, name) for name in modules[::8]):
        if not isinstance(read(path), Skip):  # one that needs nobody counts as static
            agree(path)


def test_an_edit_changes_no_symbol(workshop: Workshop, tmp_path: Path) -> None:
    library = workshop.library(*RICH)
    out = os.path.join(tmp_path, "out.so")
    edit_file(library, out, ElfEdit("/somewhere/else", renames=(("libanswer.so", "libother.so.1"),)))
    before, after = read_symbols(library), read_symbols(out)
    assert after.defined == before.defined
    assert [(r.name, r.version) for r in after.wanted] == [(r.name, r.version) for r in before.wanted]
    renamed = {reference.soname for reference in after.wanted}
    assert "libother.so.1" in renamed
    assert "libanswer.so" not in renamed
    agree(out)


@pytest.mark.parametrize("tag", [DT_SYMTAB, DT_GNU_HASH, DT_VERSYM])
def test_tables_beyond_the_file_are_refused(workshop: Workshop, tmp_path: Path, tag: int) -> None:
    library = workshop.library(*RICH, "-Wl,--hash-style=gnu")
    headers = read_headers(library)
    index = next(i for i, entry in enumerate(headers.live) if entry.tag == tag)
    place = headers.dynamic_offset + 16 * index + 8

    def move(data: bytearray) -> None:
        last = headers.last_load
        data[place : place + 8] = (last.vaddr + last.filesz - 2).to_bytes(8, "little")

    broken = patched_bytes(library, os.path.join(tmp_path, "broken.so"), move)
    assert content(broken) != content(library)
    with pytest.raises(FileRefused):
        read_symbols(broken)
