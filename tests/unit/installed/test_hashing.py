import hashlib
import os
from pathlib import Path

import pytest

from nixpatch.installed.hashing import format_sha256, has_sha256, hash_file, parse_sha256

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


def test_the_digest_of_provenance_is_hexadecimal_with_its_algorithm(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data")
    text = f"sha256={hashlib.sha256(b'data').hexdigest()}"
    assert format_sha256(hashlib.sha256(b"data").digest()) == text
    assert parse_sha256(text) == hashlib.sha256(b"data").digest()
    assert has_sha256(str(path), text)
    assert not has_sha256(str(path), "sha256=00")
    with pytest.raises(ValueError, match="hexadecimal"):
        parse_sha256("sha256=no")
