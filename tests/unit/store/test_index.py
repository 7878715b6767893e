import os
from pathlib import Path

import pytest

from nixpatch.model import Libc, Source
from support.store_fakes import I686, X86_64, World, library, symlink, world


@pytest.fixture
def here(tmp_path: Path) -> World:
    return world(tmp_path)


def test_provider_says_all_that_the_choice_needs(here: World) -> None:
    zlib = here.path("zlib-1.3.1")
    needs = [
        ("libc.so.6", ["GLIBC_2.34", "GLIBC_ABI_DT_RELR"]),
        ("libfoo.so.1", ["FOO_1"]),
        ("libm.so.6", ["GLIBC_2.2"]),
    ]
    library(f"{zlib}/lib/libz.so.1.3.1", soname="libz.so.1", needs=needs, defs=["ZLIB_1.2.9"])
    symlink(f"{zlib}/lib/libz.so.1", "libz.so.1.3.1")
    (provider,) = here.index().providers("libz.so.1")
    assert provider.name == "libz.so.1"
    assert provider.directory == f"{zlib}/lib"
    assert provider.real == f"{zlib}/lib/libz.so.1.3.1"
    assert provider.machine == X86_64
    assert provider.soname == "libz.so.1"
    assert provider.source is Source.STORE
    assert provider.package == "zlib-1.3.1"
    assert not provider.in_target_closure
    assert provider.version_defs == {"ZLIB_1.2.9"}
    assert provider.libc_needs == {"GLIBC_2.34", "GLIBC_ABI_DT_RELR", "GLIBC_2.2"}
    assert not provider.beside_libc
    assert provider.libc is Libc.GLIBC


def test_order_is_source_then_target_closure_then_newest_version(here: World) -> None:
    python = here.path("python3-3.12")
    versions = {name: here.path(f"zlib-{name}") for name in ("1.2", "1.9", "1.10", "1.10pre1")}
    for path in versions.values():
        library(f"{path}/lib/libz.so.1")
    here.python = library(f"{python}/bin/python3", executable=True, search_path=f"{versions['1.2']}/lib")
    library(f"{here.root}/opt/libz.so.1")
    found = here.found("libz.so.1", f"{here.root}/opt")
    best = ["1.2", "1.10", "1.10pre1", "1.9"]
    assert found == [f"{here.root}/opt", *(f"{versions[name]}/lib" for name in best)]


def test_among_equals_the_one_of_the_targets_closure_is_first(here: World) -> None:
    python, ours, other = here.path("python3-3"), here.path("zlib-1.2"), here.path("zlib-1.3")
    for path in (ours, other):
        library(f"{path}/lib/libz.so.1")
    here.python = library(f"{python}/bin/python3", executable=True, search_path=f"{ours}/lib")
    index = here.index(closures=(other, ours))
    assert [provider.in_target_closure for provider in index.providers("libz.so.1")] == [True, False]
    assert [provider.source for provider in index.providers("libz.so.1")] == [Source.CLOSURE, Source.CLOSURE]


def test_of_several_libs_the_first_one_given_wins(here: World) -> None:
    older, newer = here.path("zlib-1.2"), here.path("zlib-1.3")
    for path in (older, newer):
        library(f"{path}/lib/libz.so.1")
    assert here.found("libz.so.1", older, newer) == [f"{older}/lib", f"{newer}/lib"]
    assert here.found("libz.so.1", newer, older) == [f"{newer}/lib", f"{older}/lib"]


def test_equal_versions_are_ordered_by_path(here: World) -> None:
    paths = [here.path("zlib-1.3", salt=str(number)) for number in range(5)]
    for path in paths:
        library(f"{path}/lib/libz.so.1")
    assert here.found("libz.so.1") == [f"{path}/lib" for path in sorted(paths)]


