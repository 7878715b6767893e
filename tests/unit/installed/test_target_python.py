""""""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection
from elftools.elf.segments import InterpSegment

from nixpatch import elf
from nixpatch.errors import PythonGone, RequestError
from nixpatch.installed.scan import scan
from nixpatch.installed.target_python import find_target, stdenv_loader
from nixpatch.model import ElfFacts, Libc, Machine, Skip, SkipReason, Target
from nixpatch.store.programs import find_loader
from support.installed_trees import ELF, SITE, dist, write
from support.target_world import AARCH64, X86_64, World, facts


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(os.path.realpath(tmp_path))


# --------------------------------------------------------------------------------------- where it is found


def test_all_that_is_told_of_a_target(world: World) -> None:
    loader = world.glibc("glibc/lib")
    python = world.python("python/bin/python3.11", loader)

    assert world.find(world.out(), python) == Target(
        python=python,
        found_by="--python",
        version=(3, 11),
        machine=X86_64,
        loader=loader,
        libc=Libc.GLIBC,
        libc_version=(2, 36),
        libc_versions=frozenset(
            {"GLIBC_2.2.5", "GLIBC_2.9", "GLIBC_2.36", "GLIBC_PRIVATE", "GLIBC_ABI_DT_RELR"}
        ),
        libc_dir=world.path("glibc/lib"),
    )


def test_the_option_wins_over_the_tree(world: World) -> None:
    loader = world.glibc("glibc/lib")
    other = world.python("other/bin/python3.12", loader)
    tree = world.venv()
    os.symlink(world.python("python/bin/python3.11", loader), world.path("venv/bin/python"))

    assert world.find(tree, other).python == other
    assert world.find(tree).version == (3, 11)


def test_the_option_may_be_a_name_on_path_or_a_prefix(world: World) -> None:
    python = world.python("python/bin/python3.12", world.glibc("glibc/lib"))
    os.symlink("python3.12", world.path("python/bin/python3"))
    os.mkdir(world.path("python/bin/nothing"))
    search_path = f":relative:{world.path('missing')}:{os.path.dirname(python)}"

    assert world.find(world.out(), "python3.12", search_path).python == python
    assert world.find(world.out("b"), world.path("python")).python == python
    assert "nothing is not on PATH" in world.refused(world.out("c"), "nothing", search_path)


def test_where_the_option_names_no_python_nothing_else_is_asked(world: World) -> None:
    os.symlink(
        world.python("python/bin/python3.11", world.glibc("glibc/lib")), world.path("python/bin/python3")
    )
    tree = world.venv()
    os.symlink(world.path("python/bin/python3.11"), world.path("venv/bin/python"))

    message = world.refused(tree, world.path("gone/python3"), world.path("python/bin"))

    assert "gone/python3 does not exist" in message


def test_a_venv_is_asked_by_its_links(world: World) -> None:
    python = world.python("python/bin/python3.11", world.glibc("glibc/lib"))
    os.symlink("python3.11", world.path("python/bin/python3"))
    tree = world.venv()
    os.symlink(world.path("python/bin/python3"), world.path("venv/bin/python3"))
    os.symlink("python3", world.path("venv/bin/python"))

    target = world.find(tree)

    assert (target.python, target.found_by) == (python, "pyvenv.cfg")
    assert world.find(scan(world.path(f"venv/{SITE}"))) == target


@pytest.mark.parametrize(
    "config", ["home = {0}/bin", "base-executable = {0}/bin/python3.11", "executable={0}/bin/python3.11"]
)
def test_a_venv_without_bin_is_asked_by_its_file(world: World, config: str) -> None:
    python = world.python("python/bin/python3.11", world.glibc("glibc/lib"))

    assert world.find(world.venv(config=config.format(world.path("python")))).python == python


def test_a_copied_python_has_the_version_of_its_venv(world: World) -> None:
    tree = world.venv()
    world.python("venv/bin/python", world.glibc("glibc/lib"))

    assert world.find(tree).version == (3, 11)


def test_a_venv_whose_python_is_gone_does_not_get_another(world: World) -> None:
    loader = world.glibc("glibc/lib")
    world.python("else/bin/python3.11", loader)
    tree = world.venv(config=f"home = {world.path('gone/bin')}")
    os.symlink(world.path("gone/bin/python3"), world.path("venv/bin/python"))

    with pytest.raises(PythonGone) as caught:
        world.find(tree, search_path=world.path("else/bin"))

    venv, gone = world.path("venv"), world.path("gone/bin/python3")
    assert str(caught.value) == (
        f"the Python of {venv} is gone: {gone} (deleted, or garbage collected); "
        f"name another with --python, or make the venv anew and install again: python3 -m venv --clear {venv}"
    )


