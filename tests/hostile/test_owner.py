"""Root patches the tree of a user: what it makes there belongs to the user, who can take it all back."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from nixpatch import fs
from nixpatch.cli import run
from support import opened
from support import vendored as vendoring
from support import world as worlds
from support.injector import state_of
from support.people import NOBODY, as_nobody, needs_root
from support.vendored import Vendored

GROUP = 54321

pytestmark = [pytest.mark.gcc, needs_root]


@pytest.fixture
def grafted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendored]:
    """A venv of ``nobody``, with grafted libraries in a directory that only its group may enter."""
    root = os.path.realpath(tempfile.mkdtemp(prefix="nixpatch-owner-"))
    os.chmod(root, 0o755)
    made = vendoring.make(worlds.make(root))
    opened.install(made.world)
    shutil.copy(made.world.extension, os.path.join(made.world.site, "loose.so"))
    os.chmod(made.libs, 0o2750)
    monkeypatch.setenv("NIX_STORE_DIR", made.world.store)
    monkeypatch.setenv("XDG_CACHE_HOME", os.path.join(root, "cache"))
    monkeypatch.delenv("NIX_BUILD_TOP", raising=False)
    _give_away(made.world.venv)
    yield made
    shutil.rmtree(root)


def _all(directory: str) -> Iterator[str]:
    yield directory
    for parent, directories, files in os.walk(directory):
        yield from (os.path.join(parent, name) for name in (*directories, *files))


def _give_away(directory: str) -> None:
    for path in _all(directory):
        mode = os.lstat(path).st_mode
        os.chown(path, NOBODY, GROUP, follow_symlinks=False)
        if not os.path.islink(path):
            os.chmod(path, mode & 0o7777)  # chown(2) clears setgid


def _as_user(grafted: Vendored, *arguments: str) -> tuple[int, str]:
    cache = os.path.join(grafted.world.root, "nowhere")
    environment = {"NIX_STORE_DIR": grafted.world.store, "XDG_CACHE_HOME": cache, "HOME": "/nonexistent"}
    return as_nobody(arguments, environment)


def _modes(directory: str) -> dict[str, int]:
    return {path: os.stat(path).st_mode for path in _all(directory) if os.path.isdir(path)}


def test_all_that_root_makes_belongs_to_the_user_who_can_restore(grafted: Vendored) -> None:
    before, modes = state_of(grafted.world.venv), _modes(grafted.world.venv)

    assert run([grafted.world.venv, "--unvendor=*", "--no-gc-roots"]) == 0

    made = set(state_of(grafted.world.venv)) - set(before)
    assert any("nixpatch-grafts" in path for path in made)
    assert any("sboms" in path for path in made)
    assert any(path.endswith(".nixpatch.json") for path in made)
    owners = {(os.lstat(path).st_uid, os.lstat(path).st_gid) for path in _all(grafted.world.venv)}
    assert owners == {(NOBODY, GROUP)}
    code, text = _as_user(grafted, "restore", grafted.world.venv)
    assert code == 0, text
    assert state_of(grafted.world.venv) == before
    assert _modes(grafted.world.venv) == modes


def test_the_user_can_remove_a_tree_that_root_patched_and_restored_in_part(grafted: Vendored) -> None:
    assert run([grafted.world.venv, "--unvendor=*"]) == 0
    assert run(["restore", grafted.world.venv]) == 0
    assert run(["lock", grafted.world.venv, "--output", os.path.join(grafted.world.venv, "x.lock")]) == 0
    child = os.fork()
    if child == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        for name in os.listdir(grafted.world.venv):
            path = os.path.join(grafted.world.venv, name)
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
        os._exit(0 if not os.listdir(grafted.world.venv) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_directory_with_something_in_it_is_not_given_away(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user may move one of root's into the place of the new one, which is empty."""
    parent = os.path.join(tmp_path, "theirs")
    os.mkdir(parent)
    os.chown(parent, NOBODY, GROUP)
    make = os.mkdir

    def mkdir(name: str, **descriptor: int) -> None:
        make(name, **descriptor)
        with open(os.path.join(parent, name, "of-root"), "wb"):
            pass

    monkeypatch.setattr(os, "mkdir", mkdir)
    fs.make_directory(os.path.join(parent, "new"))

    assert os.stat(os.path.join(parent, "new")).st_uid == 0
