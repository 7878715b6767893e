"""What is known of a whole store stays right, though a second run hardly looks at it."""

import os
import shutil
from pathlib import Path

import pytest

from nixpatch.store import whole_store
from nixpatch.store.cache import Cache, RowKind, stamp_of
from support.store_fakes import World, library, searched, symlink, world


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("nixpatch.store.cache._SETTLED", -(10**12))  # tests need not wait two seconds
    found = world(tmp_path)
    for name in ("zlib-1.3", "zlib-1.2", "xz-5"):
        library(f"{found.path(name)}/lib/lib{name[:2]}.so.1")
        seal(found.path(name))
    return found


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache" / "store.sqlite")


def seal(path: str) -> None:
    """Leave a store path as Nix leaves it."""
    for directory, _, names in os.walk(path, topdown=False):
        for name in names:
            os.chmod(os.path.join(directory, name), 0o444)
        os.chmod(directory, 0o555)
        os.utime(directory, (1, 1))


def unseal(path: str) -> None:
    for directory, _, _ in os.walk(path):
        os.chmod(directory, 0o755)


def ask(here: World, cache: str | None, name: str) -> list[str]:
    with here.index(cache=cache) as index:
        return [provider.package for provider in index.providers(name)]


def test_a_second_run_looks_at_nothing_that_nix_has_sealed(
    here: World, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask(here, cache, "libzl.so.1")
    assert first == ["zlib-1.3", "zlib-1.2"]

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(whole_store, "_look_into", refuse)
    monkeypatch.setattr(os, "scandir", refuse)
    assert ask(here, cache, "libzl.so.1") == first


def test_a_path_that_came_is_seen(here: World, cache: str) -> None:
    ask(here, cache, "libzl.so.1")
    library(f"{here.path('zlib-1.4')}/lib/libzl.so.1")
    seal(here.path("zlib-1.4"))
    for _ in range(2):
        assert ask(here, cache, "libzl.so.1") == ["zlib-1.4", "zlib-1.3", "zlib-1.2"]


def test_a_path_that_went_is_not_offered(here: World, cache: str) -> None:
    ask(here, cache, "libzl.so.1")
    unseal(here.path("zlib-1.3"))
    shutil.rmtree(here.path("zlib-1.3"))
    for _ in range(2):
        with here.index(cache=cache) as index:
            assert [provider.package for provider in index.providers("libzl.so.1")] == ["zlib-1.2"]
            assert index.considered("libzl.so.1") == ()


def test_a_path_that_was_made_again_is_looked_at_again(here: World, cache: str) -> None:
    ask(here, cache, "libxz.so.1")
    path = here.path("xz-5")
    unseal(path)
    shutil.rmtree(path)
    library(f"{path}/lib/libother.so.1")
    seal(path)
    assert ask(here, cache, "libxz.so.1") == []
    assert ask(here, cache, "libother.so.1") == ["xz-5"]


def test_a_path_that_is_being_built_is_looked_at_every_time(here: World, cache: str) -> None:
    built = here.path("new-1")
    assert ask(here, cache, "libnew.so.1") == []
    for number in (1, 2):  # the store directory itself does not change
        library(f"{built}/lib/libnew.so.{number}")
        assert ask(here, cache, f"libnew.so.{number}") == ["new-1"]
    library(f"{built}/lib64/libnew.so.3")
    assert ask(here, cache, "libnew.so.3") == ["new-1"]
    seal(built)
    assert ask(here, cache, "libnew.so.1") == ["new-1"]


def test_a_sealed_link_to_what_is_not_sealed_is_followed_every_time(here: World, cache: str) -> None:
    library(f"{here.root}/opt/libopt.so.1")
    symlink(f"{here.path('env-1')}/lib", f"{here.root}/opt")
    seal(here.path("env-1"))
    assert ask(here, cache, "libopt.so.2") == []
    library(f"{here.root}/opt/libopt.so.2")
    assert len(ask(here, cache, "libopt.so.2")) == 1


def test_what_was_named_goes_before_the_store_at_large_and_counts_once(here: World, cache: str) -> None:
    older = here.path("zlib-1.2")
    for _ in range(2):
        with here.index(older, cache=cache) as index:
            found = [provider.package for provider in index.providers("libzl.so.1")]
            paths = [directory.path for directory in searched(index)]
        assert found == ["zlib-1.2", "zlib-1.3"]
        assert len(paths) == len(set(paths)) == 3


def test_names_of_all_sources_are_told_in_one_order(here: World, cache: str) -> None:
    library(f"{here.root}/opt/libzl.so.3")
    for _ in range(2):
        with here.index(f"{here.root}/opt", cache=cache) as index:
            assert index.versions("libzl.so") == ("libzl.so.3", "libzl.so.1")
            told = index.considered("libzl.so.2")
        assert [line.split(":")[0].rpartition("/")[2] for line in told] == ["libzl.so.1", "libzl.so.3"]


def test_a_value_that_is_cut_or_foreign_is_none(here: World, cache: str) -> None:
    ask(here, cache, "libzl.so.1")
    known = Cache(cache, "")
    status = os.stat(here.store.directory)
    value = known.get(RowKind.STORE, here.store.directory, stamp_of(status))
    assert value is not None
    for length in range(len(value)):
        for forged in (value[:length], value[:length] + b"\xff" * (len(value) - length)):
            known.put(RowKind.STORE, here.store.directory, stamp_of(status), forged)
            known.put(RowKind.LISTINGS, here.store.directory, b"", forged)
            whole_store.list_store(here.store, known).directories_of("libzl.so.1")
