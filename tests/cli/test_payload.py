"""Programs with data of their own appended stay as they are, byte for byte, and are reported by name."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess

import pytest

from support.world import NO_LOADER, Run, World, compile_c, record_row

pytestmark = pytest.mark.gcc

PAYLOADS = {
    "zip": b"PK\3\4" + b"x" * 500 + b"PK\5\6" + bytes(18),
    "PyInstaller": b"x" * 500 + b"MEI\014\013\012\013\016" + bytes(80),
    "bun": b"x" * 500 + b"\n---- Bun! ----\n" + bytes(8),
    "deno": b"d3n0l4nd" + b"x" * 500 + b"d3n0l4nd" + bytes(12),
    "node SEA": b"x" * 500 + b"NODE_SEA_BLOB" + bytes(80),
    "squashfs": b"hsqs" + bytes(5000),
    # An offset from the beginning of the file, which only the program itself can make sense of.
    "unknown format": b"x" * 500 + (12345).to_bytes(8, "little"),
    "AppImage": b"hsqs" + bytes(5000),
}


def test_payloads_are_reported_by_name_and_left_alone(world: World, nixpatch: Run) -> None:
    before: dict[str, bytes] = {}
    paths = {name: os.path.join(world.venv, "bin", f"with {name}") for name in PAYLOADS}
    for name, path in paths.items():
        shutil.copy(world.program, path)
        with open(path, "r+b") as file:
            if name == "AppImage":
                file.seek(8)
                file.write(b"AI\2")
            file.seek(0, os.SEEK_END)
            file.write(PAYLOADS[name])
        with open(path, "rb") as file:
            before[path] = file.read()
    world.write_record(*(record_row(path, world.site) for path in paths.values()))

    code, out, _ = nixpatch("-vv", world.venv)

    assert code == 1
    loader = f"its interpreter {NO_LOADER} is not there"
    for name, path in paths.items():
        assert f"bin/with {name}: cannot start as it is: {loader}" in " ".join(out.split())
        detail = f"has data appended that it may look for by offset ({name}, {len(PAYLOADS[name])} bytes)"
        assert f"bin/with {name}: skipped, {detail}" in out
        with open(path, "rb") as file:
            assert file.read() == before[path]
    assert world.run_program() == 42
    code, out, _ = nixpatch("verify", world.venv)
    assert code == 1
    assert out.count("cannot start as it is") == len(PAYLOADS)
    assert "--force-payload" in out
    ignored = ("--ignore-missing", os.path.basename(NO_LOADER))
    assert nixpatch(*ignored, world.venv)[0] == 0


@pytest.fixture
def with_data(world: World) -> str:
    """A program with appended data that starts with the machine's own loader."""
    path = os.path.join(world.venv, "bin", "with data")
    compile_c("program.c", path, os.path.join(world.library, "libanswer.so.1"))
    with open(path, "ab") as file:
        file.write(PAYLOADS["bun"])
    world.write_record(record_row(path, world.site))
    return path


def test_a_program_that_lacks_a_library_remains(world: World, nixpatch: Run, with_data: str) -> None:
    code, out, _ = nixpatch("plan", world.venv)
    assert code == 1
    assert "libanswer.so.1 is not found" in out
    assert "--force-payload" in out
    shutil.copy(os.path.join(world.library, "libanswer.so.1"), os.path.dirname(with_data))
    edit = ("elf", "--force-payload", "--set-rpath", "$ORIGIN", with_data)
    assert nixpatch(*edit)[0] == 0
    world.write_record(record_row(with_data, world.site))
    assert subprocess.run([with_data], check=False).returncode == 42
    code, out, _ = nixpatch("plan", world.venv)
    assert (code, "cannot start" in out) == (0, False)


@pytest.mark.parametrize("size", [1, 16, 17, 4096, 100_000])
def test_zeros_at_the_end_are_padding(world: World, nixpatch: Run, size: int) -> None:
    with open(world.program, "ab") as file:
        file.write(bytes(size))
    world.write_record()
    code, out, _ = nixpatch(world.venv)
    assert (code, "data appended" in out) == (0, False)
    assert world.run_program() == 42
    with open(world.program, "rb") as file:
        assert file.read()[-size:] == bytes(size)
    assert nixpatch("restore", world.venv)[0] == 0


def test_a_file_that_no_loader_can_map_is_broken_by_name(world: World, nixpatch: Run) -> None:
    # As strip leaves a library that auditwheel has edited.
    with open(world.extension, "r+b") as file:
        header = file.read(64)
        start, size, count = struct.unpack("<Q", header[32:40])[0], *struct.unpack("<HH", header[54:58])
        for place in range(start, start + size * count, size):
            file.seek(place)
            kind, flags, offset, address, physical, length = struct.unpack("<IIQQQQ", file.read(40))
            if kind == 1 and flags & 1:
                file.seek(place)
                file.write(struct.pack("<IIQQQQ", kind, flags, offset + 16, address, physical, length - 16))
    world.write_record(record_row(world.program, world.site))

    for command in ([], ["plan"], ["verify"]):
        code, out, _ = nixpatch(*command, world.venv)
        text = " ".join(out.split())
        assert code == 1, text
        name = os.path.relpath(world.extension, world.venv)
        assert f"{name}: broken: no loader can map it: load command address/offset not page-aligned" in text
