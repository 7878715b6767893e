"""Where ld.so ends a search, held against the real one: a file of any bytes stands before the right one."""

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

from nixpatch.elf import read
from nixpatch.model import ElfFacts, Machine, Skip
from nixpatch.operations.plan import Reader
from nixpatch.resolve.ld_so import locate

NAME = "libprobe.so"
_SMALL = (
    *("-shared", "-fPIC", "-nostdlib", "-nostartfiles", "-Os", "-s", "-Wl,-z,noseparate-code"),
    *("-Wl,-z,max-page-size=4096", "-Wl,--build-id=none", "-fno-asynchronous-unwind-tables"),
)
_SOURCE = b"int probe_data = 1; int probe(void) { return probe_data; }"


@dataclass(frozen=True)
class Loader:
    """The real ld.so, asked by a small program."""

    directory: str
    asked: "subprocess.Popen[bytes]"
    machine: Machine
    library: bytes
    """of a library that can be loaded"""

    def answer(self, data: bytes) -> str:
        """Return what ld.so makes of these bytes, as ``loads.c`` says it."""
        with open(self.path("a"), "wb") as file:
            file.write(data)
        assert self.asked.stdin is not None
        assert self.asked.stdout is not None
        self.asked.stdin.write(b"?")
        return self.asked.stdout.read(1).decode("ascii")

    def path(self, directory: str) -> str:
        """Return the path of the library in one of the two directories."""
        return os.path.join(self.directory, directory, NAME)


@functools.cache
def _loader(owner: int) -> "Loader | None":
    """Compile the program; None where there is no gcc. Each process has one of its own."""
    if shutil.which("gcc") is None:
        return None
    directory = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    program, source = os.path.join(directory, "loads"), os.path.join(os.path.dirname(__file__), "loads.c")
    path = f"-Wl,-rpath,{directory}/a:{directory}/b"
    for name in "ab":
        os.mkdir(os.path.join(directory, name))
    library = os.path.join(directory, "b", NAME)
    subprocess.run(["gcc", "-xc", "-", *_SMALL, "-o", library], input=_SOURCE, check=True)
    subprocess.run(["gcc", "-O1", f'-DNAME="{NAME}"', "-o", program, source, path, "-ldl"], check=True)
    asked = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    atexit.register(_end, asked, directory, owner)
    facts = read(program)
    assert isinstance(facts, ElfFacts)
    with open(library, "rb") as file:
        return Loader(directory, asked, facts.machine, file.read())


def _end(asked: "subprocess.Popen[bytes]", directory: str, owner: int) -> None:
    if os.getpid() == owner:
        asked.communicate()
        shutil.rmtree(directory, ignore_errors=True)


def library() -> bytes:
    """Return a library that can be loaded; nothing where there is no gcc."""
    loader = _loader(os.getpid())
    return loader.library if loader is not None else b""


def search(data: bytes) -> None:
    """The search goes on, ends well or ends in an error where that of the real ld.so does."""
    loader = _loader(os.getpid())
    if loader is None:
        return
    answer = loader.answer(data)
    reader = Reader()
    located = locate(
        NAME,
        search_path=f"{loader.directory}/a:{loader.directory}/b",
        directory=loader.directory,
        machine=loader.machine,
        machine_of=reader.machine,
        stop_at=reader.stop_at,
    )
    assert located is not None
    said = "E" if located.stop is not None else "A" if located.path == loader.path("a") else "B"
    # What happens once the file is mapped is not the search's. nixpatch may refuse more than ld.so does.
    is_refused = (said, answer) == ("E", "A") and isinstance(read(loader.path("a"), payload_ok=True), Skip)
    if answer != "D" and not is_refused:
        assert said == answer, (said, answer, located)
