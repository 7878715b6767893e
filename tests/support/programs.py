"""Small programs, compiled once a session, and helpers to edit, run and inspect them."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

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
    """Return the path of a tool, or skip the test."""
    path = shutil.which(tool)
    if not path:
        pytest.skip(f"{tool} is not installed")
    return path


@dataclass
class Workshop:
    """Compiles into one directory and caches the results."""

    directory: str
    compiler: str = "gcc"
    made: dict[tuple[str, ...], str] = field(default_factory=dict)

    def source(self, name: str) -> str:
        return os.path.join(SOURCES, name)

    def gcc(self, name: str, *arguments: str) -> str:
        """Run the compiler and return the path of the output; the same call twice compiles once."""
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
        """Build a library that needs libanswer.so, without a search path."""
        return self.gcc(
            name, "-shared", "-fPIC", f"-Wl,-soname,{name}", self.source("use.c"), *flags, self.answer
        )

    def program(self, *flags: str) -> str:
        """Build a program that needs libanswer.so, without a search path."""
        return self.gcc("program", self.source("program.c"), self.source("use.c"), *flags, self.answer)

    @property
    def there(self) -> str:
        """The directory of libanswer.so."""
        return os.path.dirname(self.answer)


def edit_file(source: str, to: str, edit: ElfEdit) -> EditResult:
    """Edit into a new file with the mode of the old one, and check it against the original."""
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
    """Return why the in-place writer would refuse any edit, or why the file is skipped."""
    facts = read(source, payload_ok=True)
    return facts.obstacle if isinstance(facts, ElfFacts) else facts.reason.value


def copy(source: str, to: str) -> str:
    shutil.copy(source, to)
    return to


def search_paths(path: str) -> list[tuple[str, str]]:
    """Read search path entries with pyelftools, without empty ones."""
    names = {"DT_RPATH": "rpath", "DT_RUNPATH": "runpath"}
    with open(path, "rb") as file:
        segment = next(s for s in ELFFile(file).iter_segments() if isinstance(s, DynamicSegment))
        tags = [tag for tag in segment.iter_tags() if tag.entry.d_tag in names]
        entries = [(tag.entry.d_tag, str(getattr(tag, names[tag.entry.d_tag]))) for tag in tags]
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
    """Return the output of a program, or "failed ..." if ld.so or the program fails."""
    done = subprocess.run(
        [*runner, program], capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]}
    )
    return done.stdout.strip() if done.returncode == 0 else f"failed {done.returncode} {done.stderr.strip()}"


def load(library: str, symbol: str = "use") -> str:
    """Load a library in another process and return the result of one of its functions."""
    code = f"import ctypes; print(getattr(ctypes.CDLL({library!r}), {symbol!r})())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else f"failed {done.returncode}"


def interpreter_alias(directory: str, loader: str, length: int) -> str:
    """Return a path of at least ``length`` characters to a dynamic loader."""
    path = os.path.join(directory, "loader")
    if not os.path.lexists(path):
        os.symlink(loader, path)
    return path.replace("/loader", "/" + "./" * max(0, (length - len(path) + 1) // 2) + "loader")


def patched_bytes(source: str, to: str, change: Callable[[bytearray], None]) -> str:
    """Copy a file with some bytes changed and return its path."""
    data = bytearray(content(source))
    change(data)
    with open(to, "wb") as file:
        file.write(data)
    shutil.copymode(source, to)
    return to


def cache_source(path: Path, text: str) -> str:
    """Write an assembly source with a resolution cache, as a linker could place it; return its path."""
    path.write_text(
        f"""
        .section .note.nixos.ldcache, "a", %note
        .p2align 2
        .long 6, 1f - 0f, 0x63a86cb6
        .asciz "NixOS"
        .p2align 2
        0: .ascii "{text}"
        1: .p2align 2
        .section .note.GNU-stack, "", %progbits
        """
    )
    return str(path)
