"""Programs with data of their own appended stay as they are, byte for byte, and are reported by name."""

from __future__ import annotations

import os
import shutil

import pytest

from support.world import Run, World, record_row

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

    assert code == 0
    for name, path in paths.items():
        detail = f"has data appended that it may look for by offset ({name}, {len(PAYLOADS[name])} bytes)"
        assert f"bin/with {name}: skipped, {detail}" in out
        with open(path, "rb") as file:
            assert file.read() == before[path]
    assert world.run_program() == 42
    assert nixpatch("verify", world.venv)[0] == 0
