"""--nixpkgs: what is missing is built by a real nix-build from an expression of nixpkgs's shape."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from support.testbed.store import NixStore, nix_environment

HERE = os.path.dirname(os.path.abspath(__file__))
pytestmark = pytest.mark.gcc


@dataclass(frozen=True)
class World:
    """A tree for the store's Python, and a nixpkgs."""

    root: str
    store: NixStore

    @property
    def tree(self) -> str:
        """Where the files are."""
        return os.path.join(self.root, "tree")

    @property
    def nixpkgs(self) -> str:
        """An expression with default arguments only, as nixpkgs is."""
        return os.path.join(self.root, "nixpkgs")

    def need(self, *sonames: str) -> str:
        """Add a file to the tree that needs libraries, and return its path."""
        path = os.path.join(self.tree, f"need-{sonames[0]}.so")
        gone = os.path.join(self.root, "gone")
        os.makedirs(gone, exist_ok=True)
        source = os.path.join(gone, "empty.c")
        with open(source, "w", encoding="utf-8") as file:
            file.write("int nothing;\n")
        command = ["gcc", "-shared", "-fPIC", source]
        libraries = [os.path.join(gone, soname) for soname in sonames]
        for library, soname in zip(libraries, sonames, strict=True):
            subprocess.run([*command, "-o", library, f"-Wl,-soname,{soname}"], check=True)
        subprocess.run([*command, "-o", path, "-Wl,--no-as-needed", *libraries], check=True)
        shutil.rmtree(gone)
        return path

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run nixpatch for the tree."""
        command = [sys.executable, "-m", "nixpatch", *arguments, "--python", self.store.python, self.tree]
        environment = {**nix_environment(), "XDG_CACHE_HOME": os.path.join(self.root, "cache"), **variables}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def needs(self, *arguments: str) -> dict[str, tuple[str | None, str]]:
        """Run nixpatch and return, for each soname, the file that serves it and the source."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        (tree,) = json.loads(done.stdout)["trees"]
        return {
            need["soname"]: (need["path"], need["detail"]) for file in tree["files"] for need in file["needs"]
        }

    def load(self, path: str) -> str:
        """Load a file in the store's Python; return "" or the loader's complaint."""
        command = [self.store.python, "-c", f"import ctypes; ctypes.CDLL({path!r})"]
        return subprocess.run(command, env={}, capture_output=True, text=True, check=False).stderr


@pytest.fixture
def world(nix_store: NixStore, tmp_path: os.PathLike[str]) -> Iterator[World]:
    """An empty tree; what Nix built for it goes with it."""
    world = World(os.path.realpath(tmp_path), nix_store)
    os.makedirs(world.tree)
    os.makedirs(world.nixpkgs)
    arguments = {
        "plan": os.path.join(nix_store.work, "plan.json"),
        "debs": os.path.join(nix_store.work, "debs"),
        "seed": os.path.join(nix_store.work, "seed"),
        "mark": f"{world.root}-{os.getpid()}",
    }
    given = " ".join(f"{name} = {json.dumps(value)};" for name, value in arguments.items())
    with open(os.path.join(world.nixpkgs, "default.nix"), "w", encoding="utf-8") as file:
        file.write(f"{{ system ? builtins.currentSystem }}: import {HERE}/nixpkgs.nix {{ {given} }}\n")
    yield world
    command = ["nix-instantiate", world.nixpkgs, "-A", "zstd", "-A", "cudaPackages.cudnn"]
    done = subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=True)
    derivations = [line.partition("!")[0] for line in done.stdout.split()]
    outputs = _nix_store("-q", "--outputs", *derivations)
    shutil.rmtree(world.tree)
    _nix_store("--delete", *(path for path in outputs if os.path.exists(path)))


def _nix_store(*words: str) -> list[str]:
    command = ["nix-store", *words]
    done = subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_what_nothing_else_provides_is_built(world: World) -> None:
    file = world.need("libzstd.so.1", "libstdc++.so.6", "libz.so.1")
    before = world.run("plan", "--pure")
    assert before.returncode == 1
    assert "  libzstd.so.1, needed by " in before.stdout

    found = world.needs("--pure", "--nixpkgs", world.nixpkgs)

    zstd, source = found["libzstd.so.1"]
    assert source == "--nixpkgs"
    assert zstd is not None
    assert os.path.basename(os.path.dirname(os.path.dirname(zstd))).endswith("-zstd-mirror")
    assert found["libstdc++.so.6"] == (f"{world.store['gccLib']}/lib/libstdc++.so.6", "--nixpkgs")
    # The target's closure goes first, so nixpkgs is not asked for it.
    assert found["libz.so.1"] == (f"{world.store['zlib']}/lib/libz.so.1", "closure of the target Python")
    assert world.load(file) == ""
    assert zstd.rpartition("/lib/")[0] not in _nix_store("--gc", "--print-dead")


def test_it_comes_before_the_store_at_large(world: World) -> None:
    world.need("libzstd.so.1")
    path, source = world.needs("plan")["libzstd.so.1"]
    assert source == "local store"
    assert "-zstd-mirror/" not in str(path)

    path, source = world.needs("plan", "--nixpkgs", world.nixpkgs)["libzstd.so.1"]

    assert source == "--nixpkgs"
    assert "-zstd-mirror/" in str(path)


def test_a_file_and_a_relative_path_do_as_well(world: World) -> None:
    world.need("libstdc++.so.6")
    file = os.path.join(world.nixpkgs, "default.nix")
    for reference in (file, os.path.relpath(file)):
        given = reference if reference.startswith(("/", "../")) else f"./{reference}"
        assert world.needs("plan", "--pure", "--nixpkgs", given)["libstdc++.so.6"][1] == "--nixpkgs"


