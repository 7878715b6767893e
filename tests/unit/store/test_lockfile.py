import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixpatch.errors import MachineError, RequestError
from nixpatch.model import Libc, Source
from nixpatch.store.index import open_index
from nixpatch.store.lockfile import (
    LockedLibrary,
    Lockfile,
    LockfileError,
    check_libraries,
    check_target,
    dump,
    load,
    make_lockfile,
    read,
)
from nixpatch.store.sources import LibrarySources
from support.store_fakes import World, library, symlink, world


@pytest.fixture
def here(tmp_path: Path) -> World:
    return world(tmp_path)


@pytest.fixture
def locked(here: World) -> Lockfile:
    """A store with two versions of zlib and one of libpng, the older zlib locked."""
    old, new, png = here.path("zlib-1.2"), here.path("zlib-1.3"), here.path("libpng-1.6")
    library(f"{old}/lib/libz.so.1.2", soname="libz.so.1")
    symlink(f"{old}/lib/libz.so.1", "libz.so.1.2")
    library(f"{new}/lib/libz.so.1")
    library(f"{png}/lib/libpng16.so.16")
    providers = [here.index(old).providers("libz.so.1")[0], here.index().providers("libpng16.so.16")[0]]
    lock, left_out = make_lockfile(here.store, here.target, providers)
    assert left_out == ()
    return lock


def found(here: World, lock: Lockfile, name: str, *libs: str) -> list[tuple[str, Source]]:
    index = open_index(here.store, here.target, here.reader, LibrarySources(libs=libs, lockfile=lock))
    return [(provider.directory, provider.source) for provider in index.providers(name)]


def test_the_lock_is_the_only_source_for_its_names_and_for_the_store(here: World, locked: Lockfile) -> None:
    library(f"{here.path('jpeg-9')}/lib/libjpeg.so.9")
    library(f"{here.root}/own/libz.so.1")
    library(f"{here.root}/own/libown.so.1")
    own = f"{here.root}/own"
    assert found(here, locked, "libz.so.1", own) == [(f"{here.path('zlib-1.2')}/lib", Source.LOCK)]
    assert found(here, locked, "libjpeg.so.9", own) == []
    assert found(here, locked, "libown.so.1", own) == [(own, Source.LIB)]


def test_an_empty_lock_serves_nothing(here: World, locked: Lockfile) -> None:
    assert found(here, replace(locked, libraries={}), "libz.so.1") == []


def test_other_names_in_a_locked_directory_are_not_served(here: World, locked: Lockfile) -> None:
    library(f"{here.path('zlib-1.2')}/lib/libminizip.so.1")
    assert found(here, locked, "libminizip.so.1") == []


def test_a_lib_in_the_store_would_go_round_the_lock(here: World, locked: Lockfile) -> None:
    with pytest.raises(RequestError, match="with --locked the store serves what the lock has"):
        found(here, locked, "libz.so.1", here.path("zlib-1.3"))


def test_attribute_is_the_catalogs(locked: Lockfile) -> None:
    assert locked.libraries["libz.so.1"].attribute == "zlib"
    assert locked.libraries["libpng16.so.16"].source == "local store"
    assert locked.libraries["libz.so.1"].source == "--lib"


def test_order_of_providers_makes_no_difference(here: World, locked: Lockfile) -> None:
    providers = [here.index().providers(name)[0] for name in ("libz.so.1", "libpng16.so.16")]
    one, other = (make_lockfile(here.store, here.target, order)[0] for order in (providers, providers[::-1]))
    assert dump(one) == dump(other)


def test_there_and_as_it_was(locked: Lockfile) -> None:
    check_libraries(locked, "nixpatch.lock")


def test_all_that_is_gone_is_named_once(here: World, locked: Lockfile) -> None:
    for package in ("zlib-1.2", "libpng-1.6"):
        os.rename(here.path(package), f"{here.root}/{package}")
    with pytest.raises(MachineError) as caught:
        check_libraries(locked, "nixpatch.lock")
    gone = sorted(one.store_path for one in locked.libraries.values())
    assert str(caught.value).startswith(f"nixpatch.lock: not in the store (any more): {', '.join(gone)}; ")
    assert "\n" not in str(caught.value)


def _overwrite(path: str) -> None:
    Path(path).write_bytes(b"other")


