"""The overlay for Python sets of pyproject.nix and uv2nix: one derivation a wheel, over a stand-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from nix.standin import HERE, bring_strip
from support.programs import need
from support.shop import make_wheel
from support.testbed.sandbox import Sandbox
from support.testbed.store import NixStore, nix_environment
from support.testbed.venv import StoreVenvFactory
from support.world import shared

REPOSITORY = os.path.realpath(os.path.join(__file__, "..", "..", ".."))
SITE = "lib/python3.11/site-packages"
NATIVE = "py3-none-manylinux_2_17_x86_64"
Package = dict[str, object]


@dataclass(frozen=True, slots=True)
class Sets:
    """Builds and evaluates attributes of a Python set."""

    store: NixStore
    tool: str
    strip: str

    def run(
        self,
        command: Sequence[str],
        packages: Mapping[str, Package],
        expression: str,
        user: str = "_: _: _: { }",
        libraries: str = "zlib",
    ) -> subprocess.CompletedProcess[str]:
        arguments = {
            "store": os.path.join(self.store.work, "store.json"),
            "tool": self.tool,
            "installer": self.tool,
            "strip": self.strip,
            "spec": json.dumps(packages),
            "user": user,
            "libraries": libraries,
        }
        words = " ".join(
            f"{name} = {json.dumps(value).replace('${', '$' + '{')};" for name, value in arguments.items()
        )
        whole = f"let set = import {HERE}/pyproject.nix {{ {words} }}; in {expression}"
        return subprocess.run(
            [*command, "-E", whole], env=nix_environment(), capture_output=True, text=True, check=False
        )

    def build(self, packages: Mapping[str, Package], expression: str, user: str = "_: _: _: { }") -> str:
        """Build an expression about ``set``; return its store path."""
        done = self.run(["nix-build", "--no-out-link"], packages, expression, user)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def derivation(self, packages: Mapping[str, Package], name: str, user: str = "_: _: _: { }") -> str:
        """Return the derivation of a package."""
        done = self.run(["nix-instantiate"], packages, f"set.{name}", user)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def closure(self, path: str) -> set[str]:
        """Return the names of the store paths in a closure."""
        command = ["nix-store", "--query", "--requisites", path]
        done = subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=True)
        return {os.path.basename(line)[33:] for line in done.stdout.split()}


@pytest.fixture(scope="module")
def sets(nix_store: NixStore, store_venv: StoreVenvFactory, tmp_path_factory: pytest.TempPathFactory) -> Sets:
    if not shutil.which("strip"):
        pytest.skip("not installed: strip")
    venv = store_venv("installer")
    venv.install_project(REPOSITORY)
    return Sets(nix_store, venv.site_packages, bring_strip(str(tmp_path_factory.mktemp("strip"))))


@dataclass(frozen=True, slots=True)
class Wheels:
    """Makes wheels of one library each."""

    directory: str

    def library(self, name: str, *needs: str) -> str:
        """Compile libNAME.so with a function NAME that calls those of other libraries, or zlib."""
        out = os.path.join(self.directory, f"lib{name}.so")
        source = os.path.join(self.directory, f"{name}.c")
        others = [need for need in needs if need != "z"]
        calls = "".join(f" + {other}()" for other in others) + (
            " + (zlibVersion()[0] > 0)" if "z" in needs else ""
        )
        declared = "".join(f"int {other}(void); " for other in others) + "const char *zlibVersion(void); "
        with open(source, "w", encoding="utf-8") as file:
            file.write(f"{declared}int {name}(void) {{ return 1{calls}; }}\n")
        stubs = []
        for other in needs:
            soname = "libz.so.1" if other == "z" else f"lib{other}.so"
            stub = os.path.join(self.directory, "stubs", soname)
            os.makedirs(os.path.dirname(stub), exist_ok=True)
            function = (
                "const char *zlibVersion(void) { return 0; }"
                if other == "z"
                else f"int {other}(void) {{ return 0; }}"
            )
            with open(f"{stub}.c", "w", encoding="utf-8") as file:
                file.write(function)
            stubs.append(shared(f"{stub}.c", stub, f"-Wl,-soname,{soname}"))
        return shared(source, out, f"-Wl,-soname,lib{name}.so", "-Wl,--no-as-needed", *stubs)

    def wheel(self, name: str, *needs: str, requires: Sequence[str] = (), tag: str = NATIVE) -> str:
        """Return a wheel with ``NAME/lib/libNAME.so``."""
        with open(self.library(name, *needs), "rb") as file:
            files = {f"{name}/lib/lib{name}.so": file.read()}
        return make_wheel(self.directory, name, "1.0", more_files=files, tag=tag, requires=requires)


@pytest.fixture
def wheels(tmp_path: str) -> Wheels:
    need("gcc")
    return Wheels(str(tmp_path))


def _call(sandbox: Sandbox, out: str, name: str) -> str:
    """Load libNAME.so through the environment and call its function, with the closure alone."""
    code = f"import ctypes, {name}; print(ctypes.CDLL({name}.__path__[0] + '/lib/lib{name}.so').{name}())"
    env = {"PYTHONPATH": os.path.join(out, SITE)}
    done = sandbox.run([sandbox.store.python, "-c", code], env=env, closure=[out, "python3"])
    return done.stdout.strip() or done.stderr


def test_a_wheel_finds_the_wheels_that_it_requires(sets: Sets, sandbox: Sandbox, wheels: Wheels) -> None:
    packages: dict[str, Package] = {
        "upper": {
            "wheel": wheels.wheel("upper", "lower", requires=["meta[native]"]),
            "dependencies": {"meta": ["native"]},
        },
        # Between them a wheel without libraries, whose extra brings the other one.
        "meta": {
            "wheel": make_wheel(wheels.directory, "meta", "1.0", requires=["lower; extra == 'native'"]),
            "extras": {"native": {"lower": []}},
        },
        "lower": {"wheel": wheels.wheel("lower", "z")},
    }

    out = sets.build(packages, 'set.mkVirtualEnv "env" { upper = [ ]; }')

    assert _call(sandbox, out, "upper") == "3"
    # What no wheel uses is in no closure: neither uv2nix's libraries nor those on offer.
    assert not {name for name in sets.closure(out) if name.startswith(("expat", "gcc", "nixpatch"))}


@pytest.mark.parametrize("structured", [False, True])
def test_wheels_in_a_circle_are_linked_in_one_derivation(
    sets: Sets, sandbox: Sandbox, wheels: Wheels, structured: bool
) -> None:
    packages: dict[str, Package] = {
        "one": {"wheel": wheels.wheel("one", "shared"), "dependencies": {"two": []}},
        "two": {"wheel": wheels.wheel("two", "one", "z"), "dependencies": {"one": [], "shared": []}},
        "shared": {"wheel": wheels.wheel("shared")},
        "user": {"wheel": wheels.wheel("user", "two"), "dependencies": {"two": []}},
    }
    for package in packages.values():
        package["more"] = {"__structuredAttrs": structured}

    out = sets.build(packages, 'set.mkVirtualEnv "env" { user = [ ]; }')

    assert _call(sandbox, out, "one") == "2"
    assert _call(sandbox, out, "two") == "4"
    assert _call(sandbox, out, "user") == "5"
    # Each keeps its own name and its own files.
    alone = sets.build(packages, "set.one")
    assert sorted(os.listdir(os.path.join(alone, SITE))) == ["one", "one-1.0.dist-info"]


def test_overrides_of_wheels_in_a_circle_count(sets: Sets, wheels: Wheels) -> None:
    packages: dict[str, Package] = {
        "one": {"wheel": wheels.wheel("one", "absent"), "dependencies": {"two": []}},
        "two": {"wheel": wheels.wheel("two"), "dependencies": {"one": []}},
    }
    more = 'nixpatchFlags = [ "--strict" ];'

    def build(attributes: str) -> subprocess.CompletedProcess[str]:
        user = f"_: _: prev: {{ one = prev.one.overrideAttrs (_: {{ {attributes} }}); }}"
        return sets.run(["nix-build", "--no-out-link"], packages, "set.two", user)

    assert "libabsent.so" in build(more).stderr
    assert build(more).returncode != 0
    assert build(more + ' nixpatchIgnoreMissing = [ "libabsent.so" ];').returncode == 0


def test_users_add_libraries_in_one_list(sets: Sets, sandbox: Sandbox, wheels: Wheels) -> None:
    # In no list of the overlay.
    files = {"opener/__init__.py": b"import ctypes\nctypes.CDLL('liblz4.so.1')\n"}
    wheel = make_wheel(wheels.directory, "opener", "1.0", more_files=files)
    packages: dict[str, Package] = {"opener": {"wheel": wheel}}

    out = sets.build(packages, "set.opener", "packages: _: _: { nixpatchLibraries = [ packages.lz4 ]; }")

    env = {"PYTHONPATH": os.path.join(out, SITE)}
    code = f"import site; site.addsitedir('{out}/{SITE}'); import opener"
    done = sandbox.run([sandbox.store.python, "-c", code], env=env, closure=[out, "python3"])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_lock_keeps_wheels_from_being_built_again(sets: Sets, wheels: Wheels, tmp_path: str) -> None:
    packages: dict[str, Package] = {
        "upper": {"wheel": wheels.wheel("upper", "lower", "z"), "dependencies": {"lower": [], "other": []}},
        "lower": {"wheel": wheels.wheel("lower")},
        "other": {"wheel": wheels.wheel("other")},
    }
    made = sets.build(packages, "set.mkNixpatchLock { upper = [ ]; }")
    with open(made, encoding="utf-8") as file:
        lock = json.load(file)
    assert lock["wheels"] == {
        f"upper-1.0-{NATIVE}.whl": {"libraries": ["zlib"], "wheels": ["lower"]},
        f"lower-1.0-{NATIVE}.whl": {"libraries": [], "wheels": []},
        f"other-1.0-{NATIVE}.whl": {"libraries": [], "wheels": []},
    }

    locked = os.path.join(str(tmp_path), "nixpatch-wheels.json")
    shutil.copy(made, locked)
    user = f"_: _: _: {{ nixpatchLock = {locked}; }}"
    first = sets.derivation(packages, "upper", user)
    assert sets.build(packages, "set.upper", user)
    # A new version of a wheel that it requires and does not use, which the lock does not have
    renewed: dict[str, Package] = {
        **packages,
        "other": {"wheel": make_wheel(str(tmp_path), "other", "2.0", tag=NATIVE)},
    }
    assert sets.derivation(renewed, "upper", user) == first
    assert sets.derivation(renewed, "upper") != sets.derivation(packages, "upper")
    # A library that was not on offer is for every wheel until the lock is made anew
    more = f"packages: _: _: {{ nixpatchLock = {locked}; nixpatchLibraries = [ packages.lz4 ]; }}"
    assert sets.derivation(packages, "upper", more) != first


def test_packages_that_are_not_wheels_stay(sets: Sets) -> None:
    packages: dict[str, Package] = {"source": {"more": {"unpackPhase": ":", "installPhase": "touch $out"}}}

    out = sets.build(packages, "set.source")

    assert os.path.getsize(out) == 0
