"""A venv outside the store keeps what it links to from the garbage collector (nix-store --gc)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from nixpatch.operations.gc_roots import prune
from support.installed_trees import dist
from support.opened import SOURCE
from support.testbed.store import NixStore, nix_environment

FIXTURES = os.path.join(os.path.dirname(__file__), "..", "..", "fixtures", "c")
pytestmark = pytest.mark.gcc


def _nix_store(*arguments: str) -> list[str]:
    command = ["nix-store", *arguments]
    done = subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=True)
    return done.stdout.split()


def _nixpatch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nixpatch", *arguments]
    return subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=False)


@pytest.fixture
def library(nix_store: NixStore, tmp_path: os.PathLike[str]) -> Iterator[str]:
    """A store path that nothing else refers to or roots, with one library."""
    source = os.path.join(tmp_path, f"answer-{os.path.basename(tmp_path)}-{os.getpid()}")
    os.makedirs(os.path.join(source, "lib"))
    output = os.path.join(source, "lib", "libanswer.so.1")
    command = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libanswer.so.1", "-o", output]
    subprocess.run([*command, os.path.join(FIXTURES, "library.c")], check=True)
    (path,) = _nix_store("--add", source)
    yield path
    shutil.rmtree(tmp_path)
    _nix_store("--delete", path)


# The library is named with --lib: what other tests, or killed ones, left in the store does not matter then.
@pytest.fixture
def tree(library: str, tmp_path: os.PathLike[str]) -> str:
    """A directory with one file that needs the library."""
    path = os.path.join(os.path.realpath(tmp_path), "tree")
    os.makedirs(path)
    command = ["gcc", "-shared", "-fPIC", "-o", os.path.join(path, "ext.so")]
    link = os.path.join(library, "lib", "libanswer.so.1")
    subprocess.run([*command, os.path.join(FIXTURES, "extension.c"), link], check=True)
    return path


def test_what_a_tree_links_to_is_not_collected_while_the_tree_is_there(library: str, tree: str) -> None:
    assert library in _nix_store("--gc", "--print-dead")

    done = _nixpatch(tree, "--lib", library, "--python", sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr

    assert library not in _nix_store("--gc", "--print-dead")
    assert _nixpatch("verify", tree, "--python", sys.executable).returncode == 0
    shutil.rmtree(tree)
    assert library in _nix_store("--gc", "--print-dead")


def test_verify_notices_a_lost_root_and_a_run_makes_it_again(library: str, tree: str) -> None:
    _nixpatch(tree, "--lib", library, "--python", sys.executable)
    shutil.rmtree(os.path.join(tree, ".nixpatch-roots"))

    done = _nixpatch("verify", "--json", tree, "--python", sys.executable)

    assert done.returncode == 1
    (finding,) = json.loads(done.stdout)["trees"][0]["findings"]
    assert finding["path"] == library
    assert "no garbage-collector root" in finding["text"]
    assert _nixpatch(tree, "--lib", library, "--python", sys.executable).returncode == 0
    assert library not in _nix_store("--gc", "--print-dead")


def test_restore_lets_go(library: str, tree: str) -> None:
    _nixpatch(tree, "--lib", library, "--python", sys.executable)

    assert _nixpatch("restore", tree).returncode == 0

    assert library in _nix_store("--gc", "--print-dead")
    assert sorted(os.listdir(tree)) == ["ext.so"]


def _second(tree: str, library: str, name: str) -> str:
    """Return another store path with the library, and put another file into the tree that needs it."""
    copy = os.path.join(os.path.dirname(tree), name)
    shutil.copytree(library, copy)
    (path,) = _nix_store("--add", copy)
    shutil.copy(os.path.join(tree, "ext.so"), os.path.join(tree, f"{name}.so"))
    return path


def _dead() -> set[str]:
    return set(_nix_store("--gc", "--print-dead"))


def test_a_run_on_one_file_keeps_the_roots_of_its_neighbours(library: str, tree: str) -> None:
    """The roots are those of the directory: the plan of a run about one file does not know all of them."""
    other = _second(tree, library, f"other-{os.getpid()}")
    try:
        one, two = os.path.join(tree, "ext.so"), os.path.join(tree, f"other-{os.getpid()}.so")
        python = ("--python", sys.executable)
        assert _nixpatch(one, "--lib", library, *python).returncode == 0
        assert _nixpatch(two, "--lib", other, *python).returncode == 0
        assert {library, other}.isdisjoint(_dead())

        # The same file, from the other path: what the neighbour still uses stays, what nothing uses goes.
        assert _nixpatch(two, "--lib", library, *python).returncode == 0
        assert library not in _dead()
        assert other in _dead()

        assert _nixpatch("restore", two).returncode == 0
        assert library not in _dead()
        assert _nixpatch("restore", one).returncode == 0
        assert library in _dead()
    finally:
        shutil.rmtree(tree)
        _nix_store("--delete", other)


def test_a_run_on_site_packages_keeps_the_roots_of_the_rest_of_the_prefix(library: str, tree: str) -> None:
    """A program beside site-packages, which no dist claims, was patched with the whole prefix."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = os.path.join(tree, "lib", version, "site-packages")
    os.makedirs(os.path.join(site, "pkg"))
    info = os.path.join(site, "pkg-1.dist-info")
    os.makedirs(info)
    for name in ("METADATA", "RECORD"):
        with open(os.path.join(info, name), "w", encoding="ascii") as file:
            file.write("Metadata-Version: 2.1\nName: pkg\nVersion: 1\n" if name == "METADATA" else "")
    shutil.copy(os.path.join(tree, "ext.so"), os.path.join(site, "pkg", "ext.so"))
    arguments = ("--lib", library, "--python", sys.executable)
    assert _nixpatch(tree, *arguments).returncode == 0
    assert library not in _dead()

    assert _nixpatch("restore", site).returncode == 0

    assert library not in _dead(), "ext.so of the prefix still needs it"
    assert _nixpatch(tree, "--owned-only", *arguments).returncode == 0
    assert library not in _dead()
    assert _nixpatch("restore", tree).returncode == 0
    assert library in _dead()


