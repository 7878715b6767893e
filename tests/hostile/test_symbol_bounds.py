"""Symbols, mentions and renames of files that ask for more than they are worth."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz.forge import BASE, DT_NEEDED, NEED, PT_LOAD, VERSION, Forged, verdef, verneed
from support.bounded import run

DT_HASH, DT_SYMTAB, DT_GNU_HASH, DT_VERSYM = 4, 6, 0x6FFFFEF5, 0x6FFFFFF0
SYMBOLS = """
    from nixpatch.elf import read_symbols
    try:
        found = read_symbols(path)
        print("read", len(found.defined), len(found.wanted))
    except FileRefused as refused:
        print("refused", refused)
"""
DESCRIBE = """
    from nixpatch.elf.readers.own import describe
    try:
        with open(path, "rb") as file:
            print("read", describe(file.fileno()).symbols.count)
    except FileRefused as refused:
        print("refused", refused)
"""
MENTIONS = """
    from nixpatch.elf import mentions
    print(sorted(mentions(path, {names})))
"""
RENAME = """
    with open(path, "rb") as source, tempfile.TemporaryFile() as out:
        wish = ElfEdit(None, renames=(("libneed.so.2", "libn.so.3"),))
        try:
            write_edited(source.fileno(), out.fileno(), wish)
            print("edited", *check(source.fileno(), out.fileno(), wish))
        except FileRefused as refused:
            print("refused", refused)
