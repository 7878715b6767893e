import os
from pathlib import Path

import pytest

from nixpatch.errors import RequestError
from nixpatch.model import Source
from nixpatch.store.index import open_index
from nixpatch.store.nix_store import find_store
from nixpatch.store.sources import LibrarySources
from support.store_fakes import AARCH64, I686, World, library, searched, symlink, world


@pytest.fixture
def here(tmp_path: Path) -> World:
    return world(tmp_path)


def sources(
    here: World, *libs: str, closures: tuple[str, ...] = (), pure: bool = False
) -> list[tuple[str, Source]]:
    index = here.index(*libs, closures=closures, pure=pure)
    return [(os.path.relpath(found.path, here.root), found.source) for found in searched(index)]


def test_lib_takes_a_directory_of_libraries_as_it_was_given(here: World) -> None:
    library(f"{here.root}/opt/mkl-1/libmkl.so")
    symlink(f"{here.root}/opt/mkl", "mkl-1")
    assert sources(here, f"{here.root}/opt/mkl") == [("opt/mkl", Source.LIB)]


def test_lib_takes_lib_and_lib64_of_a_prefix(here: World) -> None:
    library(f"{here.root}/opt/lib/liba.so")
    library(f"{here.root}/opt/lib64/libb.so")
    assert sources(here, f"{here.root}/opt") == [("opt/lib", Source.LIB), ("opt/lib64", Source.LIB)]


def test_lib64_that_is_lib_counts_once(here: World) -> None:
    zlib = here.path("zlib-1.3")
    library(f"{zlib}/lib/libz.so.1")
    symlink(f"{zlib}/lib64", "lib")
    assert [path for path, _ in sources(here)] == [os.path.relpath(f"{zlib}/lib", here.root)]
    assert len(sources(here, zlib, pure=True)) == 1


def test_lib_named_twice_keeps_the_order_given(here: World) -> None:
    for name in "ba":
        library(f"{here.root}/{name}/libx.so")
    assert [path for path, _ in sources(here, f"{here.root}/b", f"{here.root}/a", f"{here.root}/b")] == [
        "b",
        "a",
    ]


def test_lib_through_a_profile_is_written_as_the_store_path_behind_it(here: World) -> None:
    env = here.path("user-environment")
    library(f"{env}/lib/libz.so.1")
    symlink(f"{here.root}/profile", env)
    assert here.found("libz.so.1", f"{here.root}/profile/lib", pure=True) == [f"{env}/lib"]
    assert here.found("libz.so.1", f"{here.root}/profile", pure=True) == [f"{env}/lib"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("absent", "does not exist"),
        ("libz.so.1", "not a directory"),
        ("empty", "holds no shared library"),
        ("scripts", "holds no shared library"),
        ("foreign", "its libraries are for aarch64, i686, the target Python is x86_64"),
    ],
)
def test_lib_that_cannot_serve_is_a_wrong_request(here: World, given: str, message: str) -> None:
    library(f"{here.root}/libz.so.1")
    os.makedirs(f"{here.root}/empty/lib")
    os.makedirs(f"{here.root}/scripts")
    Path(f"{here.root}/scripts/libz.so").write_text("INPUT(libz.so.1)")
    library(f"{here.root}/foreign/liba.so", machine=AARCH64)
    library(f"{here.root}/foreign/libb.so", machine=I686)
    with pytest.raises(RequestError, match=message) as caught:
        here.index(f"{here.root}/{given}")
    assert f"--lib {here.root}/{given}" in str(caught.value)


def test_lib_with_one_library_for_the_target_among_foreign_ones_is_fine(here: World) -> None:
    library(f"{here.root}/mixed/liba.so", machine=AARCH64)
    library(f"{here.root}/mixed/libb.so")
    assert here.found("libb.so", f"{here.root}/mixed") == [f"{here.root}/mixed"]


def test_closure_brings_what_a_store_path_needs(here: World) -> None:
    zlib, png = here.path("zlib-1.3"), here.path("libpng-1.6")
    library(f"{zlib}/lib/libz.so.1")
    library(f"{png}/lib/libpng16.so.16", search_path=f"{zlib}/lib")
    symlink(f"{here.root}/result", png)
    for given in (png, f"{here.root}/result"):
        index = here.index(closures=[given], pure=True)
        assert [provider.source for provider in index.providers("libz.so.1")] == [Source.CLOSURE]


