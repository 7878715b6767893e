"""The small world with a wheel as auditwheel leaves it: copies of libraries under mangled names.

libanswer needs libhelper, both with symbol versions. A copy answers 41, the store's library 42.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest

from support.world import HASH, World, record_row

ANSWER, HELPER = "libanswer-0badf00d.so.1.0.0", "libhelper-1badf00d.so.2.0.0"
COPY, STORE = "41", "42"
SOURCES = {
    "helper.c": "int help(void) { return HELP; }\n",
    "answer.c": "int help(void);\nint answer(void) { return 40 + help(); }\nint shown = 1;\n",
    "ext.c": "int answer(void);\nint ask(void) { return answer(); }\n",
    "versions.map": "V_1 { global: help; answer; shown; local: *; };\n",
}


@dataclass(frozen=True)
class Vendored:
    """A world whose only dist has two grafts."""

    world: World

    @property
    def libs(self) -> str:
        """Return the directory of the grafts."""
        return os.path.join(self.world.site, "pkg.libs")

    @property
    def grafts(self) -> set[str]:
        """Return the file names of the grafts that are there."""
        return set(os.listdir(self.libs)) if os.path.isdir(self.libs) else set()

    def ask(self, venv: str | None = None) -> str:
        """Load the extension in a process of its own: ``COPY``, ``STORE``, or the loader's complaint."""
        extension = self.world.extension.replace(self.world.venv, venv or self.world.venv, 1)
        code = f"import ctypes; print(ctypes.CDLL({extension!r}).ask())"
        done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    def source(self, name: str) -> str:
        """Return the path of a source."""
        return os.path.join(self.world.root, "src", name)

    def rebuild(self, to: str, source: str, *options: str) -> str:
        """Compile a library into the tree or the store."""
        return compile_library(self.world.root, to, source, *options)

    def record(self) -> None:
        """Write RECORD for the files as they are."""
        rows = [record_row(os.path.join(self.libs, name), self.world.site) for name in sorted(self.grafts)]
        self.world.write_record(*rows)


def compile_library(root: str, to: str, source: str, *options: str) -> str:
    """Compile one of the sources."""
    os.makedirs(os.path.dirname(to), exist_ok=True)
    script = f"-Wl,--version-script={os.path.join(root, 'src', 'versions.map')}"
    versions = [] if source == "ext.c" else [script]
    path = os.path.join(root, "src", source)
    command = ["gcc", "-shared", "-fPIC", "-o", to, path, *versions, *options]
    subprocess.run(command, check=True, capture_output=True)
    return to


def make(world: World) -> Vendored:
    """Put the grafted wheel in the place of the world's dist, and what it is made from into the store."""
    if shutil.which("gcc") is None:
        pytest.skip("not installed: gcc")
    root = world.root
    os.makedirs(os.path.join(root, "src"))
    for name, text in SOURCES.items():
        with open(os.path.join(root, "src", name), "w", encoding="ascii") as file:
            file.write(text)
    shutil.rmtree(os.path.dirname(world.library))
    stored: list[str] = []
    for name, version, soname in (("helper", "2.1", "libhelper.so.2"), ("answer", "1.1", "libanswer.so.1")):
        entry = HASH if name == "answer" else HASH[::-1]
        to = os.path.join(world.store, f"{entry}-{name}-{version}", "lib", soname)
        compile_library(
            root,
            to,
            f"{name}.c",
            "-DHELP=2",
            f"-Wl,-soname,{soname}",
            *stored,
            *(f"-Wl,-rpath,{os.path.dirname(path)}" for path in stored),
        )
        stored.append(to)
    made = Vendored(world)
    grafted = compile_library(
        root, os.path.join(made.libs, HELPER), "helper.c", "-DHELP=1", f"-Wl,-soname,{HELPER}"
    )
    answer = compile_library(
        root,
        os.path.join(made.libs, ANSWER),
        "answer.c",
        f"-Wl,-soname,{ANSWER}",
        grafted,
        "-Wl,-rpath,$ORIGIN",
    )
    compile_library(root, world.extension, "ext.c", answer, "-Wl,-rpath,$ORIGIN/../pkg.libs")
    made.record()
    return made
