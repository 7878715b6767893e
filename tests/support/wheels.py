"""Wheel files with an extension and a program that need the library of the small store."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

from nixpatch.installed.hashing import encode_digest
from support.world import World, compile_c, shared

NAME = "pkg-1.0-py3-none-linux_x86_64.whl"
PATCHED = "pkg-1.0-0nixpatch-py3-none-linux_x86_64.whl"
INFO = "pkg-1.0.dist-info"
Members = dict[str, bytes]


def contents(world: World) -> Members:
    """Return the members of a wheel with an extension and a program."""
    library = os.path.join(world.library, "libanswer.so.1")
    extension, tool = os.path.join(world.root, "_ext.so"), os.path.join(world.root, "tool")
    shared("extension.c", extension, library)
    compile_c("program.c", tool, library)
    return {
        "pkg/__init__.py": b"",
        "pkg/_ext.so": Path(extension).read_bytes(),
        "pkg-1.0.data/scripts/tool": Path(tool).read_bytes(),
        f"{INFO}/METADATA": b"Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\n",
        f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-linux_x86_64\n",
    }


def record_of(members: Members, info: str = INFO) -> bytes:
    """Return a RECORD of the members."""
    digests = {name: encode_digest(hashlib.sha256(data).digest()) for name, data in members.items()}
    rows = [f"{name},sha256={digests[name]},{len(data)}" for name, data in members.items()]
    return "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()


def write(
    path: Path,
    members: Members,
    change: Callable[[zipfile.ZipFile], None] | None = None,
    *,
    info: str = INFO,
    record: bytes | None = None,
    level: int = 6,
    packing: int = zipfile.ZIP_DEFLATED,
) -> str:
    """Write a wheel with a RECORD; ``change`` adds to the archive."""
    record = record_of(members, info) if record is None else record
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in {**members, f"{info}/RECORD": record}.items():
            member = zipfile.ZipInfo(name, (2020, 2, 2, 2, 2, 2))
            member.external_attr = (stat.S_IFREG | (0o755 if "/scripts/" in name else 0o644)) << 16
            archive.writestr(member, data, packing, level)
        if change is not None:
            change(archive)
    return str(path)


def beside_wheel(world: World) -> str:
    """Write the wheel ``other``, which has the library."""
    members = {
        "lib/libanswer.so.1": Path(world.library, "libanswer.so.1").read_bytes(),
        "other-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: other\nVersion: 1.0\n",
        "other-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\n",
    }
    path = Path(world.root, "other-1.0-py3-none-linux_x86_64.whl")
    return write(path, members, info="other-1.0.dist-info")