"""


def _with_table(content: bytes, *tags: tuple[int, int], strings: bytes = b"", **more: object) -> bytes:
    """Give a library with ``content`` in a note, whose address counts from 0 in ``tags``."""
    plain = Forged(notes=(content,), dynamic=[(DT_NEEDED, NEED), *tags], **more)  # type: ignore[arg-type]
    if strings:
        plain.strings = strings
    at = plain.data().index(content[:64]) + BASE
    plain.dynamic = [(DT_NEEDED, NEED), *((tag, at + value) for tag, value in tags)]
    return plain.data()


def _symbol(name: int, section: int = 1) -> bytes:
    return struct.pack("<IBBHQQ", name, 0x12, 0, section, 1, 8)


def _hash_counts(count: int) -> Callable[[], bytes]:
    content = struct.pack("<II", 1, count) + b"\x5a" * 64
    return lambda: _with_table(content, (DT_HASH, 0), (DT_SYMTAB, 8))


def _gnu(buckets: int, first: int, words: int, table: bytes, *more: tuple[int, int]) -> Callable[[], bytes]:
    content = struct.pack("<4I", buckets, first, words, 0) + b"\xa5" * 8 * min(words, 1) + table
    return lambda: _with_table(content, (DT_GNU_HASH, 0), (DT_SYMTAB, 0), *more)


def _chain_without_end() -> bytes:
    return _gnu(1, 1, 1, struct.pack("<I", 1) + b"\2\0\0\0" * 600_000)()


def _chain_in_a_thousand_segments() -> bytes:
    loads = [(PT_LOAD, 6, 0, (number + 16) << 24, 0, 64, 64, 0x1000) for number in range(1000)]
    content = struct.pack("<4I", 1, 1, 0, 0) + struct.pack("<I", 1) + b"\2\0\0\0" * 300_000
    return _with_table(content, (DT_GNU_HASH, 0), (DT_SYMTAB, 0), more_phdrs=loads)


def _tails() -> bytes:
    """As many symbols as there may be, each with a tail of the longest string for its name."""
    count = 200_000
    content = struct.pack("<II", 1, count) + b"".join(_symbol(60 + n % 9000) for n in range(count))
    strings = Forged().strings.ljust(60, b"\0") + b"s" * 100_000 + b"\0"
    return _with_table(content, (DT_HASH, 0), (DT_SYMTAB, 8), strings=strings)


def _many() -> bytes:
    """A quarter of a million symbols with names of their own."""
    count = 1 << 18
    content = struct.pack("<II", 1, count) + b"".join(_symbol(60 + 8 * n, n % 2) for n in range(count))
    strings = Forged().strings.ljust(60, b"\0") + b"".join(b"%07x\0" % n for n in range(count))
    return _with_table(content, (DT_HASH, 0), (DT_SYMTAB, 8), strings=strings)


def _vernaux_shared() -> bytes:
    """Each of 4,096 records asks for the same 60,000 versions."""
    heads = b"".join(struct.pack("<HHIII", 1, 60_000, NEED, 16 * (4096 - n), 16) for n in range(4096))
    versions = verneed(versions=[VERSION] * 60_000)[16:]
    content = struct.pack("<II", 1, 1) + b"\x5a" * 64
    return _with_table(content, (DT_HASH, 0), (DT_SYMTAB, 8), verneed=heads + versions, verneed_count=4096)


SHAPES: dict[str, Callable[[], bytes]] = {
    "DT_HASH with 2**32 chains": _hash_counts((1 << 32) - 1),
    "DT_HASH with 200,000 chains that are not there": _hash_counts(200_000),
    "DT_GNU_HASH with 2**32 buckets": _gnu((1 << 32) - 1, 1, 1, b"\1\0\0\0" * 8),
    "DT_GNU_HASH with a million buckets that are not there": _gnu(1_000_000, 1, 1, b"\1\0\0\0" * 8),
    "DT_GNU_HASH with 2**32 words": _gnu(1, 1, (1 << 32) - 1, b"\1\0\0\0" * 8),
    "DT_GNU_HASH whose symbols begin at 2**32": _gnu(1, (1 << 32) - 1, 1, b"\1\0\0\0" * 8),
    "DT_GNU_HASH with the last bucket at 2**32": _gnu(1, 1, 1, b"\xff" * 32),
    "a chain without an end": _chain_without_end,
    "a chain in a thousand segments": _chain_in_a_thousand_segments,
    "200,000 tails of one name": _tails,
    "262,144 symbols": _many,
    "240 million shared versions": _vernaux_shared,
    "a chain of 20,000 verdefs": lambda: _with_table(
        struct.pack("<II", 1, 1) + b"\x5a" * 64,
        *((DT_HASH, 0), (DT_SYMTAB, 8)),
        verdef=verdef([VERSION] * 20_000),
        verdef_count=20_000,
    ),
}


_READ = {"262,144 symbols", "a chain of 20,000 verdefs", "DT_GNU_HASH whose symbols begin at 2**32"}
"""those that are what they say; ld.so finds nothing in the last one"""


def _file(data: bytes, directory: Path) -> str:
    path = os.path.join(directory, "x.so")
    Path(path).write_bytes(data)
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_symbols(shape: str, tmp_path: Path) -> None:
    said = run(SYMBOLS, _file(SHAPES[shape](), tmp_path))
    assert said.startswith("read" if shape in _READ else "refused")


DESCRIBED: dict[str, Callable[[], bytes]] = {
    **SHAPES,
    "a thousand verdefs that share 60 parents of 60,000 bytes": lambda: _with_table(
        struct.pack("<II", 1, 1) + b"\x5a" * 64,
        *((DT_HASH, 0), (DT_SYMTAB, 8)),
        strings=Forged().strings.ljust(60, b"\0") + b"s" * 60_000 + b"\0",
        verdef=b"".join(struct.pack("<HHHHIII", 1, 0, n, 60, 0, 20 * (1000 - n), 20) for n in range(1000))
        + struct.pack("<II", 60, 8) * 60,
        verdef_count=1000,
    ),
}


@pytest.mark.parametrize("shape", DESCRIBED)
def test_descriptions(shape: str, tmp_path: Path) -> None:
    assert run(DESCRIBE, _file(DESCRIBED[shape](), tmp_path)).startswith(("read", "refused"))


def test_where_the_symbols_begin_behind_the_last_bucket_there_are_none_to_find(tmp_path: Path) -> None:
    data = _gnu(1, 2, 1, b"\0\0\0\0" + b"\x5a" * 64, (DT_VERSYM, 16))()
    assert run(SYMBOLS, _file(data, tmp_path)).startswith("read")


def test_a_string_table_of_nothing_but_the_name(tmp_path: Path) -> None:
    data = Forged(strings=Forged().strings + b"lib.so" * 2_000_000 + b"\0").data()
    path = _file(data, tmp_path)
    assert run(MENTIONS.format(names='[b"lib.so", b"\\0", b""]'), path) == "[b'\\x00']"
    with open(path, "ab") as file:
        file.write(b"lib.so")
    assert run(MENTIONS.format(names='[b"lib.so"]'), path) == "[b'lib.so']"


def test_a_name_behind_a_hole(tmp_path: Path) -> None:
    path = _file(Forged().data(), tmp_path)
    os.truncate(path, (1 << 28) + 3)
    with open(path, "ab") as file:
        file.write(b"libfar.so")
    assert run(MENTIONS.format(names='[b"libfar.so", b"libnear.so"]'), path) == "[b'libfar.so']"


def test_a_name_across_the_pieces_that_are_read(tmp_path: Path) -> None:
    data = Forged().data()
    for begin in ((1 << 20) - 4, (1 << 20) - 9, 1 << 20, (2 << 20) - 17):
        path = _file(data.ljust(begin, b"-") + b"libfar.so" + b"-" * (1 << 20), tmp_path)
        assert (
            run(MENTIONS.format(names='[b"libfar.so", b"x" * 40, b"libfar.soo"]'), path) == "[b'libfar.so']"
        )


RENAMED: dict[str, Callable[[], bytes]] = {
    "65,000 version records of one file": lambda: Forged(
        verneed=b"".join(struct.pack("<HHIII", 1, 0, NEED, 16, 16) for _ in range(65_000)),
        verneed_count=65_000,
    ).data(),
    "version records over one another": lambda: Forged(
        verneed=b"".join(struct.pack("<HHIII", 1, 0, NEED, 16, 8) for _ in range(9)), verneed_count=9
    ).data(),
    "4,096 needs of one name": lambda: Forged(dynamic=[(DT_NEEDED, NEED)] * 4096).data(),
    "20,000 needs of one name": lambda: Forged(dynamic=[(DT_NEEDED, NEED)] * 20_000).data(),
    "a version record that is the name": lambda: Forged(verneed=verneed(name=NEED + 3)).data(),
}


@pytest.mark.parametrize("shape", RENAMED)
def test_renames(shape: str, tmp_path: Path) -> None:
    assert run(RENAME, _file(RENAMED[shape](), tmp_path)).startswith(("edited", "refused"))
