"""ld.so.cache and the loader's own directories, from bytes."""

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixpatch.installed.loader_defaults import NotACache, parse, read_loader_defaults

Row = tuple[str, str, int, int]


def cache(rows: list[Row], *, old: int | None = None) -> bytes:
    """Write a cache as ldconfig does; ``old`` is the number of entries of an old table before it."""
    before = b"" if old is None else b"ld.so-1.7.0\0" + struct.pack("=I", old) + bytes(12 * old)
    before += bytes(-len(before) % 8)
    strings, entries = b"", b""
    first = 48 + 24 * len(rows)
    for name, path, flags, hwcap in rows:
        key, strings = first + len(strings), strings + os.fsencode(name) + b"\0"
        value, strings = first + len(strings), strings + os.fsencode(path) + b"\0"
        entries += struct.pack("=iIIIQ", flags, key, value, 0, hwcap)
    header = b"glibc-ld.so.cache1.1" + struct.pack("=II", len(rows), len(strings)) + bytes(20)
    return before + header + entries + strings


ROWS: list[Row] = [
    ("libz.so.1", "/lib/fast/libz.so.1", 0x303, 1 << 62),
    ("libz.so.1", "/lib/libz.so.1", 0x303, 0),
    ("libz.so.1", "/lib32/libz.so.1", 0x003, 0),
    ("libold.so.1", "/lib/libold.so.1", 0x001, 0),
    ("libodd\udcff.so", "/lib/libodd\udcff.so", 0x303, 0),
]


@pytest.mark.parametrize("old", [None, 0, 3])
def test_both_forms_are_read_and_libraries_for_some_processors_left_out(old: int | None) -> None:
    assert parse(cache(ROWS, old=old)) == {
        "libz.so.1": ("/lib/libz.so.1", "/lib32/libz.so.1"),
        "libold.so.1": ("/lib/libold.so.1",),
        "libodd\udcff.so": ("/lib/libodd\udcff.so",),
    }


def test_what_leaves_the_file_is_no_cache() -> None:
    whole = cache(ROWS)
    for wrong in (b"", whole[:47], whole[:60], whole[:-1], b"ld.so-1.7.0\0\xff\xff\xff\xff" + whole[16:]):
        with pytest.raises(NotACache):
            parse(wrong)
    # A table and names as long as they please, in a file that is not.
    with pytest.raises(NotACache):
        parse(whole[:20] + b"\xff\xff\xff\x7f" + whole[24:])


@given(st.binary(max_size=200), st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_any_bytes_are_a_cache_or_none(data: bytes, at: int, change: bytes) -> None:
    whole = cache(ROWS)
    for given_bytes in (data, whole[:20] + data, whole[:at] + change + whole[at + len(change) :]):
        try:
            found = parse(given_bytes)
        except NotACache:
            continue
        assert all(isinstance(path, str) for paths in found.values() for path in paths)


def loader(path: str, *, directories: bytes, cache_name: bytes = b"") -> str:
    with open(path, "wb") as file:
        file.write(
            b"\x7fELF" + bytes(60) + b"\x80\x01" + directories + bytes(20) + b"x/\0 /usr/share/locale/\0"
        )
        file.write(cache_name + b"\0search cache=%s\0")
    return path


def test_a_loader_tells_its_directories_and_its_cache(tmp_path: os.PathLike[str]) -> None:
    base = os.fspath(tmp_path)
    with open(f"{base}/ld.so.cache", "wb") as file:
        file.write(cache(ROWS))
    store = b"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-glibc-2.40-66/lib/\0"
    found = read_loader_defaults(
        loader(f"{base}/a", directories=store, cache_name=os.fsencode(f"{base}/ld.so.cache"))
    )
    assert found.directories == (store[:-2].decode(),)
    assert found.cache == f"{base}/ld.so.cache"
    assert found.cached["libz.so.1"][0] == "/lib/libz.so.1"

    debian = b"/lib/x86_64-linux-gnu/\0/usr/lib/x86_64-linux-gnu/\0/lib/\0/usr/lib/\0"
    found = read_loader_defaults(loader(f"{base}/b", directories=debian, cache_name=b"/no/such/ld.so.cache"))
    assert found.directories == ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib")
    assert found.cache is None


def test_a_loader_that_cannot_be_read_knows_nothing() -> None:
    assert read_loader_defaults("/no/such/ld.so").directories == ()


def test_musl_has_three_directories_unless_a_file_says_otherwise() -> None:
    assert read_loader_defaults("/lib/ld-musl-nosuch.so.1").directories == (
        "/lib",
        "/usr/local/lib",
        "/usr/lib",
    )
