"""Programs of the store for the first lines of scripts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nixpatch.store.nix_store import Store
from nixpatch.store.programs import find_program
from support.installed_trees import write
from support.store_fakes import World, world


@pytest.fixture
def shelf(tmp_path: Path) -> World:
    return world(tmp_path)


def program(shelf: World, package: str, name: str, salt: str = "", mode: int = 0o755) -> str:
    return write(os.path.join(shelf.path(package, salt), "bin", name), b"", mode)


def find(
    store: Store, name: str, *given: str, closure: tuple[str, ...] = (), pure: bool = False
) -> str | None:
    return find_program(store, name, given=given, closure=closure, pure=pure)


def test_a_package_that_is_called_like_the_program(shelf: World) -> None:
    bash = program(shelf, "bash-5.2p37", "bash")
    program(shelf, "bash-completion-2.11", "bash")
    program(shelf, "somebash-6.0", "bash")
    program(shelf, "coreutils-9.0", "cat")
    assert find(shelf.store, "bash") == bash
    assert find(shelf.store, "cat") is None


@pytest.mark.parametrize("package", ["bash-5.2p37", "bash-interactive-5.2p37", "Bash-5.2"])
def test_names_of_such_packages(shelf: World, package: str) -> None:
    assert find(shelf.store, "bash") is None
    assert find(shelf.store, "bash") or program(shelf, package, "bash") == find(shelf.store, "bash")


def test_a_version_in_the_name_of_the_program_or_the_package(shelf: World) -> None:
    ruby = program(shelf, "ruby-3.3.1", "ruby3.3")
    lua = program(shelf, "lua5.4-5.4.6", "lua")
    assert find(shelf.store, "ruby3.3") == ruby
    assert find(shelf.store, "lua") == lua


def test_the_newest_and_always_the_same(shelf: World) -> None:
    program(shelf, "bash-5.9", "bash")
    newest = [program(shelf, "bash-5.10", "bash", salt) for salt in ("a", "b")]
    program(shelf, "bash-5.2", "bash")
    assert find(shelf.store, "bash") == max(newest)


def test_what_is_given_comes_first_then_the_closure(shelf: World) -> None:
    at_large = program(shelf, "bash-9", "bash")
    of_closure = program(shelf, "bash-2", "bash")
    given = program(shelf, "tools-1", "bash")
    tools, closure = shelf.path("tools-1"), (shelf.path("bash-2"),)
    assert find(shelf.store, "bash", tools, closure=closure) == given
    assert find(shelf.store, "bash", f"{tools}/lib", closure=closure) == given
    assert find(shelf.store, "bash", f"{tools}/lib/", closure=closure) == given
    assert find(shelf.store, "bash", f"{tools}/bin", closure=closure) == given
    assert find(shelf.store, "bash", closure=closure) == of_closure
    assert find(shelf.store, "bash") == at_large


def test_the_store_at_large_only_if_asked(shelf: World) -> None:
    program(shelf, "bash-9", "bash")
    assert find(shelf.store, "bash", pure=True) is None


def test_what_cannot_be_run_is_none(shelf: World) -> None:
    program(shelf, "bash-9", "bash", mode=0o644)
    os.makedirs(os.path.join(shelf.path("bash-8"), "bin", "bash"))
    write(os.path.join(shelf.root, "nix/store", os.path.basename(shelf.path("bash-7")) + ".drv"), b"")
    assert find(shelf.store, "bash") is None


def test_a_program_of_another_machine_is_none(shelf: World) -> None:
    native = program(shelf, "bash-5", "bash")
    foreign = program(shelf, "bash-6", "bash")
    store, options = shelf.store, {"given": (), "closure": (), "pure": False}
    assert find_program(store, "bash", **options) == foreign  # type: ignore[arg-type]
    found = find_program(store, "bash", is_foreign=foreign.__eq__, **options)  # type: ignore[arg-type]
    assert found == native


def test_a_profile_stands_for_the_store_path_of_today(shelf: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next generation of the profile may not have it, and Nix collects what only the old one held."""
    bash = program(shelf, "bash-5", "bash")
    profile = os.path.join(shelf.root, "profile")
    os.symlink(shelf.path("bash-5"), profile)
    assert find(shelf.store, "bash", profile) == bash
    monkeypatch.chdir(shelf.root)
    assert find(shelf.store, "bash", "profile") == bash


def test_without_a_store(tmp_path: Path) -> None:
    missing = os.path.join(tmp_path, "nowhere")
    assert find(Store(missing, missing), "bash") is None
