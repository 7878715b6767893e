"""Real libraries of one soname in one process: which of them ld.so takes, and what nixpatch reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from support.installed_trees import dist, write
from support.world import Run, World

pytestmark = pytest.mark.gcc

_VERSIONS = "V1 { global: one; local: *; };\n"
_MORE = "V2 { global: two; } V1;\n"


def _gcc(source: str, output: str, *options: str) -> str:
    os.makedirs(os.path.dirname(output), exist_ok=True)
    command = ["gcc", "-xc", "-", "-xnone", "-shared", "-fPIC", "-o", output, *options]
    subprocess.run(command, input=source.encode(), check=True, capture_output=True)
    return output


@dataclass(frozen=True)
class _Libraries:
    """Makes libv.so.1 with one version or two, and modules that want them."""

    scratch: str

    def library(self, output: str, *, versions: int) -> str:
        script = write(f"{self.scratch}/v{versions}.map", (_VERSIONS + _MORE * (versions - 1)).encode())
        source = "int one(void) { return 1; } int two(void) { return 2; }"
        return _gcc(source, output, "-Wl,-soname,libv.so.1", f"-Wl,--version-script={script}")

    def module(self, output: str, *, versions: int, path: str | None = None) -> str:
        """Return a module that calls a function of each version."""
        library = self.library(f"{self.scratch}/{versions}/libv.so.1", versions=versions)
        calls = " + ".join(["one()", "two()"][:versions])
        source = f"int one(void); int two(void); int sum(void) {{ return {calls}; }}"
        return _gcc(source, output, library, *([f"-Wl,-rpath,{path}"] if path else []))


@pytest.fixture
def libraries(world: World) -> _Libraries:
    return _Libraries(os.path.join(world.root, "scratch"))


def _install(world: World, name: str) -> None:
    files = {}
    for directory in (name, f"{name}.libs"):
        for file in os.listdir(os.path.join(world.site, directory)):
            with open(os.path.join(world.site, directory, file), "rb") as opened:
                files[f"{directory}/{file}"] = opened.read()
    dist(world.site, name, files)


def _two_dists(world: World, libraries: _Libraries, *, path: bool = False) -> tuple[str, str]:
    """Install a, which brings V1 of libv, and b, which brings V1 and V2."""
    modules = []
    for name, versions in (("a", 1), ("b", 2)):
        libraries.library(f"{world.site}/{name}.libs/libv.so.1", versions=versions)
        origin = f"$ORIGIN/../{name}.libs" if path else None
        modules.append(libraries.module(f"{world.site}/{name}/m.so", versions=versions, path=origin))
        _install(world, name)
    return modules[0], modules[1]


def _load(*paths: str) -> str:
    code = "import ctypes, sys\nfor path in sys.argv[1:]: print(ctypes.CDLL(path).sum())"
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else done.stderr


def test_two_dists_with_one_soname_load_in_both_orders(
    world: World, libraries: _Libraries, nixpatch: Run
) -> None:
    a, b = _two_dists(world, libraries)
    assert nixpatch(world.venv)[0] == 0
    assert _load(a, b) == "1\n3\n"
    assert _load(b, a) == "3\n1\n"
    assert nixpatch("verify", world.venv)[0] == 0


def test_dists_that_bring_their_own_by_origin_and_differ_are_reported(
    world: World, libraries: _Libraries, nixpatch: Run
) -> None:
    a, b = _two_dists(world, libraries, path=True)
    code, out, _ = nixpatch(world.venv)
    assert code == 1
    assert "V2 of libv.so.1" in out
    # The report is right about the order.
    assert _load(b, a) == "3\n1\n"
    assert "version `V2' not found" in _load(a, b)
    code, out, _ = nixpatch("verify", world.venv)
    assert code == 1
    assert "V2 of libv.so.1" in out


def test_a_library_of_the_tree_that_the_target_python_hides(
    world: World, libraries: _Libraries, nixpatch: Run
) -> None:
    python = f"{world.root}/python"
    os.makedirs(f"{python}/bin")
    subprocess.run(
        ["gcc", "-xc", "-", "-o", f"{python}/bin/python3.12"],
        input=b"int main(void) { return 0; }",
        check=True,
    )
    write(f"{python}/lib/python3.12/os.py", b"")
    own = libraries.library(f"{python}/lib/libv.so.1", versions=1)
    libraries.module(
        f"{python}/lib/python3.12/lib-dynload/_v.cpython-312.so", versions=1, path="$ORIGIN/../.."
    )
    _, b = _two_dists(world, libraries)
    options = ("--python", f"{python}/bin/python3.12", world.venv)
    for command in ("patch", "plan", "missing", "verify"):
        code, out, _ = nixpatch(command, *options)
        assert code == 1, command
        assert "does not load after" in out, command
        assert own in out, command
        assert "Python's module _v" in out, command
    code, out, _ = nixpatch("tree", "--why", "libv.so.1", *options)
    assert own in out
    code, out, _ = nixpatch("missing", "--json", *options)
    (conflict,) = json.loads(out)["trees"][0]["conflicts"]
    assert (conflict["files"], conflict["lacks"], conflict["other"]) == ([b], ["V2"], own)
    # Ignored by a rule: a note.
    assert nixpatch("plan", "--ignore-missing", "libv.so.1", *options)[0] == 0


def test_a_library_whose_file_has_another_name_serves_by_its_soname(
    world: World, libraries: _Libraries, nixpatch: Run
) -> None:
    library = libraries.library(f"{world.site}/c.libs/v.so", versions=1)
    module = libraries.module(f"{world.site}/c/m.so", versions=1, path="/nowhere")
    _install(world, "c")
    code, out, _ = nixpatch("-v", world.venv)
    assert code == 0
    assert "finds libv.so.1 only once v.so" in out
    script = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print(ctypes.CDLL(sys.argv[2]).sum())"
    command = [sys.executable, "-c", script, library, module]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    for words in (["verify"], ["verify", "--load"], ["missing"], ["tree"]):
        assert nixpatch(*words, world.venv)[0] == 0, words


def test_a_library_that_needs_its_own_soname_is_not_missing(
    world: World, libraries: _Libraries, nixpatch: Run
) -> None:
    stub = libraries.library(f"{libraries.scratch}/stub/libv.so.1", versions=1)
    _gcc("int own(void) { return 0; }", f"{world.site}/c.libs/libv.so.1", stub, "-Wl,--no-as-needed",
         "-Wl,-soname,libv.so.1", stub)  # fmt: skip
    os.makedirs(f"{world.site}/c")
    _install(world, "c")
    assert nixpatch(world.venv)[0] == 0
    for words in (["verify"], ["verify", "--load"], ["missing"], ["tree"]):
        assert nixpatch(*words, world.venv)[0] == 0, words
