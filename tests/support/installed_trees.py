"""Small installed trees, as pip and uv leave them."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from nixpatch.installed.hashing import encode_digest

ELF = b"\x7fELF\x02\x01\x01" + bytes(57) + b"code"
"""what a scan takes for an ELF file: the magic, and long enough for a header"""

SITE = "lib/python3.11/site-packages"


def write(path: str | Path, data: bytes = ELF, mode: int = 0o644) -> str:
    name = os.fspath(path)
    os.makedirs(os.path.dirname(name), exist_ok=True)
    with open(name, "wb") as file:
        file.write(data)
    os.chmod(name, mode)
    return name


def row(path: str, data: bytes = ELF, algorithm: str = "sha256") -> bytes:
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).rstrip(b"=")
    return os.fsencode(path) + f",{algorithm}=".encode() + digest + f",{len(data)}".encode()


def dist(
    site: str | Path,
    name: str,
    files: Mapping[str, bytes],
    *,
    version: str = "1.0",
    requires: tuple[str, ...] = (),
    more_rows: bytes = b"",
) -> str:
    """Install a dist: its files relative to ``site``, METADATA and RECORD. Return the dist-info directory."""
    site = os.fspath(site)
    info = f"{name}-{version}.dist-info"
    headers = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {what}" for what in requires)]
    metadata = "\n".join(["Metadata-Version: 2.1", *headers, "", "Name: not a header\n"]).encode()
    for path, data in files.items():
        write(os.path.join(site, path), data, 0o755 if "/bin/" in path else 0o644)
    everything = {**files, f"{info}/METADATA": metadata}
    lines = b"".join(row(path, data) + b"\n" for path, data in everything.items())
    write(os.path.join(site, info, "METADATA"), metadata)
    write(os.path.join(site, info, "RECORD"), lines + f"{info}/RECORD,,\n".encode() + more_rows)
    return os.path.realpath(os.path.join(site, info))


def digest(data: bytes, algorithm: str = "sha256") -> str:
    return encode_digest(hashlib.new(algorithm, data).digest())
