from __future__ import annotations

import os
from pathlib import Path

import pytest
from installed import SITE, write
from target_world import X86_64, World

from nixpatch.installed import scan
from nixpatch.model import Libc, Target


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

    assert "venv/bin/python does not exist" in world.refused(tree, search_path=world.path("else/bin"))


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