def test_a_prefix_with_a_python_is_its_own_target(world: World) -> None:
    loader = world.glibc("glibc/lib")
    world.python("else/bin/python3.11", loader)
    tree = world.out()
    python = world.python("out/bin/python3.11", loader)

    target = world.find(tree, search_path=world.path("else/bin"))

    assert (target.python, target.found_by) == (python, "the tree")


@pytest.mark.parametrize(
    ("home", "text"),
    [
        ("python", "#!{0}\nimport sys\n"),
        ("python", "#! {0} -E\n"),
        ("with space", "#!/bin/sh\n'''exec' \"{0}\" \"$0\" \"$@\"\n' '''\n"),
        ("with space", '#!/bin/bash -e\nexport A=\'x y\'\nexec -a "$0" "{0}"  "$@"\n'),
    ],
)
def test_the_scripts_of_a_build_name_their_python(world: World, home: str, text: str) -> None:
    python = world.python(f"{home}/bin/python3.11", world.glibc("glibc/lib"))
    tree = world.out()
    world.script("out/bin/a-shell", "#!/bin/sh\nexec /usr/bin/true\n")
    world.script("out/bin/b-env", "#!/usr/bin/env python3\n")
    world.script("out/bin/tool", text.format(python))

    target = world.find(tree)

    assert (target.python, target.found_by) == (python, "the tree")


def test_a_script_of_another_version_says_nothing_about_the_tree(world: World) -> None:
    loader = world.glibc("glibc/lib")
    wrong = world.python("a/bin/python3.9", loader)
    right = world.python("b/bin/python3.11", loader)
    tree = world.out()
    world.script("out/bin/a", f"#!{wrong}\n")
    world.script("out/bin/b", f"#!{right}\n")

    assert world.find(tree).python == right


def test_path_is_asked_last_for_the_version_of_the_tree(world: World) -> None:
    loader = world.glibc("glibc/lib")
    world.python("a/bin/python3", loader)
    python = world.python("b/bin/python3.11", loader)
    search_path = f"{world.path('a/bin')}:{world.path('b/bin')}"
    write(world.path("plain/m.so"))

    target = world.find(world.out(), search_path=search_path)

    assert (target.python, target.found_by) == (python, "PATH")
    assert world.find(scan(world.path("plain")), search_path=search_path).python == world.path(
        "a/bin/python3"
    )


def test_files_that_cannot_be_run_are_not_on_path(world: World) -> None:
    python = world.python("b/bin/python3.11", world.glibc("glibc/lib"))
    write(world.path("a/bin/python3.11"), mode=0o644)

    assert (
        world.find(world.out(), search_path=f"{world.path('a/bin')}:{world.path('b/bin')}").python == python
    )


@pytest.mark.parametrize("search_path", [None, "", "/nonexistent"])
def test_nothing_found_says_what_was_looked_for(world: World, search_path: str | None) -> None:
    assert "python3.11 is not on PATH" in world.refused(world.out(), search_path=search_path)


# ------------------------------------------------------------------------------------------ what it leads to


@pytest.mark.parametrize(
    "quoted", ['exec "{0}"  "$@"', "exec '{0}' \"$@\"", 'exec -a "$0" {0} "$@"', "exec env A=1 {0}"]
)
@pytest.mark.parametrize("name", ["python3.11", ".python3.11-wrapped"])
def test_a_wrapper_script_leads_to_what_it_starts(world: World, quoted: str, name: str) -> None:
    python = world.python(f"python/bin/{name}", world.glibc("glibc/lib"))
    text = "#! /bin/bash -e\nexport PYTHONHOME='/x'\n# exec /old/bin/python3\n" + quoted.format(python)
    wrapper = world.script("env/bin/python3", text)

    target = world.find(world.out(), wrapper)

    assert (target.python, target.version) == (python, (3, 11))


def test_a_shim_that_names_no_python_is_refused(world: World) -> None:
    shim = world.script(
        "bin/python3", '#!/usr/bin/env bash\nexec "/opt/pyenv/libexec/pyenv" exec "$program" "$@"\n'
    )

    assert "bin/python3 is a script that names no Python" in world.refused(world.out(), shim)


def test_wrappers_that_lead_nowhere_are_refused(world: World) -> None:
    loop = world.script("a/python3", f"#!/bin/sh\nexec {world.path('a/python3')}\n")
    gone = world.script("b/python3", "#!/bin/sh\nexec /gone/bin/python3\n")
    text = world.script("c/python3", "print('hello')\n")
    os.symlink("python3", world.path("python3"))

    assert "chain" in world.refused(world.out("1"), loop)
    assert "/gone/bin/python3" in world.refused(world.out("2"), gone)
    assert "is no program" in world.refused(world.out("3"), text)
    assert "python3 " in world.refused(world.out("4"), world.path("python3"))