def test_an_older_name_and_an_output_that_no_index_knows(world: World) -> None:
    world.need("libX11.so.6")
    world.need("libcudnn.so.9")

    found = world.needs("plan", "--pure", "--nixpkgs", world.nixpkgs)

    assert found["libX11.so.6"] == (f"{world.store['libX11']}/lib/libX11.so.6", "--nixpkgs")
    assert str(found["libcudnn.so.9"][0]).endswith("-cudnn-lib/lib/libcudnn.so.9")


def test_a_flake(world: World) -> None:
    world.need("libzstd.so.1")
    flake = os.path.join(world.root, "flake")
    os.makedirs(flake)
    # A flake may not read what is not its own; its builder may, in a store without a sandbox.
    script = f"PATH=/bin:/usr/bin; mkdir $out; cp -r {world.store['zstd']}/lib $out/lib # {world.root}"
    with open(os.path.join(flake, "flake.nix"), "w", encoding="utf-8") as file:
        file.write(
            "{ outputs = _: { legacyPackages.x86_64-linux.zstd = derivation { "
            'name = "zstd-of-a-flake"; system = "x86_64-linux"; builder = "/bin/sh"; '
            f'args = [ "-c" "{script}" ]; }}; }}; }}\n'
        )

    path, source = world.needs("plan", "--pure", "--nixpkgs", flake)["libzstd.so.1"]

    assert source == "--nixpkgs"
    assert str(path).endswith("-zstd-of-a-flake/lib/libzstd.so.1")
    assert os.listdir(flake) == ["flake.nix"]
    world.need("liblz4.so.1")
    done = world.run("plan", "--pure", "--nixpkgs", flake)
    assert done.returncode == 3
    assert f"nixpatch: --nixpkgs {flake}: flake 'path:{flake}' does not provide attribute" in done.stderr
    assert "to provide liblz4.so.1: name a nixpkgs that has it" in done.stderr
    _nix_store("--delete", str(path).removesuffix("/lib/libzstd.so.1"))


def test_nothing_is_evaluated_unless_something_is_missing(world: World) -> None:
    thrower = os.path.join(world.root, "thrower.nix")
    with open(thrower, "w", encoding="utf-8") as file:
        file.write("throw ''evaluated''")
    arguments = ("plan", "--pure", "--nixpkgs", thrower)
    world.need("libz.so.1")
    assert world.run(*arguments).returncode == 0
    world.need("libzstd.so.1")

    done = world.run(*arguments)

    assert done.returncode == 3
    assert f"nixpatch: --nixpkgs {thrower}: evaluated; asked for zstd.out" in done.stderr
    assert world.run(*arguments, "--ignore-missing", "libzstd*").returncode == 0


def _one_line(world: World, *arguments: str) -> str:
    before = _contents(world.tree)
    done = world.run("--pure", "--nixpkgs", world.nixpkgs, *arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert _contents(world.tree) == before
    told = [line for line in done.stderr.splitlines() if not line.startswith("nixpatch: realising from ")]
    assert len(told) == 1
    return told[0]


def _contents(tree: str) -> dict[str, bytes]:
    found = {}
    for name in os.listdir(tree):
        with open(os.path.join(tree, name), "rb") as file:
            found[name] = file.read()
    return found


def test_a_missing_attribute_is_told_with_what_it_was_for(world: World) -> None:
    world.need("libzstd.so.1", "libssl.so.1.1")
    world.need("libjpeg.so.62")

    told = _one_line(world)

    assert told.startswith(f"nixpatch: --nixpkgs {world.nixpkgs}: attribute 'libjpeg")
    assert "not found, to provide libjpeg.so.62: name a nixpkgs that has it, or --ignore-missing them" in told


def test_a_build_that_fails_is_told(world: World) -> None:
    world.need("libxkbcommon.so.0")

    told = _one_line(world)

    assert "-libxkbcommon.drv' failed with exit code 7; asked for libxkbcommon.out" in told


def test_what_nixpkgs_does_not_have_is_told(world: World) -> None:
    world.need("libnobody.so.1")
    world.need("libpng16.so.16")

    done = world.run("plan", "--pure", "--nixpkgs", world.nixpkgs)

    assert done.returncode == 1
    assert f"--nixpkgs {world.nixpkgs}: no attribute is known to have it" in done.stdout
    assert f"--nixpkgs {world.nixpkgs}: libpng does not have it in lib" in done.stdout


def test_what_was_built_is_locked_and_needs_no_nixpkgs_again(world: World) -> None:
    world.need("libzstd.so.1")
    lock = os.path.join(world.root, "nixpatch.lock")
    assert world.run("lock", "--nixpkgs", world.nixpkgs, "-o", lock).returncode == 0
    with open(lock, encoding="utf-8") as file:
        document: dict[str, Any] = json.load(file)
    library = document["libraries"]["libzstd.so.1"]
    assert (library["source"], library["package"], library["attribute"]) == (
        "--nixpkgs",
        "zstd-mirror",
        "lib.getLib zstd",
    )
    assert document["loader"] == f"{world.store['glibc']}/lib/ld-linux-x86-64.so.2"

    found = world.needs("--locked", lock)

    assert found["libzstd.so.1"] == (f"{library['store_path']}/lib/libzstd.so.1", "lock")
    assert world.run("verify", "--locked", lock).returncode == 0
    # Nix reads it too, for the inputs of a derivation.
    command = ["nix-instantiate", "--eval", "--json", "--strict", "-E"]
    expression = f"builtins.attrNames (builtins.fromJSON (builtins.readFile {lock})).libraries"
    done = subprocess.run([*command, expression], env=nix_environment(), capture_output=True, check=True)
    assert json.loads(done.stdout) == ["libzstd.so.1"]