def _mislead(path: str) -> None:
    os.unlink(path)
    os.symlink("/nowhere", path)


@pytest.mark.parametrize("spoil", [_overwrite, os.unlink, _mislead])
def test_a_library_that_changed_is_named(locked: Lockfile, spoil: Callable[[str], object]) -> None:
    path = locked.libraries["libz.so.1"].path
    spoil(path)
    with pytest.raises(MachineError) as caught:
        check_libraries(locked, "nixpatch.lock")
    assert f"not what was locked: {path}; " in str(caught.value)
    assert "libpng" not in str(caught.value)


def test_a_newer_libc_behind_the_same_loader_will_do(here: World, locked: Lockfile) -> None:
    check_target(locked, "l", here.target)
    check_target(locked, "l", replace(here.target, libc_version=(2, 41)))
    with pytest.raises(RequestError, match=r"locked for glibc 2\.40, the target Python has 2\.39"):
        check_target(locked, "l", replace(here.target, libc_version=(2, 39)))
    with pytest.raises(RequestError, match="locked for glibc, the target Python uses musl"):
        check_target(locked, "l", replace(here.target, libc=Libc.MUSL, libc_version=()))


def document(**fields: object) -> bytes:
    row = {
        "store_path": "/s",
        "file": "lib/liba.so",
        "sha256": "0",
        "source": "",
        "package": "",
        "attribute": None,
    }
    good: dict[str, Any] = {
        "version": 1,
        "machine": "x86_64",
        "loader": "/ld.so",
        "libc": {"name": "glibc", "version": "2.40"},
        "libraries": {"liba.so": row},
    }
    return json.dumps({**good, **fields}).encode()


def entry(**fields: object) -> dict[str, dict[str, object]]:
    row = json.loads(document())["libraries"]["liba.so"]
    return {"liba.so": {**row, **fields}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b"null",
        document(version=2),
        document(machine=None),
        document(loader=1),
        document(libc=None),
        document(libc={"name": "bionic", "version": ""}),
        document(libc={"name": "glibc", "version": "2.x"}),
        document(libraries=[]),
        document(libraries={"liba.so": []}),
        document(libraries=entry(sha256=None)),
        document(libraries=entry(attribute=1)),
        document(libraries=entry(file="lib/libb.so")),
        document(libraries=entry(file="../x/liba.so")),
        document(libraries=entry(file="/etc/liba.so")),
        document(libraries=entry(file="lib//liba.so")),
        document(libraries=entry(file="./liba.so")),
        document(libraries={"..": entry(file="lib/..")["liba.so"]}),
        document(libraries={"": entry(file="lib/")["liba.so"]}),
    ],
)
def test_what_is_no_lock(data: bytes, here: World) -> None:
    with pytest.raises(LockfileError):
        load(data)
    path = f"{here.root}/nixpatch.lock"
    Path(path).write_bytes(data)
    with pytest.raises(RequestError) as caught:
        read(path, here.store)
    assert "\n" not in str(caught.value)


def test_the_good_one_is_one() -> None:
    assert load(document()).libraries["liba.so"].path == "/s/lib/liba.so"


# Any character, and those that stand for bytes that are none (PEP 383); other surrogates name no file.
BYTES = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0") | BYTES, min_size=1).filter(
    lambda name: name not in {".", ".."}
)
TEXTS = st.text()
PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0") | BYTES)
LIBRARIES = st.dictionaries(
    NAMES, st.tuples(PATHS, TEXTS, TEXTS, TEXTS, TEXTS, st.none() | TEXTS), max_size=4
)
VERSIONS = st.lists(st.integers(0, 99), max_size=3).map(tuple)


@given(TEXTS, TEXTS, st.sampled_from(Libc), VERSIONS, LIBRARIES)
def test_what_is_written_is_read(
    machine: str, loader: str, libc: Libc, version: tuple[int, ...], rows: dict[str, Any]
) -> None:
    libraries = {
        soname: LockedLibrary(where, f"lib/{soname}", digest, source, package, attribute)
        for soname, (where, digest, source, package, _, attribute) in rows.items()
    }
    lock = Lockfile(machine, loader, libc, version, libraries)
    data = dump(lock)
    assert load(data) == lock
    backwards = Lockfile(machine, loader, libc, version, dict(reversed(libraries.items())))
    assert dump(backwards) == data
