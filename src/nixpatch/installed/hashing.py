"""Digests of files, with the algorithms that RECORD allows."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Collection

from nixpatch.fs import open_regular
from nixpatch.model import FileHash

DEFAULT_ALGORITHM = "sha256"

# PEP 376 takes any algorithm that hashlib guarantees; the shake family has no digest length of its own.
KNOWN_ALGORITHMS = frozenset(name for name in hashlib.algorithms_guaranteed if not name.startswith("shake_"))

# PEP 427: "sha256 or better; specifically, md5, sha1 and sha224 are not permitted".
KEPT_ALGORITHMS = KNOWN_ALGORITHMS - {"md5", "sha1", "sha224", "sha3_224"}

_BUFFER = 1 << 18  # bytes; stays in the cache of a core
_SMALL = 1 << 16
"""bytes; most files have fewer, and allocating the buffer would take longer than hashing them"""


class Hashing:
    """Digests the bytes of a file, fed from front to back."""

    def __init__(self, algorithms: Collection[str] = (DEFAULT_ALGORITHM,)) -> None:
        """Raise ``ValueError`` for an algorithm that hashlib does not know."""
        # md5 rows of old tools are compared, not trusted; a FIPS build allows md5 for that purpose only.
        self._hashers = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
        self._size = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Feed the next bytes."""
        for hasher in self._hashers.values():
            hasher.update(data)
        self._size += len(data)

    def sha256(self) -> bytes:
        """Return the SHA-256 of the bytes so far; it has to be among the algorithms."""
        return self._hashers[DEFAULT_ALGORITHM].digest()

    def result(self) -> FileHash:
        """Return size and digests of the bytes so far."""
        return FileHash(self._size, {name: hasher.digest() for name, hasher in self._hashers.items()})


def encode_digest(digest: bytes) -> str:
    """Return a digest as RECORD has it: urlsafe base64 without padding (PEP 376, PEP 427)."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def format_sha256(digest: bytes) -> str:
    """Return a SHA-256 as provenance has it: ``sha256=<hex>``."""
    return f"{DEFAULT_ALGORITHM}={digest.hex()}"


def parse_sha256(text: str) -> bytes:
    """Return the digest in a text that :func:`format_sha256` made.

    Raises:
        ValueError: it is not a hexadecimal number.

    """
    return bytes.fromhex(text.removeprefix(f"{DEFAULT_ALGORITHM}="))


def hash_bytes(data: bytes, algorithms: Collection[str] = (DEFAULT_ALGORITHM,)) -> FileHash:
    """Return size and digests of some bytes."""
    hashing = Hashing(algorithms)
    hashing.update(data)
    return hashing.result()


def has_sha256(file: str | int, text: str) -> bool:
    """Return whether ``text`` is the digest of a file that :func:`hash_file` can read."""
    return format_sha256(hash_file(file).digests[DEFAULT_ALGORITHM]) == text


def hash_file(file: str | int, algorithms: Collection[str] = (DEFAULT_ALGORITHM,)) -> FileHash:
    """Read a file once and return its size and digests.

    Args:
        file: a path, not followed if it is a link, or a descriptor, whose position is not used.
        algorithms: names that hashlib knows.

    Raises:
        OSError: it cannot be read, or the path is no regular file.
        ValueError: hashlib does not know an algorithm.

    """
    hashing = Hashing(algorithms)
    descriptor = open_regular(file) if isinstance(file, str) else file
    try:
        size = 0
        while size < _SMALL and (data := os.pread(descriptor, _SMALL, size)):
            hashing.update(data)
            size += len(data)
        buffer = bytearray(_BUFFER if size >= _SMALL else 1)
        view = memoryview(buffer)
        while size >= _SMALL and (count := os.preadv(descriptor, [buffer], size)):
            hashing.update(view[:count])
            size += count
    finally:
        if isinstance(file, str):
            os.close(descriptor)
    return hashing.result()
