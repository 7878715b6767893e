"""Which strings in a file are libraries that it opens, and who calls dlopen for it."""

import pytest

from nixpatch.model import DlopenStrings, OpenedNeed
from nixpatch.policy import default_policy, parse
from nixpatch.resolve.opened_libraries import (
    UNKNOWN,
    LeftOutName,
    OpenedLibrary,
    OpeningFile,
    alternatives,
    needs_by_caller,
    opened_libraries,
)
from support.resolving import World, elf

POLICY = default_policy()


def opening(
    *names: str,
    path: str = "/t/p/libmine.so",
    soname: str | None = "libmine.so.1",
    needed: tuple[str, ...] = (),
    symbols: tuple[str, ...] = ("dlopen",),
    in_text: tuple[str, ...] = (),
    beside: frozenset[str] = frozenset(),
) -> OpeningFile:
    return OpeningFile(path, soname, needed, DlopenStrings(symbols, names, in_text), beside)


def opened(file: OpeningFile, unknown: frozenset[str] = frozenset()) -> list[tuple[str, ...]]:
    return [
        library.sonames for library in opened_libraries(file, POLICY, lambda name: name not in unknown)[0]
    ]


def reason(file: OpeningFile, unknown: frozenset[str] = frozenset()) -> str:
    """Why the only name of a file is left out."""
    libraries, left_out = opened_libraries(file, POLICY, lambda name: name not in unknown)
    assert libraries == ()
    (row,) = left_out
    return row.reason


def test_a_file_that_calls_dlopen_searches_for_itself() -> None:
    libraries, left_out = opened_libraries(opening("libX11.so.6"), POLICY, lambda _: True)
    assert libraries == (OpenedLibrary(("libX11.so.6",), ("",)),)
    assert left_out == ()


def test_names_of_one_library_are_alternatives_the_newest_first() -> None:
    assert opened(opening("libGL.so", "libEGL.so.1", "libGL.so.1")) == [
        ("libGL.so.1", "libGL.so"),
        ("libEGL.so.1",),
    ]
    assert alternatives(["libz.so.1.9", "libz.so", "libz.so.1.10"]) == (
        ("libz.so.1.10", "libz.so.1.9", "libz.so"),
    )


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("libmine.so.1", {}),
        ("libmine.so", {}),
        (
            "libcrypto.so.1.1",
            {"soname": "libcrypto-5409cd36.so.1.1.1k", "path": "/t/libcrypto-5409cd36.so.1.1.1k"},
        ),
        ("libPlugin.so", {"soname": None, "path": "/t/libPlugin.so"}),
    ],
)
def test_its_own_name_is_no_need(name: str, file: dict[str, str]) -> None:
    assert reason(opening(name, **file)) == "the file's own name"  # type: ignore[arg-type]


def test_what_it_needs_already_is_no_other_need() -> None:
    assert reason(opening("libX11.so.6", needed=("libX11.so.6",))) == "needed by the file already"


@pytest.mark.parametrize(
    "name", ["libc.so.6", "libdl.so.2", "libdl.so", "libm.so", "libpthread.so.0", "libresolv.so.2"]
)
def test_libc_is_no_need(name: str) -> None:
    assert reason(opening(name)) == "a part of libc"


def test_a_library_of_the_same_dist_is_left_to_the_dist() -> None:
    file = opening("libplugin.so", beside=frozenset({"libplugin.so"}))
    assert reason(file).startswith("a file of the same dist")


def test_what_nobody_has_is_left_out_but_a_driver_is_not() -> None:
    assert reason(opening("libgsk8.so"), frozenset({"libgsk8.so"})) == UNKNOWN
    assert opened(opening("libcuda.so.1"), frozenset({"libcuda.so.1"})) == [("libcuda.so.1",)]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("libpython3.11.so", "/t/rasterio.libs/libgdal.so.36"),
        ("libpython3.7m.so", "/t/rasterio.libs/libgdal.so.36"),
        ("libittnotify.so", "/t/cv2/cv2.abi3.so"),
        ("libiomp5.so", "/t/lib/libtbb.so.12"),
        ("libtbbmalloc.so.2", "/t/lib/libother.so.12"),
        ("libmkl_avx2.so.2", "/t/torch/lib/libtorch_cpu.so"),
        ("libstdc++.so.6", "/t/cefpython3/libcef.so"),
        ("libjvm.so", "/t/pyarrow/libarrow.so.2600"),
        ("libGL.so.1", "/t/triton/backends/nvidia/lib/cupti/libcupti.so.12"),
        ("libvulkan_radeon.so", "/t/PyQt6/Qt6/lib/libQt6WebEngineCore.so.6"),
    ],
)
def test_names_that_the_tables_say_no_to(name: str, path: str) -> None:
    file = opening(name, path=path, soname=None)
    assert reason(file) in {row.reason for row in POLICY.dlopen.never}


@pytest.mark.parametrize(
    ("symbol", "needed", "caller"),
    [
        ("_ZN8QLibrary4loadEv", ("libQt6Network.so.6", "libQt6Core.so.6"), "libQt6Core.so.6"),
        ("_ZN8QLibrary4loadEv", ("libQt5Core-2f1b5c3d.so.5.15.2",), "libQt5Core-2f1b5c3d.so.5.15.2"),
        ("SDL_LoadObject", ("libSDL2-2-1667c208.0.so.0.2800.4",), "libSDL2-2-1667c208.0.so.0.2800.4"),
        ("g_module_open_full", ("libgmodule-2.0.so.0", "libglib-2.0.so.0"), "libgmodule-2.0.so.0"),
    ],
)
def test_a_library_that_opens_for_others_is_where_ld_so_searches(
    symbol: str, needed: tuple[str, ...], caller: str
) -> None:
    file = opening("libmodplug.so.1", needed=needed, symbols=(symbol,))
    (library,) = opened_libraries(file, POLICY, lambda _: True)[0]
    assert library.callers == (caller,)