@pytest.mark.parametrize(
    ("given", "message"), [("absent", "does not exist"), ("plain", "not a path in the store")]
)
def test_closure_of_something_else_is_a_wrong_request(here: World, given: str, message: str) -> None:
    os.makedirs(f"{here.root}/plain")
    with pytest.raises(RequestError, match=message):
        here.index(closures=[f"{here.root}/{given}"])


def test_closure_of_a_collected_path_is_a_wrong_request(here: World) -> None:
    gone = here.path("gone-1")
    os.rmdir(gone)
    symlink(f"{here.root}/result", gone)
    for given in (gone, f"{here.root}/result"):
        with pytest.raises(RequestError, match="does not exist"):
            here.index(closures=[given])


def test_pure_searches_what_was_given_and_the_targets_closure_only(here: World) -> None:
    python, zlib = here.path("python3-3.12"), here.path("zlib-1.3")
    library(f"{here.path('xz-5')}/lib/liblzma.so.5")
    library(f"{zlib}/lib/libz.so.1")
    here.python = library(f"{python}/bin/python3.12", executable=True, search_path=f"{zlib}/lib")
    assert here.found("liblzma.so.5", pure=True) == []
    assert here.found("liblzma.so.5") != []
    assert here.found("libz.so.1", pure=True) == [f"{zlib}/lib"]


def test_target_closure_starts_at_the_real_interpreter_and_at_its_loader(here: World) -> None:
    python, glibc, zlib = here.path("python3-3.12"), here.path("glibc-2.40"), here.path("zlib-1.3")
    library(f"{zlib}/lib/libz.so.1")
    library(f"{python}/bin/python3.12", executable=True, search_path=f"{zlib}/lib")
    here.python = symlink(f"{here.root}/venv/bin/python", f"{python}/bin/python3.12")
    here.loader = library(f"{glibc}/lib/ld-linux-x86-64.so.2")
    index = here.index()
    assert index.target_closure == {python, glibc, zlib}
    assert {found.path: found.source for found in searched(index)} == {
        f"{zlib}/lib": Source.TARGET_CLOSURE,
        f"{glibc}/lib": Source.TARGET_CLOSURE,
    }


@pytest.mark.parametrize(
    "name", ["zlib-1.3-dev", "zlib-1.3-debug", "zlib-1.3-doc", "zlib-1.3-man", "cuda-12-stubs"]
)
def test_outputs_that_are_not_for_loading_are_no_source(here: World, name: str) -> None:
    library(f"{here.path(name)}/lib/libz.so.1")
    assert here.found("libz.so.1") == []


@pytest.mark.parametrize("suffix", [".drv", ".lock", ".chroot"])
def test_what_nix_leaves_beside_the_store_paths_is_no_source(here: World, suffix: str) -> None:
    library(f"{here.path('zlib-1.3')}{suffix}/lib/libz.so.1")
    library(f"{here.root}/nix/store/.links/lib/libz.so.1")
    library(f"{here.root}/nix/store/stray/lib/libz.so.1")
    assert here.found("libz.so.1") == []


def test_no_store_at_all_leaves_what_was_given(here: World, tmp_path: Path) -> None:
    library(f"{here.root}/opt/libz.so.1")
    nowhere = find_store(None, {"NIX_STORE_DIR": f"{here.root}/absent"})
    assert not nowhere.exists
    index = open_index(nowhere, here.target, here.reader, LibrarySources(libs=(f"{here.root}/opt",)))
    assert [provider.directory for provider in index.providers("libz.so.1")] == [f"{here.root}/opt"]


def test_order_is_the_same_whatever_the_file_system_says(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        library(f"{here.path(f'p{number}-1')}/lib/libx.so")
    first = searched(here.index())
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: list(reversed(listdir(path))))
    assert searched(here.index()) == first
    assert [found.path for found in first] == sorted(found.path for found in first)
