"""Libraries that real wheels open by name, and scripts, in a root like that of NixOS, after a bare run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from support.installed_trees import dist
from support.testbed.sandbox import Sandbox
from support.testbed.store import NixStore, nix_environment
from support.testbed.venv import StoreVenv, StoreVenvFactory, create

FIND = "from ctypes.util import find_library\nfrom ctypes import CDLL\n"


@dataclass(frozen=True)
class Case:
    """Code, and what the last line that it prints begins with on NixOS, before a run and after it."""

    requirements: tuple[str, ...]
    code: str
    before: str
    after: str
    sources: Mapping[str, bytes] | None = None
    """of a dist ``mine`` that is installed with them"""


CASES = {
    "ctypes, by soname": Case(
        ("libnacl",), "import libnacl; print(len(libnacl.crypto_hash(b'')))", "OSError", "64"
    ),
    "find_library": Case(
        ("pyudev",), "import pyudev; print(type(pyudev.Context()).__name__)", "ImportError", "Context"
    ),
    "find_library of a library with needs of its own": Case(
        ("psycopg", "typing-extensions"),
        "import psycopg.pq; print(psycopg.pq.__impl__, psycopg.pq.version() > 100000)",
        "- couldn't import psycopg 'python' implementation: libpq library not found",
        "python True",
    ),
    "find_library through a class": Case(
        ("pyopengl",), "import OpenGL.GL; print(bool(OpenGL.GL.glGetString))", "ImportError", "True"
    ),
    "names through a function": Case(
        ("pyglet",),
        "from pyglet.libs.x11 import xlib; print(bool(xlib.XOpenDisplay(None)))",
        "ImportError",
        "False",
    ),
    "native code": Case(
        ("glfw",),
        "import glfw, warnings; warnings.simplefilter('ignore'); glfw.init(); print(glfw.get_error()[1])",
        "b'",
        "b'X11: Failed to open display :9'",
    ),
    "cffi": Case(
        ("cffi",),
        "import mine; print(mine.sodium.sodium_init())",
        "OSError",
        "0",
        {
            "mine.py": b"from cffi import FFI\nffi = FFI()\nffi.cdef('int sodium_init(void);')\n"
            b"sodium = ffi.dlopen('libsodium.so.23')\n"
        },
    ),
    "cffi, alternatives in a helper": Case(
        ("cffi",),
        "import mine; print(mine.sodium.sodium_init())",
        "OSError",
        "0",
        {
            "mine.py": b"from cffi import FFI\nffi = FFI()\nffi.cdef('int sodium_init(void);')\n"
            b"def load(names):\n    for name in names:\n        try:\n            return ffi.dlopen(name)\n"
            b"        except OSError:\n            pass\n    raise OSError('none of them')\n"
            b"sodium = load(('sodium-99', 'libsodium-99.so', 'libsodium.so.23'))\n"
        },
    ),
    "ctypes, without version": Case(
        (),
        "import mine; print(mine.zlib.zlibVersion()[:2])",
        "OSError",
        "b'1.'",
        {
            "mine.py": b"import ctypes\nzlib = ctypes.cdll.LoadLibrary('libz.so')\n"
            b"zlib.zlibVersion.restype = ctypes.c_char_p\n"
        },
    ),
}


def _nixpatch(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nixpatch", *arguments]
    environment = {**nix_environment(), **environ}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _run(sandbox: Sandbox, venv: StoreVenv, code: str, *read_only: str) -> str:
    """Run code isolated; return the last line that it printed, or the exception."""
    command = [venv.python, "-I", "-B", "-c", code]
    done = sandbox.run(command, read_only=[venv.path, *read_only], env={"DISPLAY": ":9"})
    return (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]


@pytest.mark.parametrize("name", CASES)
def test_what_is_opened_by_name_is_there(sandbox: Sandbox, store_venv: StoreVenvFactory, name: str) -> None:
    case = CASES[name]
    venv = store_venv(*case.requirements)
    if case.sources:
        dist(venv.site_packages, "mine", case.sources)
    before = _run(sandbox, venv, case.code)
    assert before.startswith(case.before)
    assert not before.startswith(case.after)

    done = _nixpatch(venv.path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert _run(sandbox, venv, case.code).startswith(case.after)
    assert "Patched 0 of" in _nixpatch(venv.path).stdout
    assert _nixpatch("restore", venv.path).returncode == 0
    assert _run(sandbox, venv, case.code).startswith(case.before)
    assert not [name for name in os.listdir(venv.site_packages) if name.startswith("nixpatch")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [(b"#!/bin/bash", "bash"), (b"#!/usr/bin/python3", "python"), (b"#! /bin/sed -n p", "")],
)
def test_a_script_that_names_a_program_of_other_systems(
    sandbox: Sandbox, store_venv: StoreVenvFactory, line: bytes, expected: str
) -> None:
    venv = store_venv()
    body = {b"bash": b"echo ${BASH##*/}", b"python3": b"print('python')"}
    text = line + b"\n" + body.get(line.rpartition(b"/")[2], b"") + b"\n"
    dist(venv.site_packages, "mine", {"../../../bin/mine": text})
    script = os.path.join(venv.bin, "mine")
    assert sandbox.run([script], read_only=[venv.path]).returncode != 0

    done = _nixpatch(venv.path)

    assert done.returncode == (0 if expected else 1), done.stdout
    ran = sandbox.run([script], read_only=[venv.path])
    assert ran.stdout.strip().startswith(expected)
    assert (ran.returncode == 0) == bool(expected)


OPENS = {"mine.py": FIND.encode() + b"sodium = CDLL(find_library('sodium'))\n"}
ASK = "import mine; print(mine.sodium.sodium_init())"


@pytest.mark.parametrize("whole", [False, True], ids=["entry by entry", "as a whole"])
def test_a_virtual_environment_made_of_links(
    sandbox: Sandbox, store_venv: StoreVenvFactory, nix_store: NixStore, tmp_path: str, whole: bool
) -> None:
    """As ``withPackages`` of nixpkgs and ``mkVirtualEnv`` of uv2nix make it, of directories in the store."""
    venv = store_venv()
    dist(venv.site_packages, "mine", OPENS)
    assert _nixpatch(venv.path).returncode == 0
    farm = create(nix_store, os.path.join(tmp_path, "farm"))
    if whole:
        os.rmdir(farm.site_packages)
        os.symlink(venv.site_packages, farm.site_packages)
    else:
        for name in os.listdir(venv.site_packages):
            os.symlink(os.path.join(venv.site_packages, name), os.path.join(farm.site_packages, name))

    assert _run(sandbox, farm, ASK, venv.path) == "0"
    added = f"import site; site.addsitedir({farm.site_packages!r}); {ASK}"
    done = sandbox.run([nix_store.python, "-I", "-B", "-c", added], read_only=[venv.path, farm.path])
    assert done.stdout.strip() == "0"


def test_in_a_build_the_inputs_alone_serve(
    sandbox: Sandbox, store_venv: StoreVenvFactory, nix_store: NixStore
) -> None:
    """What the store at large has would become a part of the closure."""
    venv = store_venv()
    dist(venv.site_packages, "mine", {**OPENS, "../../../bin/mine": b"#!/bin/bash\n"})
    startup = os.path.join(venv.site_packages, "nixpatch-mine.pth")

    done = _nixpatch(venv.path, NIX_BUILD_TOP="/build")

    assert done.returncode == 1
    assert "bin/bash" in done.stdout
    assert not os.path.exists(startup)
    sodium, bash = nix_store["libsodium"], nix_store["bash"]
    done = _nixpatch(venv.path, "--lib", sodium, "--closure", bash, NIX_BUILD_TOP="/build")
    assert done.returncode == 0, done.stdout
    with open(startup, encoding="ascii") as file:
        assert f"{sodium}/lib/libsodium.so.23" in file.read()
    with open(os.path.join(venv.bin, "mine"), "rb") as script:
        assert script.read() == f"#!{bash}/bin/bash\n".encode()
    assert _run(sandbox, venv, ASK) == "0"