def test_a_file_that_does_both_is_searched_for_in_both() -> None:
    file = opening("libX11.so.6", needed=("libQt6Core.so.6",), symbols=("_ZN8QLibraryD1Ev", "dlopen"))
    (library,) = opened_libraries(file, POLICY, lambda _: True)[0]
    assert library.callers == ("", "libQt6Core.so.6")


def test_openssl_of_qt_stands_in_no_string() -> None:
    path = "/t/PyQt6/Qt6/plugins/tls/libqopensslbackend.so"
    file = opening(path=path, needed=("libQt6Core.so.6",), symbols=("_ZN8QLibrary4loadEv",))
    libraries, _ = opened_libraries(file, POLICY, lambda _: False)
    assert [library.sonames for library in libraries] == [("libssl.so.3",), ("libcrypto.so.3",)]
    assert all(library.callers == ("libQt6Core.so.6",) and library.reason for library in libraries)


def test_a_name_in_text_counts_where_a_library_has_it() -> None:
    known = {"libvulkan.so.1"}
    file = opening(in_text=("libraryofliblibvulkan.so.1", "libcould.so.1"))
    libraries, left_out = opened_libraries(file, POLICY, known.__contains__)
    assert [library.sonames for library in libraries] == [("libvulkan.so.1",)]
    assert left_out == (LeftOutName("libcould.so.1", UNKNOWN),)


def test_users_rows_come_first() -> None:
    rows = parse(
        {
            "dlopen": {
                "opener": [{"symbols": ["lt_dlopen*"], "libraries": ["libltdl.so.*"], "reason": "libtool"}],
                "name": [{"file": "*/libmine.so", "sonames": ["libodbc.so.2"], "reason": "a plugin"}],
                "never": [{"file": "*", "sonames": ["libno.so*"], "reason": "mine"}],
            }
        }
    )
    file = opening("libno.so.1", needed=("libltdl.so.7",), symbols=("lt_dlopenext",))
    libraries, left_out = opened_libraries(file, POLICY.extended(rows), lambda _: True)
    assert libraries == (OpenedLibrary(("libodbc.so.2",), ("libltdl.so.7",), "a plugin"),)
    assert left_out == (LeftOutName("libno.so.1", "mine"),)


class TestNeedsByCaller:
    """The file in whose search path ld.so looks."""

    def test_the_file_itself(self) -> None:
        world = World(files={"p/_ext.so": elf()})
        assert needs(world, {"p/_ext.so": DlopenStrings(("dlopen",), ("libX11.so.6",))}) == {
            "p/_ext.so": [(("libX11.so.6",), "p/_ext.so")]
        }

    def test_a_library_that_opens_for_two(self) -> None:
        """The need is that of the opener; who asked stands beside it."""
        core = "libQt6Core.so.6"
        world = World(files={"p/a.so": elf(core), "p/b.so": elf(core), f"p/{core}": elf(soname=core)})
        held = DlopenStrings(("_ZN8QLibrary4loadEv",), ("libmodplug.so.1",))
        assert needs(world, {"p/a.so": held, "p/b.so": held}) == {
            f"p/{core}": [(("libmodplug.so.1",), "p/a.so"), (("libmodplug.so.1",), "p/b.so")]
        }

    def test_the_opener_of_the_own_dist_comes_first(self) -> None:
        core = "libQt6Core.so.6"
        files = {"p/a.so": elf(core), f"p/{core}": elf(soname=core), f"other/{core}": elf(soname=core)}
        held = DlopenStrings(("_ZN8QLibrary4loadEv",), ("libmodplug.so.1",))
        assert set(needs(World(files=files), {"p/a.so": held})) == {f"p/{core}"}
        del files[f"p/{core}"]
        assert set(needs(World(files=files), {"p/a.so": held})) == {f"other/{core}"}

    def test_an_opener_outside_the_tree_is_not_ours_to_edit(self) -> None:
        world = World(files={"p/a.so": elf("libQt6Core.so.6")})
        held = DlopenStrings(("_ZN8QLibrary4loadEv",), ("libmodplug.so.1",))
        assert needs(world, {"p/a.so": held}) == {}

    def test_a_library_of_the_same_dist_is_none(self) -> None:
        world = World(files={"p/a.so": elf(), "p/sub/libplug.so": elf()})
        assert needs(world, {"p/a.so": DlopenStrings(("dlopen",), ("libplug.so",))}) == {}

    def test_names_of_sources_are_needs_of_every_cffi_backend(self) -> None:
        names = ("_cffi_backend.cpython-312-x86_64-linux-gnu.so", "other/_cffi_backend.so", "p/_cffi_ext.so")
        world = World(files={name if "/" in name else f"cffi/{name}": elf() for name in names})
        need = OpenedNeed(("libpango-1.0.so.0",), "weasyprint/text/ffi.py:1")
        found = needs(world, {}, need)
        assert set(found) == {f"cffi/{names[0]}", names[1]}
        assert set(map(tuple, found.values())) == {((need.sonames, "weasyprint/text/ffi.py:1"),)}


def needs(
    world: World, strings: dict[str, DlopenStrings], *cffi: OpenedNeed
) -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """Return the needs with relative paths."""
    context = world.question()
    held = {world.at(name): value for name, value in strings.items()}
    start = f"{context.tree.root}/"
    return {
        path.removeprefix(start): [(need.sonames, need.opener.removeprefix(start)) for need in of_file]
        for path, of_file in needs_by_caller(context, held, lambda _: True, cffi).items()
    }