def test_the_version_is_known_from_the_library_beside(world: World) -> None:
    python = world.python("python/bin/python", world.glibc("glibc/lib"))
    os.makedirs(world.path("python/lib/python3.12"))

    assert world.find(world.out(), python).version == (3, 12)


def test_a_static_python_is_refused(world: World) -> None:
    python = write(world.path("bin/python3.11"), mode=0o755)

    world.elf[python] = facts()
    assert "static" in world.refused(world.out("1"), python)
    world.elf[python] = Skip(SkipReason.STATIC)
    assert "static" in world.refused(world.out("2"), python)


def test_one_file_with_several_names_is_told_once(world: World) -> None:
    tree = world.out()
    python = write(world.path("out/bin/python3.11"), mode=0o755)
    world.elf[python] = facts()
    os.symlink("python3.11", world.path("out/bin/python3"))

    assert world.refused(tree).count("statically linked") == 1


def test_a_python_without_its_loader_is_refused(world: World) -> None:
    python = world.python("bin/python3.11", world.path("gone/ld-linux-x86-64.so.2"))

    assert "gone/ld-linux-x86-64.so.2, which does not exist" in world.refused(world.out(), python)


# -------------------------------------------------------------------------------------------------- its libc


def test_libc_lies_beside_the_loader(world: World) -> None:
    python = world.python("bin/python3.11", world.glibc("store/glibc/lib", "2.38"))
    world.glibc("store/lib", "2.17")

    target = world.find(world.out(), python)

    assert (target.libc_dir, target.libc_version) == (world.path("store/glibc/lib"), (2, 38))


def test_libc_lies_where_the_loader_links_to(world: World) -> None:
    real = world.glibc("usr/lib/somewhere")
    os.mkdir(world.path("lib64"))
    os.symlink(real, world.path("lib64/ld-linux-x86-64.so.2"))
    python = world.python("bin/python3.11", world.path("lib64/ld-linux-x86-64.so.2"))

    target = world.find(world.out(), python)

    assert (target.loader, target.libc_dir) == (
        world.path("lib64/ld-linux-x86-64.so.2"),
        world.path("usr/lib/somewhere"),
    )


@pytest.mark.parametrize(
    "place", ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib"]
)
def test_libc_lies_in_a_usual_place_and_is_of_the_machine(world: World, place: str) -> None:
    world.glibc(place)
    world.glibc("lib", machine=AARCH64)
    python = world.python("bin/python3.11", write(world.path("lib64/ld-linux-x86-64.so.2")))

    assert world.find(world.out(), python).libc_dir == world.path(place)


def test_a_loader_without_libc_is_refused(world: World) -> None:
    loader = write(world.path("here/lib64/ld-linux-aarch64.so.1"))
    python = world.python("bin/python3.11", loader, AARCH64)

    assert "no libc.so.6 of aarch64" in world.refused(world.out(), python)


def test_musl_is_known_by_its_loader(world: World) -> None:
    libc = write(world.path("musl/lib/libc.so"))
    os.symlink("libc.so", world.path("musl/lib/ld-musl-x86_64.so.1"))
    world.elf[libc] = facts()
    python = world.python("bin/python3.11", world.path("musl/lib/ld-musl-x86_64.so.1"))

    target = world.find(world.out(), python)

    assert (target.libc, target.libc_dir) == (Libc.MUSL, world.path("musl/lib"))
    assert target.loader == world.path("musl/lib/ld-musl-x86_64.so.1")
    assert target.libc_versions == frozenset()


# ---------------------------------------------------------------------------------------------- the real one


def test_without_any_python_the_loader_of_the_stdenv_is_the_target(world: World) -> None:
    loader = world.glibc("glibc/lib")
    bintools = world.path("bintools")
    write(os.path.join(bintools, "nix-support/dynamic-linker"), f"{loader}\n".encode())
    found = stdenv_loader({"NIX_BINTOOLS": bintools})

    target = world.find(world.out(), loader=found)

    assert (target.python, target.loader, target.found_by) == (loader, loader, "stdenv")
    assert (target.libc_version, target.version, target.has_python) == ((2, 36), None, False)
    assert stdenv_loader({}) is None
    assert stdenv_loader({"NIX_BINTOOLS": world.path("gone")}) is None