def test_every_machine_is_told_apart(here: World) -> None:
    library(f"{here.path('zlib-1.3')}/lib/libz.so.1")
    library(f"{here.path('zlib-1.3', salt='i686')}/lib/libz.so.1", machine=I686)
    machines = {provider.machine for provider in here.index().providers("libz.so.1")}
    assert machines == {X86_64, I686}


def test_a_soname_without_a_file_of_that_name_is_no_provider(here: World) -> None:
    # ld.so opens DIRECTORY/NEEDED: what the library calls itself does not help it to be found.
    foo = here.path("foo-1.2.3")
    library(f"{foo}/lib/libfoo.so.1.2.3", soname="libfoo.so.1")
    index = here.index()
    assert index.providers("libfoo.so.1") == ()
    assert index.considered("libfoo.so.1") == (f"{foo}/lib/libfoo.so.1.2.3: another name",)


def test_a_missing_library_is_told_its_neighbours_of_another_version(here: World) -> None:
    ssl = here.path("openssl-1.1")
    library(f"{ssl}/lib/libssl.so.1.1")
    library(f"{ssl}/lib/libssl3.so")
    assert here.index().considered("libssl.so.3") == (f"{ssl}/lib/libssl.so.1.1: another name",)


def test_only_shared_libraries_count_and_the_rest_is_explained(here: World) -> None:
    lib = f"{here.path('odd-1')}/lib"
    os.makedirs(f"{lib}/libdir.so")
    Path(f"{lib}/libscript.so").write_text("GROUP ( libscript.so.1 )")
    Path(f"{lib}/libempty.so").write_text("")
    library(f"{lib}/prog.so", executable=True)
    symlink(f"{lib}/libdead.so", "libgone.so.1")
    symlink(f"{lib}/libround.so", "libround.so")
    os.mkfifo(f"{lib}/libpipe.so")
    index = here.index()
    for name, why in {
        "libdir.so": "not a regular file",
        "libscript.so": "not an ELF file",
        "libempty.so": "not an ELF file",
        "prog.so": "a program, not a library",
        "libdead.so": "No such file",
        "libround.so": "",
        "libpipe.so": "not a regular file",
    }.items():
        assert index.providers(name) == ()
        assert f"{lib}/{name}: {why}" in index.considered(name)[0]


def test_a_link_farm_gives_way_to_the_store_path_behind_it(here: World) -> None:
    zlib, xz, farm = here.path("zlib-1.3"), here.path("xz-5"), here.path("system-path")
    library(f"{zlib}/lib/libz.so.1.3", soname="libz.so.1")
    symlink(f"{zlib}/lib/libz.so.1", "libz.so.1.3")
    symlink(f"{farm}/lib/libz.so.1", f"{zlib}/lib/libz.so.1")  # link to the link
    library(f"{xz}/lib/liblzma.so.5.6", soname="liblzma.so.5")
    symlink(f"{xz}/lib/liblzma.so.5", "liblzma.so.5.6")
    symlink(f"{farm}/lib/liblzma.so.5", f"{xz}/lib/liblzma.so.5.6")  # link to the file
    for name, home, package in (("libz.so.1", zlib, "zlib-1.3"), ("liblzma.so.5", xz, "xz-5")):
        (provider,) = here.index(farm, pure=True).providers(name)
        assert (provider.directory, provider.name) == (f"{home}/lib", name)
        assert provider.package == package
        # The store at large has the same library: it stays one, known from where it was first asked for.
        assert [provider.source for provider in here.index(farm).providers(name)] == [Source.LIB]


def test_a_link_farm_over_another_keeps_the_last_directory_that_has_the_name(here: World) -> None:
    real, middle, farm = here.path("gcc-13-libgcc"), here.path("gcc-13-lib"), here.path("env")
    library(f"{real}/lib/libgcc_s-13.so")
    symlink(f"{middle}/lib/libgcc_s.so.1", f"{real}/lib/libgcc_s-13.so")
    symlink(f"{farm}/lib/libgcc_s.so.1", f"{middle}/lib/libgcc_s.so.1")
    assert here.found("libgcc_s.so.1", farm, pure=True) == [f"{middle}/lib"]