def test_a_run_that_fails_on_a_file_keeps_the_root_that_the_file_still_uses(library: str, tree: str) -> None:
    other = _second(tree, library, f"other-{os.getpid()}")
    os.unlink(os.path.join(tree, f"other-{os.getpid()}.so"))
    try:
        assert _nixpatch(tree, "--lib", library, "--python", sys.executable).returncode == 0
        code = (
            "import sys, nixpatch.operations.edit_jobs as jobs\n"
            "def refuse(*_, **__): raise OSError(28, 'No space left on device')\n"
            "jobs.replacement = refuse\n"
            "from nixpatch.cli import run\n"
            "sys.exit(run(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", code, tree, "--lib", other, "--python", sys.executable]
        done = subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stdout + done.stderr
        assert library not in _dead()
    finally:
        shutil.rmtree(tree)
        _nix_store("--delete", other)


def test_a_library_that_only_a_start_up_file_names_is_held(library: str, tree: str) -> None:
    os.unlink(os.path.join(tree, "ext.so"))
    site = os.path.join(tree, "lib", "python3.11", "site-packages")
    dist(site, "opener", {"opener.py": SOURCE})
    arguments = ("--lib", library, "--python", sys.executable)

    done = _nixpatch(tree, *arguments)

    assert done.returncode == 0, done.stdout + done.stderr
    assert library not in _dead()
    assert _nixpatch(site, *arguments).returncode == 0
    assert library not in _dead()
    assert _nixpatch(tree, "--no-startup-files", *arguments).returncode == 0
    assert library in _dead()
    assert _nixpatch(tree, *arguments).returncode == 0
    assert library not in _dead()

    assert _nixpatch("restore", tree).returncode == 0
    assert library in _dead()