def test_a_python_of_the_machine_that_builds_is_not_the_target_of_a_cross_build(world: World) -> None:
    loader = world.glibc("glibc-arm/lib", machine=AARCH64)
    world.python("bin/python3.11", world.glibc("glibc/lib"))

    target = world.find(world.out(), search_path=world.path("bin"), loader=loader)

    assert (target.python, target.machine) == (loader, AARCH64)
    assert world.find(world.out(), search_path=world.path("bin")).machine == X86_64


def by_pyelftools(path: str) -> ElfFacts | Skip:
    with open(path, "rb") as file:
        image = ELFFile(file)
        segments = [item for item in image.iter_segments() if isinstance(item, InterpSegment)]
        interp = segments[0].get_interp_name() if segments else None
        number = {"EM_X86_64": 62, "EM_AARCH64": 183}[image["e_machine"]]
        machine = Machine(number, image.elfclass, "little" if image.little_endian else "big")
        return facts(interp=interp, defs=tuple(_defined(image)), machine=machine)


def _defined(image: ELFFile) -> Iterator[str]:
    for section in image.iter_sections():
        if isinstance(section, GNUVerDefSection):
            for _, names in section.iter_versions():
                yield next(iter(names)).name


@pytest.mark.skipif(
    os.uname().machine not in {"x86_64", "aarch64"}, reason="the stand-in reader knows two machines"
)
@pytest.mark.parametrize("read", [by_pyelftools, elf.read])
def test_the_python_that_runs_this(tmp_path: Path, read: Callable[[str], ElfFacts | Skip]) -> None:
    dist(tmp_path / "site", "pkg", {"m.so": ELF})

    target = find_target(scan(str(tmp_path / "site")), sys.executable, None, read)

    assert target.version == sys.version_info[:2]
    assert target.python == os.path.realpath(sys.executable)
    if target.libc is Libc.GLIBC:
        running = os.confstr("CS_GNU_LIBC_VERSION")
        assert running == "glibc " + ".".join(map(str, target.libc_version))
        with open("/proc/self/maps", encoding="utf-8") as maps:
            loaded = {line.split()[-1] for line in maps if line.rstrip().endswith("/libc.so.6")}
        assert loaded == {os.path.realpath(os.path.join(target.libc_dir, "libc.so.6"))}


class TestCannotStart:
    """Pythons whose loader is not on this machine."""

    def test_it_is_taken_with_the_loader_that_it_will_get(self, world: World) -> None:
        loader = world.glibc("glibc/lib")
        tree = world.out()
        python = world.python("out/bin/python3.11", "/nowhere/ld-linux-x86-64.so.2")

        target = find_target(tree, None, None, world.read, replacement={"ld-linux-x86-64.so.2": loader}.get)

        assert (target.python, target.loader, target.libc_version) == (python, loader, (2, 36))
        assert "needs the dynamic loader /nowhere/ld-linux-x86-64.so.2" in target.cannot_start

    def test_a_loader_without_a_libc_is_none(self, world: World) -> None:
        """NixOS puts a program there that prints advice (stub-ld)."""
        loader = world.glibc("glibc/lib")
        stub = write(world.path("stub/ld-linux-x86-64.so.2"))
        tree = world.out()
        world.python("out/bin/python3.11", stub)

        target = find_target(tree, None, None, world.read, replacement={"ld-linux-x86-64.so.2": loader}.get)

        assert target.loader == loader
        assert target.cannot_start

    def test_another_on_path_is_not_replaced(self, world: World) -> None:
        loader = world.glibc("glibc/lib")
        world.python("else/bin/python3.11", "/nowhere/ld-linux-x86-64.so.2")

        with pytest.raises(RequestError, match="does not exist"):
            find_target(world.out(), None, world.path("else/bin"), world.read, replacement=lambda _: loader)


def test_the_newest_libc_of_the_store_has_the_loader(tmp_path: os.PathLike[str]) -> None:
    store = os.path.join(tmp_path, "store")
    name = "ld-linux-x86-64.so.2"
    for number, package in enumerate(
        ("glibc-2.9", "glibc-2.40-66", "glibc-2.40-66-dev", "glibc-locales-2.42")
    ):
        write(os.path.join(store, f"{str(number) * 32}-{package}", "lib", name))
    write(os.path.join(store, f"{'4' * 32}-musl-1.2.5", "lib", "ld-musl-x86_64.so.1"))
    given = write(os.path.join(tmp_path, "given", "lib", name))

    assert find_loader(store, name) == os.path.join(store, f"{'1' * 32}-glibc-2.40-66", "lib", name)
    assert find_loader(store, name, [os.path.join(tmp_path, "given")]) == given
    assert find_loader(store, name, pure=True) is None
    assert find_loader(store, "ld-musl-x86_64.so.1") is not None
    assert find_loader(os.path.join(tmp_path, "gone"), name) is None
