import os
from dataclasses import replace
from pathlib import Path

import pytest

from nixpatch.errors import MachineError
from nixpatch.store.cache import Cache
from nixpatch.store.cached_reads import CachedHeaders
from nixpatch.store.closure import closure
from support.store_fakes import World, library, symlink, world


@pytest.fixture
def here(tmp_path: Path) -> World:
    return world(tmp_path)


def packages(here: World, *paths: str) -> set[str]:
    found = closure(here.store, paths, CachedHeaders(here.reader, Cache()))
    assert list(found) == sorted(found)
    return {here.store.package_name(path) for path in found}


def test_search_paths_interpreters_and_absolute_needs_are_followed(here: World) -> None:
    glibc, zlib, ssl = here.path("glibc-2.40"), here.path("zlib-1.3"), here.path("openssl-3")
    python = here.path("python3-3.12")
    library(f"{zlib}/lib/libz.so.1", search_path=f"{glibc}/lib")
    library(f"{python}/bin/python3.12", interp=f"{glibc}/lib/ld.so", search_path=f"$ORIGIN/../lib:{zlib}/lib")
    library(f"{python}/lib/python3.12/lib-dynload/_ssl.so", needed=[f"{ssl}/lib/libssl.so.3"])
    here.path("unrelated-1")
    assert packages(here, python) == {"python3-3.12", "zlib-1.3", "glibc-2.40", "openssl-3"}


def test_symlinks_into_the_store_are_followed_at_every_step(here: World) -> None:
    zlib, middle, environment = here.path("zlib-1.3"), here.path("middle-1"), here.path("python3-env")
    library(f"{zlib}/lib/libz.so.1")
    symlink(f"{middle}/lib/libz.so.1", f"{zlib}/lib/libz.so.1")
    symlink(f"{environment}/lib/libz.so.1", f"{middle}/lib/libz.so.1")
    assert packages(here, environment) == {"zlib-1.3", "middle-1", "python3-env"}


def test_a_chain_of_symlinks_is_followed_to_its_end(here: World) -> None:
    zlib, middle, environment = here.path("zlib-1.3"), here.path("middle-1"), here.path("python3-env")
    library(f"{zlib}/lib/libz.so.1")
    symlink(f"{middle}/share/current", f"{zlib}/lib/libz.so.1")
    symlink(f"{environment}/lib/libz.so.1", f"{middle}/share/current")
    assert packages(here, environment) == {"zlib-1.3", "middle-1", "python3-env"}


def test_a_lib_directory_that_is_a_symlink_is_followed(here: World) -> None:
    zlib, wrapper = here.path("zlib-1.3"), here.path("wrapper-1")
    library(f"{zlib}/lib/libz.so.1")
    symlink(f"{wrapper}/lib", f"{zlib}/lib")
    assert packages(here, wrapper) == {"zlib-1.3", "wrapper-1"}


def test_propagated_inputs_are_followed(here: World) -> None:
    zlib, png = here.path("zlib-1.3"), here.path("libpng-1.6-dev")
    os.makedirs(f"{png}/nix-support")
    Path(f"{png}/nix-support/propagated-build-inputs").write_text(f" {zlib} \n")
    assert packages(here, png) == {"zlib-1.3", "libpng-1.6-dev"}


def test_circles_and_paths_that_are_gone_end_the_walk(here: World) -> None:
    one, other, gone = here.path("one-1"), here.path("other-1"), here.path("gone-1")
    os.rmdir(gone)
    library(f"{one}/lib/libone.so", search_path=f"{other}/lib:{gone}/lib")
    library(f"{other}/lib/libother.so", search_path=f"{one}/lib")
    assert packages(here, one) == {"one-1", "other-1"}


def test_an_output_that_nix_does_not_know_yet_is_read(here: World, tmp_path: Path) -> None:
    zlib, fresh = here.path("zlib-1.3"), here.path("fresh-1")
    library(f"{fresh}/lib/libfresh.so", search_path=f"{zlib}/lib")
    program = tmp_path / "nix-store"
    program.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *--print-invalid*) echo {fresh};;\n'
        '*fresh*) echo "error: path is not valid" >&2; exit 1;; esac\n'
    )
    program.chmod(0o755)
    store = replace(here.store, program=str(program))
    found = closure(store, [fresh], CachedHeaders(here.reader, Cache()))
    assert {store.package_name(path) for path in found} == {"zlib-1.3", "fresh-1"}


def test_a_failure_of_nix_that_reading_cannot_mend_is_told(here: World, tmp_path: Path) -> None:
    zlib = here.path("zlib-1.3")
    program = tmp_path / "nix-store"
    program.write_text('#!/bin/sh\ncase "$*" in *-R*) echo error: no database >&2; exit 1; esac\n')
    program.chmod(0o755)
    with pytest.raises(MachineError, match="error: no database"):
        closure(replace(here.store, program=str(program)), [zlib], CachedHeaders(here.reader, Cache()))
