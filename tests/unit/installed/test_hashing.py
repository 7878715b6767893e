import hashlib
import os
from pathlib import Path

import pytest

from nixpatch.installed.hashing import hash_file

SMALL, BUFFER = 1 << 16, 1 << 18


@pytest.mark.parametrize(
    "size", [0, 1, SMALL - 1, SMALL, SMALL + 1, BUFFER, SMALL + BUFFER, SMALL + BUFFER + 1, 3 * BUFFER + 7]
)
def test_every_byte_counts_once_whatever_the_size(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    found = hash_file(str(path), {"sha256", "sha512"})
    assert found.size == size
    assert found.digests == {name: hashlib.new(name, data).digest() for name in ("sha256", "sha512")}
