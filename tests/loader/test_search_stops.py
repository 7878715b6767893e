"""Where ld.so ends a search, the simulated one ends, too: a file of the needed name stands earlier."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loader.graphs import loader, read
from nixpatch.operations.plan import Reader
from nixpatch.resolve.ld_so import LoaderConfig, locate, simulate
from support.world import shared

pytestmark = pytest.mark.gcc

NAME = "libanswer.so.1"


def changed(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


def program(path: Path, *options: str) -> None:
    source = b"int main(void) { return 0; }"
    subprocess.run(["gcc", "-xc", "-", "-o", path, *options], input=source, check=True)


def runnable(path: Path) -> None:
    """A library that can be run as a program, as libc.so.6 can, with data at its end."""
    source = b'const char interp[] __attribute__((section(".interp"))) = "/lib64/ld-linux-x86-64.so.2";'
    options = ["-shared", "-fPIC", f"-Wl,-soname,{NAME}"]
    answer = b"int answer(void) { return 42; } int answer_data = 42;"
    subprocess.run(["gcc", "-xc", "-", "-o", path, *options], input=source + answer, check=True)
    with path.open("ab") as file:
        file.write(b"payload" * 100)


def loaded(path: str) -> str:
    """Return the maps of a process that has loaded a library; "" if ld.so fails."""
    code = f"import ctypes; ctypes.CDLL({path!r}); print(open('/proc/self/maps').read())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout


def bind(path: Path, _: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(path))


PLACED: dict[str, Callable[[Path, bytes], object]] = {
    "nothing": lambda _path, _data: None,
    "the text of a link, as pip makes of one in a zip": lambda path, _: path.write_bytes(
        b"libanswer.so.1.2.3"
    ),
    "a long text": lambda path, _: path.write_bytes(b"libanswer.so.1.2.3\n" * 40),
    "an empty file": lambda path, _: path.write_bytes(b""),
    "a directory": lambda path, _: path.mkdir(),
    "a dangling link": lambda path, _: path.symlink_to("nowhere"),
    "a link to itself": lambda path, _: path.symlink_to(NAME),
    "a link below a file": lambda path, _: path.symlink_to("/etc/passwd/x"),
    "a link to a device": lambda path, _: path.symlink_to("/dev/null"),
    "a socket": bind,
    "the header alone": lambda path, data: path.write_bytes(data[:64]),
    "the beginning": lambda path, data: path.write_bytes(data[:200]),
    "another class": lambda path, data: path.write_bytes(changed(data, 4, b"\1")),
    "an unknown class": lambda path, data: path.write_bytes(changed(data, 4, b"\7")),
    "another byte order": lambda path, data: path.write_bytes(changed(data, 5, b"\2")),
    "another version": lambda path, data: path.write_bytes(changed(data, 6, b"\2")),
    "another system": lambda path, data: path.write_bytes(changed(data, 7, b"\x09")),
    "the system GNU": lambda path, data: path.write_bytes(changed(data, 7, b"\x03")),
    "another machine": lambda path, data: path.write_bytes(changed(data, 18, b"\xb7\0")),
    "a file of another byte order": lambda path, data: path.write_bytes(
        changed(changed(data, 5, b"\2"), 18, b"\0\x16")
    ),
    "another machine and version": lambda path, data: path.write_bytes(
        changed(changed(data, 18, b"\xb7\0"), 20, b"\2")
    ),
    "another machine and system": lambda path, data: path.write_bytes(
        changed(changed(data, 18, b"\xb7\0"), 7, b"\x09")
    ),
    "another file version": lambda path, data: path.write_bytes(changed(data, 20, b"\2")),
    "a version of the ABI": lambda path, data: path.write_bytes(changed(data, 8, b"\1")),
    "a version of the ABI of GNU": lambda path, data: path.write_bytes(changed(data, 7, b"\3\1")),
    "a mark in the padding": lambda path, data: path.write_bytes(changed(data, 12, b"AI")),
    "an object file": lambda path, data: path.write_bytes(changed(data, 16, b"\1\0")),
    "a program at a fixed place": lambda path, data: path.write_bytes(changed(data, 16, b"\2\0")),
    "no program headers": lambda path, data: path.write_bytes(changed(data, 56, b"\0\0")),
    "program headers of another size": lambda path, data: path.write_bytes(changed(data, 54, b"\x30\0")),
    "program headers beyond the end": lambda path, data: path.write_bytes(changed(data, 32, b"\xff\xff\xff")),
    "a library that can be run, with a payload": lambda path, _: runnable(path),
    "a program": lambda path, _: program(path, "-pie"),
    "a static program": lambda path, _: program(path, "-static"),
}


@pytest.mark.parametrize("tag", ["--enable-new-dtags", "--disable-new-dtags"])
@pytest.mark.parametrize("name", PLACED)
def test_the_search_ends_where_that_of_ld_so_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, tag: str
) -> None:
    if sys.byteorder == "big" or sys.maxsize < 1 << 32:
        pytest.skip("the changed bytes are those of a 64-bit little-endian file")
    monkeypatch.chdir(tmp_path)  # a path of a socket has 108 bytes
    root = Path(os.path.realpath(tmp_path))
    library = shared("library.c", str(root / "b" / NAME), f"-Wl,-soname,{NAME}")
    (root / "a").mkdir()
    user = shared(
        "extension.c", str(root / "user.so"), library, f"-Wl,{tag},-rpath,{root}/a:{root}/b", "-Wl,-z,lazy"
    )
    PLACED[name](root / "a" / NAME, Path(library).read_bytes())

    mapped = loaded(user)

    reader = Reader()
    facts = read(user)
    assert facts is not None
    located = locate(
        NAME,
        search_path=facts.current.search_path,
        directory=str(root),
        machine=facts.machine,
        machine_of=reader.machine,
        stop_at=reader.stop_at,
    )
    assert (located is not None and located.stop is None and f" {located.path}\n" in mapped) == bool(mapped)
    config = LoaderConfig(reader.facts, loader=loader(), stop_at=reader.stop_at)
    process = simulate(os.path.realpath(sys.executable), config, [user])
    unmet = [need for need in process.unmet if need.by == user and need.need == NAME]
    assert (not unmet) == bool(mapped)


def test_a_file_that_may_not_be_read_is_passed_by(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text("text")
    path.chmod(0)
    facts = read(os.path.realpath(sys.executable))
    assert facts is not None
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        assert Reader().stop_at(str(path), facts.machine) is None
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("need", ["${ORIGIN}x.so", "$ORIGIN/../x.so", "$ORIGIN"])
def test_a_need_with_a_token_is_a_path(tmp_path: Path, need: str) -> None:
    """ld.so expands tokens before it looks for a slash: ``${ORIGIN}x.so`` stands beside the directory."""
    root = Path(os.path.realpath(tmp_path))
    target = shared("library.c", str(root / "target.so"), f"-Wl,-soname,{need}")
    user = shared("extension.c", str(root / "d" / "user.so"), target, f"-Wl,-rpath,{root}/decoy")
    shutil.copy(target, root / "dx.so")
    shutil.copy(target, root / "x.so")
    (root / "decoy").mkdir()
    if "/" not in need:
        shutil.copy(target, root / "decoy" / need)
    mapped = loaded(user)
    facts = read(user)
    assert facts is not None
    assert facts.needed[0] == need
    reader = Reader()
    located = locate(
        need,
        search_path=facts.current.search_path,
        directory=str(root / "d"),
        machine=facts.machine,
        machine_of=reader.machine,
        stop_at=reader.stop_at,
    )
    assert located is not None
    assert (located.stop is None) == bool(mapped)
    if located.stop is None:
        assert f" {located.path}\n" in mapped
    assert "decoy" not in mapped
