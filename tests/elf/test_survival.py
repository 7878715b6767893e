"""A build goes on after nixpatch: its fixup breaks no more of an edited file than it breaks untouched.

The two halves of stdenv's fixupPhase that rewrite ELF files come in either order, by version: shrinking of
search paths with patchelf, and stripping.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nixpatch.elf import read
from nixpatch.elf.check_inplace import check
from nixpatch.elf.inplace_writer import write_edited
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, ElfFacts, Skip, SkipReason
from support.programs import (
    RICH,
    Workshop,
    content,
    copy,
    edit_file,
    interpreter_alias,
    load,
    need,
    restore_file,
    run,
    search_paths,
)

pytestmark = pytest.mark.gcc

SHRINK = ("patchelf", "--shrink-rpath")
STRIPS = {
    "strip -S": ("strip", "-S"),
    "strip --strip-unneeded": ("strip", "--strip-unneeded"),
    "llvm-strip": ("llvm-strip", "--strip-debug"),
    "llvm-strip --strip-unneeded": ("llvm-strip", "--strip-unneeded"),
    "eu-strip": ("eu-strip",),
}
KINDS = {
    "pie": (),
    "non-pie": ("-no-pie", "-fno-pie"),
    "full dynamic section": ("-Wl,--spare-dynamic-tags=1",),
    "old tag": ("-Wl,--disable-new-dtags",),
    "relr": ("-Wl,-z,pack-relative-relocs",),
    "big pages": ("-Wl,-z,max-page-size=0x10000",),
    "gold": ("-fuse-ld=gold",),
    "lld": ("-fuse-ld=lld",),
    "lld non-pie": ("-fuse-ld=lld", "-no-pie", "-fno-pie"),
}
NEVER = "/nix/store/00000000000000000000000000000000-nothing/lib"


@pytest.fixture(params=STRIPS)
def strip(request: pytest.FixtureRequest) -> tuple[str, ...]:
    command = STRIPS[request.param]
    need(command[0])
    return command


@pytest.fixture(params=["shrink first", "strip first"])
def fixup(request: pytest.FixtureRequest, strip: tuple[str, ...]) -> list[tuple[str, ...]]:
    need("patchelf")
    steps = [SHRINK, strip]
    return steps if request.param == "shrink first" else steps[::-1]


@pytest.fixture(params=KINDS)
def flags(request: pytest.FixtureRequest, workshop: Workshop) -> tuple[str, ...]:
    """Flags for a file that works as it is, so that the untouched one can be the measure."""
    chosen = KINDS[request.param]
    for flag in chosen:
        if flag.startswith("-fuse-ld="):
            need(f"ld.{flag.removeprefix('-fuse-ld=')}")
    return (*RICH, "-g", f"-Wl,-rpath,{workshop.there}", *chosen)


def treat(path: str, steps: list[tuple[str, ...]]) -> bool:
    """Run the tools over a file; False if one of them gives up."""
    return all(
        subprocess.run([*step, path], capture_output=True, check=False).returncode == 0 for step in steps
    )


def facts(path: str) -> ElfFacts:
    found = read(path)
    assert isinstance(found, ElfFacts), found
    return found


def test_program_that_survives_untouched_survives_edited(
    workshop: Workshop, tmp_path: Path, flags: tuple[str, ...], fixup: list[tuple[str, ...]]
) -> None:
    program = workshop.program(*flags)
    untouched = copy(program, os.path.join(tmp_path, "untouched"))
    assert run(untouched) == "42 phdr"
    works = treat(untouched, fixup) and run(untouched) == "42 phdr"
    out = os.path.join(tmp_path, "out")
    loader = facts(program).original.interp
    assert loader
    edit = ElfEdit(f"{NEVER}:{workshop.there}", interp=interpreter_alias(str(tmp_path), loader, 120))
    edit_file(program, out, edit)
    if works:
        assert treat(out, fixup)
        assert run(out) == "42 phdr"
        assert [path for _, path in search_paths(out)] == [workshop.there]
        assert facts(out).current.interp == edit.interp
        assert facts(out).stale_undo
        with pytest.raises(FileRefused, match=r"stale: another tool \(such as strip\)"):
            restore_file(out, os.path.join(tmp_path, "back"))


def test_library_that_survives_untouched_survives_edited(
    workshop: Workshop, tmp_path: Path, flags: tuple[str, ...], fixup: list[tuple[str, ...]]
) -> None:
    library = workshop.library(*(flag for flag in flags if "pie" not in flag))
    untouched = copy(library, os.path.join(tmp_path, "untouched.so"))
    works = treat(untouched, fixup) and load(untouched) == "42"
    out = os.path.join(tmp_path, "libuse.so")
    edit_file(library, out, ElfEdit(f"{NEVER}:{workshop.there}"))
    if works:
        assert treat(out, fixup)
        assert load(out) == "42"
        assert facts(out).stale_undo


def test_most_of_the_files_above_survive_untouched(
    workshop: Workshop, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """Otherwise the tests above would pass for want of anything that works."""
    for index, command in enumerate([("strip", "-S"), ("strip", "--strip-unneeded"), ("eu-strip",)]):
        need(command[0])
        program = copy(workshop.program(*flags), os.path.join(tmp_path, str(index)))
        assert treat(program, [SHRINK, command])
        assert run(program) == "42 phdr"


@pytest.mark.parametrize("kind", ["program", "library"])
def test_shrinking_alone_leaves_a_way_back(workshop: Workshop, tmp_path: Path, kind: str) -> None:
    need("patchelf")
    source = workshop.program(*RICH) if kind == "program" else workshop.library(*RICH)
    out, back = os.path.join(tmp_path, "out"), os.path.join(tmp_path, "back")
    edit_file(source, out, ElfEdit(f"{NEVER}:{workshop.there}"))
    subprocess.run([*SHRINK, out], check=True)
    assert facts(out).current.search_path == workshop.there
    assert not facts(out).stale_undo
    restore_file(out, back)
    assert content(back) == content(source)


def rounds(workshop: Workshop, directory: Path, file: str, steps: list[tuple[str, ...]]) -> Iterator[str]:
    """Patch and build in turns, each time against another store path of the same length."""
    for number in range(5):
        out = os.path.join(directory, str(number))
        store = f"/nix/store/{number:032}-nothing/lib"
        edit_file(file, out, ElfEdit(f"{store}:{workshop.there}"))
        assert treat(out, steps)
        file = out
        yield out


@pytest.mark.parametrize("tool", ["strip -S", "strip --strip-unneeded", "eu-strip"])
@pytest.mark.parametrize("kind", ["pie", "full dynamic section", "non-pie"])
def test_patching_and_fixing_up_in_turns_does_not_grow(
    workshop: Workshop, tmp_path: Path, kind: str, tool: str
) -> None:
    need("patchelf")
    need(STRIPS[tool][0])
    program = workshop.program(*RICH, "-g", *KINDS[kind])
    files = list(rounds(workshop, tmp_path, program, [SHRINK, STRIPS[tool]]))
    sizes = [os.stat(file).st_size for file in files]
    assert len(set(sizes[1:])) == 1, sizes
    assert [run(file) for file in files] == ["42 phdr"] * 5
    assert all(facts(file).stale_undo for file in files)


LONGER = "/somewhere/else/" + "x" * 200


@pytest.fixture(params=["pie", "library"])
def moved(request: pytest.FixtureRequest, workshop: Workshop, tmp_path: Path) -> str:
    """An edited file whose string table patchelf has moved since, to make room for a longer search path."""
    need("patchelf")
    kind = request.param
    source = workshop.library(*RICH) if kind == "library" else workshop.program(*RICH, *KINDS[kind])
    out = os.path.join(tmp_path, "out")
    edit_file(source, out, ElfEdit("/first"))
    subprocess.run(["patchelf", "--set-rpath", f"{LONGER}:{workshop.there}", out], check=True)
    return out


def test_file_of_an_old_patchelf_does_not_pass_for_untouched_either(
    workshop: Workshop, tmp_path: Path
) -> None:
    """Version 0.14 lets tables of a non-PIE run beyond their PT_LOAD; the pages are mapped whole."""
    need("patchelf")
    out = os.path.join(tmp_path, "out")
    edit_file(workshop.program(*RICH, *KINDS["non-pie"]), out, ElfEdit("/first"))
    subprocess.run(["patchelf", "--set-rpath", f"{LONGER}:{workshop.there}", out], check=True)
    found = read(out)
    assert found.reason is SkipReason.MALFORMED if isinstance(found, Skip) else found.stale_undo


def works(path: str) -> bool:
    return run(path) == "42 phdr" or load(path) == "42"


def test_file_whose_string_table_went_elsewhere_does_not_pass_for_untouched(
    workshop: Workshop, tmp_path: Path, moved: str
) -> None:
    found = facts(moved)
    assert found.current.search_path == f"{LONGER}:{workshop.there}"
    assert found.stale_undo
    assert found.original_sha256 is None
    with pytest.raises(FileRefused, match="stale"):
        restore_file(moved, os.path.join(tmp_path, "back"))


def test_file_whose_string_table_went_elsewhere_can_be_edited_but_not_undone(
    workshop: Workshop, tmp_path: Path, moved: str
) -> None:
    out = os.path.join(tmp_path, "again")
    edit = ElfEdit(f"/second:{workshop.there}")
    with open(out, "xb+") as file:
        assert "cannot be undone" in write_edited(moved, file.fileno(), edit).notes[-1]
        assert check(moved, file.fileno(), edit, deep=True) == ()
    os.chmod(out, 0o755)
    assert works(out)
    assert facts(out).stale_undo
    with pytest.raises(FileRefused, match="stale"):
        restore_file(out, os.path.join(tmp_path, "back"))
    sizes = []
    for number in range(3):
        once_more = os.path.join(tmp_path, f"round{number}")
        edit_file(out, once_more, ElfEdit(f"/round/{number}:{workshop.there}"))
        assert works(once_more)
        sizes.append(os.stat(once_more).st_size)
        out = once_more
    assert len(set(sizes)) == 1