def test_a_mutable_profile_outside_the_store_gives_way_too(here: World) -> None:
    zlib = here.path("zlib-1.3")
    library(f"{zlib}/lib/libz.so.1")
    symlink(f"{here.root}/profile/lib/libz.so.1", f"{zlib}/lib/libz.so.1")
    (provider,) = here.index(f"{here.root}/profile", pure=True).providers("libz.so.1")
    assert provider.directory == f"{zlib}/lib"
    assert provider.source is Source.LIB


def test_links_within_one_store_path_stay(here: World) -> None:
    app = here.path("app-1")
    library(f"{app}/libexec/app/libapp.so.1")
    symlink(f"{app}/lib/libapp.so.1", "../libexec/app/libapp.so.1")
    assert here.found("libapp.so.1") == [f"{app}/lib"]


def test_a_directory_with_a_libc_is_marked(here: World) -> None:
    glibc, musl, zlib = here.path("glibc-2.40"), here.path("musl-1.2"), here.path("zlib-1")
    library(f"{glibc}/lib/libc.so.6")
    library(f"{glibc}/lib/libz.so.1")
    library(f"{musl}/lib/libc.so")
    library(f"{musl}/lib/libz.so.1", needed=["libc.so"])
    library(f"{zlib}/lib/libz.so.1")
    found = {provider.package: provider for provider in here.index().providers("libz.so.1")}
    assert {name: provider.beside_libc for name, provider in found.items()} == {
        "glibc-2.40": True,
        "musl-1.2": True,
        "zlib-1": False,
    }
    assert found["musl-1.2"].libc is Libc.MUSL


def test_the_home_of_a_farmed_library_is_judged_not_the_farm(here: World) -> None:
    glibc, zlib, farm = here.path("glibc-2.40"), here.path("zlib-1"), here.path("system-path")
    library(f"{glibc}/lib/libc.so.6")
    library(f"{zlib}/lib/libz.so.1")
    symlink(f"{farm}/lib/libc.so.6", f"{glibc}/lib/libc.so.6")
    symlink(f"{farm}/lib/libz.so.1", f"{zlib}/lib/libz.so.1")
    (provider,) = here.index(farm, pure=True).providers("libz.so.1")
    assert not provider.beside_libc


def test_stubs_never_serve(here: World) -> None:
    cuda = here.path("cuda-12")
    library(f"{cuda}/lib/stubs/libcuda.so.1")
    symlink(f"{cuda}/lib/libcuda.so.1", "stubs/libcuda.so.1")
    index = here.index(f"{cuda}/lib/stubs")
    assert index.providers("libcuda.so.1") == ()
    assert index.considered("libcuda.so.1") == (f"{cuda}/lib/libcuda.so.1: a stub, only for linking",)


@pytest.mark.parametrize("name", ["", "/lib/libz.so.1", "../libz.so.1", "lib\udcff.so", "nothing.so.1"])
def test_names_that_nobody_has(here: World, name: str) -> None:
    library(f"{here.path('zlib-1')}/lib/libz.so.1")
    assert here.index().providers(name) == ()
    assert isinstance(here.index().considered(name), tuple)


def test_a_name_that_is_not_utf8_is_found(here: World) -> None:
    library(f"{here.path('odd-1')}/lib/lib\udcff.so.1", soname="libodd.so.1")
    (provider,) = here.index().providers("lib\udcff.so.1")
    assert provider.name == "lib\udcff.so.1"


def test_no_header_is_read_that_nobody_asked_for(here: World) -> None:
    for number in range(20):
        library(f"{here.path(f'p{number}-1')}/lib/lib{number}.so.1")
    index = here.index()
    assert here.reader.asked == []
    index.providers("lib3.so.1")
    index.providers("lib3.so.1")
    assert [os.path.basename(path) for path in here.reader.asked] == ["lib3.so.1"]
