"""The names of libraries that stand as strings in files that open libraries."""

import os
import subprocess
from pathlib import Path

import pytest

from nixpatch.elf import dlopen_strings as module
from nixpatch.elf.dlopen_strings import DLOPEN, dlopen_strings
from nixpatch.errors import FileRefused
from nixpatch.model import DlopenStrings, ElfEdit, Tag
from support.programs import edit_file

pytestmark = pytest.mark.gcc

OPENS = "#include <dlfcn.h>\nvoid *open_it(const char *name) { return dlopen(name, RTLD_LAZY); }\n"


def compiled(directory: Path, source: str, *flags: str, name: str = "libmine.so.2") -> str:
    path, out = os.path.join(directory, "source.c"), os.path.join(directory, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(source)
    command = ["gcc", "-shared", "-fPIC", "-O1", f"-Wl,-soname,{name}", "-o", out, path, *flags]
    subprocess.run(command, check=True, capture_output=True)
    return out


def names(path: str) -> tuple[str, ...]:
    strings = dlopen_strings(path)
    assert strings is not None
    return strings.names


def test_a_file_that_opens_nothing_is_not_read_further(tmp_path: Path) -> None:
    source = 'const char *name(void) { return "libz.so.1"; }\nvoid my_dlopen(void) {}'
    assert dlopen_strings(compiled(tmp_path, source)) is None


def test_a_name_whose_tail_is_dlopen_is_another_name(tmp_path: Path) -> None:
    source = 'extern void my_dlopen(const char *); void f(void) { my_dlopen("libz.so.1"); }'
    assert dlopen_strings(compiled(tmp_path, source)) is None


def test_a_dlopen_of_its_own_opens_nothing(tmp_path: Path) -> None:
    source = 'void *dlopen(const char *name, int mode) { return 0; } const char *n = "libz.so.1";'
    assert dlopen_strings(compiled(tmp_path, source)) is None


@pytest.mark.parametrize("flags", [(), ("-s",), ("-Wl,-z,noseparate-code",), ("-Wl,--hash-style=sysv", "-s")])
def test_literals_arrays_and_writable_arrays_are_found(tmp_path: Path, flags: tuple[str, ...]) -> None:
    source = OPENS + (
        'const char *names[] = {"libX11.so.6", "libGL.so", "libnvidia-opencl.so.1"};\n'
        'char writable[] = "libcuda.so.1"; const char constant[] = "libc++abi-2.0.so.1.1.1k";\n'
    )
    found = names(compiled(tmp_path, source, *flags))
    expected = {"libX11.so.6", "libGL.so", "libnvidia-opencl.so.1", "libcuda.so.1", "libc++abi-2.0.so.1.1.1k"}
    assert set(found) == expected


def test_the_table_of_sections_is_not_asked(tmp_path: Path) -> None:
    path = compiled(tmp_path, OPENS + 'const char *n = "libz.so.1";', "-s")
    with open(path, "r+b") as file:
        file.seek(40)  # e_shoff, then e_shnum and e_shstrndx
        file.write(bytes(8))
        file.seek(60)
        file.write(bytes(4))
    assert names(path) == ("libz.so.1",)


def test_strings_that_only_look_like_names_are_none(tmp_path: Path) -> None:
    lines = (
        "lib%s.so.1|cannot load libfoo.so.1|libfoo.so.1 is missing|/usr/lib/libfoo.so.1|-l:libfoo.so|foo.so"
    )
    lines += "|libfoo.so.2.init.c|libfoo.dylib|libfoo.dll|libfoo.sorry|.so|libfoo.so.x"
    array = ", ".join(f'"{line}"' for line in lines.split("|"))
    assert names(compiled(tmp_path, OPENS + f"const char *names[] = {{{array}}};")) == ()


def test_a_number_before_a_string_is_not_a_part_of_it(tmp_path: Path) -> None:
    # 0x3f stands at the end of many constants, and is a question mark.
    source = OPENS + 'struct { double d; char name[16]; } const both = {1.5, "libcuda.so.1"};'
    assert names(compiled(tmp_path, source)) == ("libcuda.so.1",)


def test_needed_and_own_names_are_in_the_string_table_and_not_strings(tmp_path: Path) -> None:
    path = compiled(tmp_path, OPENS, "-Wl,--no-as-needed", "-lm")
    assert dlopen_strings(path) == DlopenStrings(("dlopen",), ())


def test_a_patched_file_holds_what_it_held(tmp_path: Path) -> None:
    path = compiled(tmp_path, OPENS + 'const char *n = "libz.so.1";')
    patched = os.path.join(tmp_path, "patched.so")
    edit_file(path, patched, ElfEdit("/nix/store/" + "a" * 300 + "/libnot.so.1", Tag.RUNPATH))
    assert dlopen_strings(patched) == dlopen_strings(path)


def test_other_functions_that_open_libraries(tmp_path: Path) -> None:
    source = (
        'void _ZN8QLibrary4loadEv(void); void f(void) { _ZN8QLibrary4loadEv(); } const char *n = "libz.so.1";'
    )
    path = compiled(tmp_path, source)
    assert dlopen_strings(path) is None
    found = dlopen_strings(path, (*DLOPEN, "_ZN8QLibrary*"))
    assert found == DlopenStrings(("_ZN8QLibrary4loadEv",), ("libz.so.1",))


def test_a_name_across_two_pieces_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [f"libname{number}.so.{number}" for number in range(200)]
    array = ", ".join(f'"{name}"' for name in listed)
    path = compiled(tmp_path, OPENS + f"const char *names[] = {{{array}}};")
    monkeypatch.setattr(module, "_CHUNK", 137)
    assert names(path) == tuple(listed)


def test_names_in_the_text_of_a_rust_file(tmp_path: Path) -> None:
    text = "BINDINGlibvulkan.so.1Cannot loadlibEGL.so.1libEGL.socalled /rustc/0/library, no 'libz.so.1'"
    path = compiled(tmp_path, OPENS + f'const char *t = "{text}";')
    strings = dlopen_strings(path)
    assert strings is not None
    assert strings.names == ()
    assert strings.in_text == ("libvulkan.so.1", "libEGL.so.1")


def test_the_same_text_elsewhere_is_a_message(tmp_path: Path) -> None:
    path = compiled(tmp_path, OPENS + 'const char *t = "BINDINGlibvulkan.so.1Cannot load";')
    assert dlopen_strings(path) == DlopenStrings(("dlopen",), ())


def test_what_is_no_elf_file_is_refused(tmp_path: Path) -> None:
    path = os.path.join(tmp_path, "text")
    with open(path, "wb") as file:
        file.write(b"dlopen\0libz.so.1\0")
    with pytest.raises(FileRefused):
        dlopen_strings(path)
