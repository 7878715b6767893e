"""A small world for the command line: a store with one library, a venv with one dist that needs it."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

Run = Callable[..., tuple[int, str, str]]
"""runs a command line: exit code, standard output, standard error"""

FIXTURES = os.path.join(os.path.dirname(__file__), "..", "..", "fixtures", "c")
HASH = "0123456789abcdfghijklmnpqrsvwxyz"
# A loader that no machine has: only a patched program starts.
NO_LOADER = "/nowhere/ld-linux-x86-64.so.2"


def compile_c(source: str, output: str, *options: str) -> str:
    """Compile one of the fixtures."""
    if shutil.which("gcc") is None:
        pytest.skip("not installed: gcc")
    os.makedirs(os.path.dirname(output), exist_ok=True)
    path = os.path.join(FIXTURES, source)
    subprocess.run(["gcc", "-o", output, path, *options], check=True, capture_output=True)
    return output


def shared(source: str, output: str, *options: str) -> str:
    """Compile a shared library."""
    return compile_c(source, output, "-shared", "-fPIC", *options)


def record_row(path: str, base: str) -> str:
    """Return the RECORD row of a file as pip writes it."""
    with open(path, "rb") as file:
        data = file.read()
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{os.path.relpath(path, base)},sha256={digest},{len(data)}"


@dataclass(frozen=True)
class World:
    """Where everything is."""

    root: str
    venv: str
    store: str
    library: str
    """the store's library directory"""

    @property
    def site(self) -> str:
        """Return the site-packages."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return os.path.join(self.venv, "lib", version, "site-packages")

    @property
    def extension(self) -> str:
        """Return the extension module that needs the library."""
        return os.path.join(self.site, "pkg", "_ext.so")

    @property
    def program(self) -> str:
        """Return the program that needs the library and a loader."""
        return os.path.join(self.venv, "bin", "pkg-tool")

    @property
    def info(self) -> str:
        """Return the dist-info."""
        return os.path.join(self.site, "pkg-1.0.dist-info")

    @property
    def record(self) -> str:
        """Return RECORD."""
        return os.path.join(self.info, "RECORD")

    def write_record(self, *extra: str, ending: str = "\n") -> None:
        """Write RECORD as an installer would, right for the files as they are now."""
        with open(os.path.join(self.info, "METADATA"), "w", encoding="utf-8") as file:
            file.write("Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\n")
        rows = [record_row(self.program, self.site)]
        rows.append(record_row(os.path.join(self.site, "pkg", "__init__.py"), self.site))
        rows.append(record_row(self.extension, self.site))
        rows.append(record_row(os.path.join(self.info, "METADATA"), self.site))
        rows += [*extra, "pkg-1.0.dist-info/RECORD,,"]
        with open(self.record, "wb") as file:
            file.write("".join(row + ending for row in rows).encode())

    def ask(self) -> str:
        """Load the extension in a process of its own; return its answer, or the loader's complaint."""
        code = f"import ctypes; print(ctypes.CDLL({self.extension!r}).ask())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    def run_program(self) -> int | str:
        """Run the program and return its exit status, or why it does not start."""
        try:
            return subprocess.run([self.program], capture_output=True, check=False).returncode
        except OSError as error:
            return error.strerror or str(error)

    def copy(self, name: str) -> World:
        """Return a copy of the venv at another place, with the same store."""
        venv = os.path.join(self.root, name)
        shutil.copytree(self.venv, venv, symlinks=True)
        return World(self.root, venv, self.store, self.library)

    def snapshot(self) -> dict[str, bytes]:
        """Return the contents of every file of the venv by relative path."""
        found: dict[str, bytes] = {}
        for directory, _, names in os.walk(self.venv):
            for name in names:
                path = os.path.join(directory, name)
                if not os.path.islink(path):
                    with open(path, "rb") as file:
                        found[os.path.relpath(path, self.venv)] = file.read()
        return found


def make(root: str) -> World:
    """Build the world in a directory."""
    root = os.path.realpath(root)
    store = os.path.join(root, "nix", "store")
    library = os.path.join(store, f"{HASH}-answer-1.0", "lib")
    shared("library.c", os.path.join(library, "libanswer.so.1"), "-Wl,-soname,libanswer.so.1")
    venv = os.path.join(root, "venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    world = World(root, venv, store, library)
    link = os.path.join(library, "libanswer.so.1")
    shared("extension.c", world.extension, link)
    compile_c("program.c", world.program, link, f"-Wl,--dynamic-linker={NO_LOADER}")
    os.makedirs(world.info)
    with open(os.path.join(world.site, "pkg", "__init__.py"), "w", encoding="utf-8") as file:
        file.write("# pkg\n")
    world.write_record()
    return world
