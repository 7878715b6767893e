"""Which of several real libraries serves, and why the others do not: compiled, and asked who they are."""

from __future__ import annotations

import os
import shutil
import struct

import pytest

from support.world import Run, World, record_row, shared

pytestmark = pytest.mark.gcc

SONAME = "-Wl,-soname,libanswer.so.1"


def store_library(world: World, package: str, *options: str, salt: str = "a") -> str:
    """Put another libanswer.so.1 into the store; return its directory."""
    directory = os.path.join(world.store, f"{salt * 32}-{package}", "lib")
    shared("library.c", os.path.join(directory, "libanswer.so.1"), SONAME, *options)
    return directory


def versions(world: World, *names: str) -> str:
    """Write a version script that defines these versions of answer()."""
    path = os.path.join(world.root, f"{'-'.join(names)}.map")
    with open(path, "w", encoding="ascii") as file:
        file.writelines(
            f"{name} {{ {'global: answer; local: *;' if name == names[-1] else ''} }};\n" for name in names
        )
    return f"-Wl,--version-script={path}"


def relink(world: World, against: str) -> None:
    """Build the extension against another library, so that it wants that one's versions."""
    shared("extension.c", world.extension, os.path.join(against, "libanswer.so.1"))
    world.write_record()


def test_the_newest_of_two_serves_the_whole_tree(world: World, nixpatch: Run) -> None:
    newer = store_library(world, "answer-1.10", "-DANSWER=110")
    store_library(world, "answer-1.9", "-DANSWER=19", salt="b")

    assert nixpatch(world.venv)[0] == 0

    assert world.ask() == "110"
    assert world.run_program() == 110
    assert nixpatch("verify", world.venv)[0] == 0
    shutil.rmtree(os.path.dirname(newer))
    assert nixpatch("verify", world.venv)[0] == 1


def test_one_of_another_class_is_passed_over(world: World, nixpatch: Run) -> None:
    newer = store_library(world, "answer-9.0", "-DANSWER=9")
    with open(os.path.join(newer, "libanswer.so.1"), "r+b") as file:
        file.seek(18)
        file.write(struct.pack("<H", 183))  # e_machine: EM_AARCH64

    assert nixpatch(world.venv)[0] == 0

    assert world.ask() == "42"


def test_one_without_the_wanted_version_is_passed_over(world: World, nixpatch: Run) -> None:
    """As with an older libstdc++ that lacks GLIBCXX_3.4.32, though its package has the higher version."""
    shutil.rmtree(os.path.dirname(world.library))
    right = store_library(world, "answer-12.0", versions(world, "ANS_1", "ANS_2"), "-DANSWER=12")
    store_library(world, "answer-13.0", versions(world, "ANS_1"), "-DANSWER=13", salt="b")
    relink(world, right)

    assert nixpatch(world.venv)[0] == 0

    assert world.ask() == "12"


def test_where_nobody_defines_the_version_it_is_missing_and_said_why(world: World, nixpatch: Run) -> None:
    shutil.rmtree(os.path.dirname(world.library))
    right = store_library(world, "answer-12.0", versions(world, "ANS_1", "ANS_2"))
    relink(world, right)
    shutil.rmtree(os.path.dirname(right))
    older = store_library(world, "answer-11.0", versions(world, "ANS_1"), salt="b")

    code, out, _ = nixpatch(world.venv)

    assert code == 1
    assert f"{older}/libanswer.so.1: does not define ANS_2" in out


def test_one_that_needs_a_newer_glibc_than_the_targets_is_passed_over(world: World, nixpatch: Run) -> None:
    """Its need is called GLIBC_2.99 by hand: this machine cannot link against a glibc of the future."""
    newer = store_library(world, "answer-9.0", "-DANSWER=9", "-DWITH_LIBC")
    path = os.path.join(newer, "libanswer.so.1")
    with open(path, "rb") as file:
        data = file.read()
    assert b"GLIBC_2.2.5\0" in data
    with open(path, "wb") as file:
        file.write(data.replace(b"GLIBC_2.2.5\0", b"GLIBC_2.999\0"))

    code, out, _ = nixpatch("patch", "-vv", world.venv)

    assert code == 0, out
    assert world.ask() == "42"


def test_a_decoy_in_another_dist_does_not_win_over_the_one_that_is_required(
    world: World, nixpatch: Run
) -> None:
    shutil.rmtree(os.path.dirname(world.library))
    os.makedirs(os.path.join(world.store, f"{'c' * 32}-empty-1"))
    for name, answer in (("aaa_decoy", 1), ("zzz_right", 2)):
        library = os.path.join(world.site, name, "libanswer.so.1")
        shared("library.c", library, SONAME, f"-DANSWER={answer}")
        info = os.path.join(world.site, f"{name}-1.dist-info")
        os.makedirs(info)
        with open(os.path.join(info, "METADATA"), "w", encoding="ascii") as file:
            file.write(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        with open(os.path.join(info, "RECORD"), "w", encoding="ascii") as file:
            file.write(f"{record_row(library, world.site)}\n{name}-1.dist-info/RECORD,,\n")
    world.write_record()
    with open(os.path.join(world.info, "METADATA"), "a", encoding="ascii") as file:
        file.write("Requires-Dist: zzz-right\n")

    assert nixpatch(os.path.join(world.venv), "--accept-modified")[0] == 0

    assert world.ask() == "2"
    assert world.run_program() == 2
