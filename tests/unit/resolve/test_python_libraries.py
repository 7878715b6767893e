"""The library behind each name that Python code opens."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from nixpatch.model import Dist, OpenedName, OpenedNeed, Opener
from nixpatch.resolve.python_libraries import PythonLibraries, PythonResolver
from support.resolving import DRIVERS, MUSL_TARGET, SITE, STORE, World, elf, info_of, provider

MAGIC = f"{STORE}/dddd-file-5/lib/libmagic.so.1"
FILE = "mine.py"


def opened(name: str, opener: Opener = Opener.CTYPES, *, traced: bool = True) -> OpenedName:
    return OpenedName(name, opener, FILE, 7, traced)


def dist(world: World, name: str = "mine") -> Dist:
    files = frozenset(world.at(path) for path in world.files if path.startswith(f"{name}/"))
    return Dist(name, "1", SITE, info_of(name), files=files)


def resolve(world: World, *names: OpenedName, known: Collection[str] = ()) -> PythonLibraries:
    outside = sorted(found.name for found in world.store)
    resolver = PythonResolver(
        world.question(),
        versions=lambda stem: [name for name in reversed(outside) if name.startswith(stem)],
        beginning=lambda start: [name for name in outside if name.startswith(start)],
        is_known=lambda name: name in known or name in outside,
    )
    return resolver.resolve(dist(world), names)


@pytest.fixture
def world() -> World:
    return World(store=[provider(MAGIC), provider(f"{STORE}/eeee-z-1/lib/libz.so.1")])


@pytest.mark.parametrize("name", ["libmagic.so.1", "libmagic.so", "magic", "/usr/lib/libmagic.so.1"])
def test_what_code_opens_by_ctypes(world: World, name: str) -> None:
    found = resolve(world, opened(name))
    assert found == PythonLibraries({name: MAGIC})


def test_what_code_asks_find_library_for(world: World) -> None:
    found = resolve(world, opened("magic", Opener.FIND_LIBRARY))
    assert found == PythonLibraries(answers={"magic": MAGIC})


@pytest.mark.parametrize("name", ["c", "m", "pthread"])
def test_libc_has_an_answer_and_no_path(world: World, name: str) -> None:
    found = resolve(world, opened(name, Opener.FIND_LIBRARY))
    assert set(found.answers) == {name}
    assert "/" not in found.answers[name]
    assert resolve(world, opened("libc.so.6"), opened(name)) == PythonLibraries()


def test_musl_has_no_library_of_glibc(world: World) -> None:
    found = resolve(replace(world, target=MUSL_TARGET), opened("c", Opener.FIND_LIBRARY))
    assert found == PythonLibraries()


def test_the_dists_own_library_comes_first(world: World) -> None:
    world.files["mine/lib/libmagic.so.1"] = elf(soname="libmagic.so.1")
    found = resolve(world, opened("libmagic.so.1"), opened("magic", Opener.FIND_LIBRARY))
    assert found.libraries == {"libmagic.so.1": "mine/lib/libmagic.so.1"}
    assert found.answers == {"magic": "mine/lib/libmagic.so.1"}


def test_a_library_of_another_dist_comes_before_the_store(world: World) -> None:
    world.files["other/libmagic.so.1"] = elf(soname="libmagic.so.1")
    assert resolve(world, opened("libmagic.so")).libraries == {"libmagic.so": "other/libmagic.so.1"}


def test_a_library_of_the_system_comes_from_the_store(world: World) -> None:
    world.files["other/libGL.so.1"] = elf(soname="libGL.so.1")
    assert resolve(world, opened("libGL.so.1")).libraries == {"libGL.so.1": "other/libGL.so.1"}
    world.store.append(provider(f"{STORE}/ffff-gl/lib/libGL.so.1"))
    assert resolve(world, opened("libGL.so.1")).libraries == {"libGL.so.1": f"{STORE}/ffff-gl/lib/libGL.so.1"}


def test_a_library_in_the_site_directory_itself_has_a_slash(world: World) -> None:
    """A bare name would be looked for by ld.so, not by the start-up file."""
    world.unowned["libmine.so"] = elf(soname="libmine.so")
    assert resolve(world, opened("libmine.so")).libraries == {"libmine.so": "./libmine.so"}


def test_a_driver_is_in_the_directory_of_drivers(world: World) -> None:
    assert resolve(world, opened("libcuda.so.1")).libraries == {"libcuda.so.1": f"{DRIVERS}/libcuda.so.1"}


def test_the_soname_is_asked_for_not_the_file_behind_it(world: World) -> None:
    full = f"{STORE}/eeee-z-1/lib/libz.so.1.3.1"
    world.store.append(replace(provider(full), soname="libz.so.1"))
    assert resolve(world, opened("z", Opener.FIND_LIBRARY)).answers == {
        "z": f"{STORE}/eeee-z-1/lib/libz.so.1"
    }


def test_the_newest_of_a_tree(world: World) -> None:
    for version in ("9", "10", "2.1"):
        world.files[f"other/libtool.so.{version}"] = elf(soname=f"libtool.so.{version}")
    assert resolve(world, opened("libtool.so")).libraries == {"libtool.so": "other/libtool.so.10"}


class TestCffi:
    """``ffi.dlopen``."""

    def test_a_name_is_a_need_of_the_backend(self, world: World) -> None:
        found = resolve(world, opened("libmagic.so.1", Opener.CFFI))
        assert found == PythonLibraries(cffi=(OpenedNeed(("libmagic.so.1",), "mine.py:7"),))

    @pytest.mark.parametrize("name", ["magic", "libmagic.so"])
    def test_another_spelling_goes_through_find_library(self, world: World, name: str) -> None:
        found = resolve(world, opened(name, Opener.CFFI))
        assert found.answers == {name: MAGIC}
        assert found.cffi == (OpenedNeed(("libmagic.so.1",), "mine.py:7"),)

    def test_what_find_library_finds_may_be_opened_by_cffi(self, world: World) -> None:
        names = (opened("libz.so.1", Opener.CFFI), opened("magic", Opener.FIND_LIBRARY))
        found = resolve(world, *names)
        assert [need.sonames for need in found.cffi] == [("libz.so.1",), ("libmagic.so.1",)]
        assert found.answers == {"magic": MAGIC}


class TestPatterns:
    """Names of which the code computes a part."""

    def test_every_library_that_fits(self, world: World) -> None:
        world.store.append(provider(f"{STORE}/eeee-z-1/lib/libmagic.so.2"))
        found = resolve(world, opened("libmagic.so.*"))
        assert found.libraries == {
            "libmagic.so.1": MAGIC,
            "libmagic.so.2": f"{STORE}/eeee-z-1/lib/libmagic.so.2",
        }

    def test_find_library_is_asked_for_the_stem(self, world: World) -> None:
        found = resolve(world, opened("mag*", Opener.FIND_LIBRARY))
        assert found.answers == {"magic": MAGIC}

    @pytest.mark.parametrize("name", ["*", "**", ""])
    def test_a_name_that_is_computed_altogether(self, world: World, name: str) -> None:
        assert resolve(world, opened(name)) == PythonLibraries(computed=("mine.py:7",))

    def test_a_pattern_that_any_library_fits_is_none(self, world: World) -> None:
        assert resolve(world, opened("lib*.so")) == PythonLibraries()


class TestUnmet:
    """What nothing provides."""

    def test_it_is_reported_where_it_exists_at_all(self, world: World) -> None:
        found = resolve(world, opened("libusb-1.0.so.0"), known={"libusb-1.0.so.0"})
        assert found == PythonLibraries(unmet=(("libusb-1.0.so.0", "mine.py:7"),))
        assert resolve(world, opened("libgsk8.so")) == PythonLibraries()

    def test_a_name_that_only_stands_there_is_not_missed(self, world: World) -> None:
        found = resolve(world, opened("libusb-1.0.so.0", traced=False), known={"libusb-1.0.so.0"})
        assert found == PythonLibraries()

    @pytest.mark.parametrize("name", ["kernel32.dll", "libSystem.dylib", "msvcrt"])
    def test_names_of_other_systems(self, world: World, name: str) -> None:
        assert resolve(world, opened(name), opened(name, Opener.FIND_LIBRARY)) == PythonLibraries()
