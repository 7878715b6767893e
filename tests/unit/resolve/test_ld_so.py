"""The simulator where no compiler is needed; tests/loader holds it against the real ld.so."""

import pytest

from nixpatch.model import ElfFacts, Tag
from nixpatch.model.trace import SimulatedProcess, UnmetNeed
from nixpatch.resolve.ld_so import LoaderConfig, locate, simulate
from support.resolving import I686, X86_64, elf

HERE = "/venv/lib/pkg"


def run(files: dict[str, ElfFacts], *opened: str, library_path: tuple[str, ...] = ()) -> SimulatedProcess:
    files = {"/bin/python": elf(interp="/ld.so"), **files}
    around = LoaderConfig(files.get, default_dirs=("/lib",), ld_library_path=library_path)
    return simulate("/bin/python", around, opened)


def paths(process: SimulatedProcess) -> list[str]:
    return [mapped.path for mapped in process.mapped[1:]]


def scipy(path: str | None = None) -> dict[str, ElfFacts]:
    return {
        "/s/_fblas.so": elf("libgfortran.so.5", path="$ORIGIN/libs", tag=Tag.RPATH),
        "/s/libs/libgfortran.so.5": elf("libquadmath.so.0", path=path),
        "/s/libs/libquadmath.so.0": elf("libc.so.6"),
        "/lib/libc.so.6": elf(),
    }


def test_rpath_is_inherited() -> None:
    process = run(scipy(), "/s/_fblas.so")
    assert paths(process) == ["/s/_fblas.so", *list(scipy())[1:]]
    assert process.mapped[3].by == "/s/libs/libgfortran.so.5"


def test_runpath_of_ones_own_switches_the_inherited_rpath_off() -> None:
    process = run(scipy(path="/nix/store/x"), "/s/_fblas.so")
    assert process.unmet == (UnmetNeed("libquadmath.so.0", "/s/libs/libgfortran.so.5"),)
    assert paths(process) == []  # dlopen() fails as a whole


def test_loaded_soname_serves_whoever_asks_later() -> None:
    files = {
        "/a/x.so": elf("liby.so", path="$ORIGIN"),
        "/a/liby.so": elf(soname="liby.so"),
        "/b/x.so": elf("liby.so", path="$ORIGIN"),
        "/b/liby.so": elf(soname="liby.so"),
    }
    assert paths(run(files, "/a/x.so", "/b/x.so")) == ["/a/x.so", "/a/liby.so", "/b/x.so"]
    assert paths(run(files, "/b/x.so", "/a/x.so")) == ["/b/x.so", "/b/liby.so", "/a/x.so"]


@pytest.mark.parametrize(
    ("tag", "expected"), [(Tag.RPATH, "/own/liby.so"), (Tag.RUNPATH, "/env/liby.so"), (None, "/env/liby.so")]
)
def test_library_path_goes_between_rpath_and_runpath(tag: Tag | None, expected: str) -> None:
    files = {
        "/x.so": elf("liby.so", path="/own" if tag else None, tag=tag),
        "/own/liby.so": elf(),
        "/env/liby.so": elf(),
        "/lib/liby.so": elf(),
    }
    assert paths(run(files, "/x.so", library_path=("/env",)))[1] == expected


def test_other_machine_is_passed_over_and_default_directories_can_be_forbidden() -> None:
    files = {"/x.so": elf("liby.so", path="/a"), "/a/liby.so": elf(machine=I686), "/lib/liby.so": elf()}
    assert paths(run(files, "/x.so")) == ["/x.so", "/lib/liby.so"]
    files["/x.so"] = elf("liby.so", path="/a", no_default_lib=True)
    assert run(files, "/x.so").unmet == (UnmetNeed("liby.so", "/x.so"),)


def test_program_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        simulate("/gone", LoaderConfig(lambda _: None))


@pytest.mark.parametrize(
    ("need", "search_path", "found"),
    [
        ("libx.so", "$ORIGIN:/b", "/b/libx.so"),  # the one in $ORIGIN is of another machine
        ("libx.so", "/c:/b", "/c/libx.so"),
        ("libx.so", "/nowhere::b", "/default/libx.so"),
        ("libx.so", None, "/default/libx.so"),
        ("liby.so", "/b:/c", None),
        ("/b/libx.so", "/c", "/b/libx.so"),
        ("/gone/libx.so", "/c", None),
        ("$ORIGIN/../../../b/libx.so", None, "/b/libx.so"),
        ("b/libx.so", "/b:/", None),
    ],
)
def test_where_a_file_on_its_own_finds_a_need(need: str, search_path: str | None, found: str | None) -> None:
    machines = {f"{HERE}/libx.so": I686} | dict.fromkeys(
        ("/b/libx.so", "/c/libx.so", "/default/libx.so", "b/libx.so", "//b/libx.so"), X86_64
    )
    located = locate(
        need,
        search_path=search_path,
        directory=HERE,
        machine=X86_64,
        machine_of=machines.get,
        default_dirs=("/default",),
    )
    assert (located.path if located else None) == found