def test_the_program_of_a_script_is_held(library: str, tree: str) -> None:
    os.unlink(os.path.join(tree, "ext.so"))
    package = os.path.join(os.path.dirname(tree), f"shell-{os.getpid()}")
    os.makedirs(os.path.join(package, "bin"))
    shutil.copy("/bin/sh", os.path.join(package, "bin", "nosh"))
    (shell,) = _nix_store("--add", package)
    try:
        site = os.path.join(tree, "lib", "python3.11", "site-packages")
        dist(site, "mine", {"../../../bin/mine": b"#!/bin/nosh\n"})
        done = _nixpatch(tree, "--closure", shell, "--python", sys.executable)
        assert done.returncode == 0, done.stdout + done.stderr
        assert shell not in _dead()
        assert _nixpatch("restore", tree).returncode == 0
        assert shell in _dead()
    finally:
        shutil.rmtree(tree)
        _nix_store("--delete", shell)


def test_no_gc_roots(library: str, tree: str) -> None:
    options = (tree, "--lib", library, "--python", sys.executable)
    assert _nixpatch(*options, "--no-gc-roots").returncode == 0

    assert library in _nix_store("--gc", "--print-dead")
    verdict = _nixpatch("verify", tree, "--python", sys.executable)
    assert (verdict.returncode, "no garbage-collector root" in verdict.stdout) == (0, True), verdict.stdout
    prune(tree)  # as the wrapper of an installer does
    assert _nixpatch("verify", tree, "--python", sys.executable).returncode == 0

    # The next run makes them, and from then on verify misses them.
    assert _nixpatch(*options).returncode == 0
    assert library not in _dead()
    shutil.rmtree(os.path.join(tree, ".nixpatch-roots"))
    assert _nixpatch("verify", tree, "--python", sys.executable).returncode == 1

    assert _nixpatch(*options, "--no-gc-roots").returncode == 0
    assert _nixpatch("restore", tree).returncode == 0
    assert os.listdir(tree) == ["ext.so"]


def test_what_files_in_the_store_use_needs_no_root_of_a_tree_that_links_to_them(
    library: str, tree: str, tmp_path: os.PathLike[str]
) -> None:
    """As a copy of an environment of nixpkgs, or a directory of links of one's own."""
    site = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    built = os.path.join(tmp_path, "built")
    with open(os.path.join(tree, "ext.so"), "rb") as file:
        data = file.read()
    os.unlink(os.path.join(tree, "ext.so"))
    dist(os.path.join(built, site), "pkg", {"pkg/ext.so": data})
    options = ("--python", sys.executable)
    assert _nixpatch(built, "--lib", library, "--no-gc-roots", *options).returncode == 0
    shutil.rmtree(os.path.join(built, ".nixpatch-roots"))
    (store_path,) = _nix_store("--add", built)
    try:
        os.makedirs(os.path.join(tree, site))
        for name in ("pkg", "pkg-1.0.dist-info"):
            os.symlink(os.path.join(store_path, site, name), os.path.join(tree, site, name))

        done = _nixpatch("verify", "--json", tree, *options)

        (verdict,) = json.loads(done.stdout)["trees"]
        assert verdict["summary"]["patched"] == 1
        assert library in verdict["store_paths"]
        assert (done.returncode, [finding["severity"] for finding in verdict["findings"]]) == (0, ["note"])

        # A file of the tree itself needs one.
        dist(os.path.join(tree, site), "own", {"own/ext.so": data})
        assert _nixpatch(tree, "--lib", library, *options).returncode == 0
        assert library not in _dead()
        shutil.rmtree(os.path.join(tree, ".nixpatch-roots"))
        assert "no garbage-collector root" in _nixpatch("verify", tree, *options).stdout
    finally:
        shutil.rmtree(tree)
        _nix_store("--delete", store_path)
