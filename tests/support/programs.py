"""Small programs, compiled once a session, and what the tests do with them."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile

from nixpatch.elf import read
from nixpatch.elf.check_inplace import check
from nixpatch.elf.headers import Headers, parse
from nixpatch.elf.image import Image
from nixpatch.elf.inplace_writer import Digests, EditResult, write_edited, write_original
from nixpatch.installed.hashing import Hashing, hash_file
from nixpatch.model import ElfEdit, ElfFacts

SOURCES = os.path.join(os.path.dirname(__file__), "..", "..", "fixtures", "elf")
RICH = ("-DWITH_BSS=9000", "-DWITH_TLS", "-DWITH_DATA")


def need(tool: str) -> str:
    """The path of a tool, or skip the test."""
    found = shutil.which(tool)
    if not found:
        pytest.skip(f"{tool} is not installed")
    return found


@dataclass
class Workshop:
    """Compiles into one directory and remembers what it made."""

    directory: str
    compiler: str = "gcc"
    made: dict[tuple[str, ...], str] = field(default_factory=dict)

    def source(self, name: str) -> str:
        return os.path.join(SOURCES, name)

    def gcc(self, name: str, *arguments: str) -> str:
        """Run the compiler; the same call twice gives the same file. Gives the path of the output."""
        key = (name, *arguments)
        if key not in self.made:
            compiler = need(self.compiler)
            out = os.path.join(self.directory, f"{len(self.made)}", name)
            os.makedirs(os.path.dirname(out), exist_ok=True)
            subprocess.run([compiler, "-O1", "-o", out, *arguments], check=True, capture_output=True)
            self.made[key] = out
        return self.made[key]

    @property
    def answer(self) -> str:
        """libanswer.so, with two symbol versions."""
        script = f"-Wl,--version-script={self.source('versions.map')}"
        flags = ("-shared", "-fPIC", "-Wl,-soname,libanswer.so")
        return self.gcc("libanswer.so", *flags, script, self.source("answer.c"))

    def library(self, *flags: str, name: str = "libuse.so") -> str:
        """A library that needs libanswer.so and does not say where it is."""
        return self.gcc(
            name, "-shared", "-fPIC", f"-Wl,-soname,{name}", self.source("use.c"), *flags, self.answer
        )

    def program(self, *flags: str) -> str:
        """A program that needs libanswer.so and does not say where it is."""
        return self.gcc("program", self.source("program.c"), self.source("use.c"), *flags, self.answer)

    @property
    def there(self) -> str:
        """The directory of libanswer.so."""
        return os.path.dirname(self.answer)


def edit_file(source: str, to: str, edit: ElfEdit) -> EditResult:
    """Edit into a new file with the mode of the old one, and hold it against the original."""
    fd = os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.stat(source).st_mode & 0o777)
    before, after = Hashing(), Hashing()
    try:
        result = write_edited(source, fd, edit, digests=Digests(before, after))
        if result.digested:
            assert (before.result(), after.result()) == (hash_file(source), hash_file(fd))
        assert check(source, fd, edit, deep=True) == ()
        assert check(source, fd, edit) == ()
        return result
    finally:
        os.close(fd)


def restore_file(source: str, to: str) -> bytes:
    fd = os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o755)
    try:
        return write_original(source, fd)
    finally:
        os.close(fd)


def obstacle(source: str) -> str | None:
    """What the facts say stands in the way of any edit, or why there are no facts."""
    found = read(source, payload_ok=True)
    return found.obstacle if isinstance(found, ElfFacts) else found.reason.value


def copy(source: str, to: str) -> str:
    shutil.copy(source, to)
    return to


def search_paths(path: str) -> list[tuple[str, str]]:
    """Search path entries as an independent reader sees them; an empty one is as good as none."""
    names = {"DT_RPATH": "rpath", "DT_RUNPATH": "runpath"}
    with open(path, "rb") as file:
        segment = next(s for s in ELFFile(file).iter_segments() if isinstance(s, DynamicSegment))
        found = [(tag.entry.d_tag, tag) for tag in segment.iter_tags() if tag.entry.d_tag in names]
        entries = [(name, str(getattr(tag, names[name]))) for name, tag in found]
    return [entry for entry in entries if entry[1]]


def read_headers(path: str) -> Headers:
    fd = os.open(path, os.O_RDONLY)
    try:
        return parse(Image.of(fd))
    finally:
        os.close(fd)


def content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def digest(path: str) -> bytes:
    return hashlib.sha256(content(path)).digest()


def run(program: str, *, runner: tuple[str, ...] = ()) -> str:
    """What a program prints; "failed" if ld.so or the program gives up."""
    done = subprocess.run(
        [*runner, program], capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]}
    )
    return done.stdout.strip() if done.returncode == 0 else f"failed {done.returncode} {done.stderr.strip()}"


def load(library: str, symbol: str = "use") -> str:
    """What a function of a library returns when another process loads it."""
    code = f"import ctypes; print(getattr(ctypes.CDLL({library!r}), {symbol!r})())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else f"failed {done.returncode}"


def interpreter_alias(directory: str, loader: str, length: int) -> str:
    """A path of at least ``length`` characters that leads to a dynamic loader."""
    path = os.path.join(directory, "loader")
    if not os.path.lexists(path):
        os.symlink(loader, path)
    return path.replace("/loader", "/" + "./" * max(0, (length - len(path) + 1) // 2) + "loader")


def patched_bytes(source: str, to: str, change: Callable[[bytearray], None]) -> str:
    """A copy of a file with some bytes changed."""
    data = bytearray(content(source))
    change(data)
    with open(to, "wb") as file:
        file.write(data)
    shutil.copymode(source, to)
    return to
