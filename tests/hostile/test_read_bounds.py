"""What others wrote and nixpatch only reads, made to ask for more than it is worth."""

import struct
from pathlib import Path

import pytest

from support.bounded import run

PYTHON = """
    from nixpatch.installed.manylinux_parser import answers
    from nixpatch.resolve.python_names import opened_names
    source = {make}
    names = [name for name in opened_names(dict([("x.py", source)])) if name.name != "*"]
    print(len(names), len(answers(source[:65536]).computed) > 0)
"""
SOURCES = {
    "brackets": 'b"CDLL(" + b"(" * 4_000_000',
    "negations": 'b"CDLL(" + b"-" * 90_000 + b"1)"',
    "attributes": 'b"CDLL(a" + b".a" * 90_000 + b")"',
    "calls of calls": 'b"CDLL" + b"()" * 90_000',
    "conditions": 'b"CDLL(" + b"a if b else " * 20_000 + b"c)"',
    "a sum": 'b"CDLL(1" + b"+1" * 40_000 + b")"',
    "blocks": 'b"CDLL\\n" + b"".join(b" " * n + b"if 1:\\n" for n in range(300))',
    "elifs": 'b"CDLL\\nif 1: 1\\n" + b"elif 1: 1\\n" * 30_000',
    "a number": 'b"CDLL(" + b"9" * 4_000_000 + b")"',
    "a number in hexadecimal": 'b"CDLL(0x" + b"f" * 4_000_000 + b")"',
    "a power": 'b"CDLL(9**9**9**9)\\nmanylinux1_compatible = 9**9**9"',
    "a product": """b"CDLL(('a' * 9 ** 9) * 9 ** 9)" """,
    "4 MiB of names": 'b"CDLL\\n" + b"a\\n" * 2_000_000',
    "as many names as are read": 'b"CDLL\\n" + b"a\\n" * 99_000',
    "30,000 items": 'b"CDLL\\nx = (" + b"a," * 30_000 + b")"',
    "30,000 tables": 'b"CDLL\\nx = (" + b"[]," * 30_000 + b")"',
    "names for names": 'b"CDLL\\ndef f(N):\\n" + b" N = N\\n" * 300 + b" N(N)\\n CDLL(N)"',
    "calls of names": 'b"CDLL\\ndef f(N):\\n" + b" N = M = N(N)\\n M = N = M\\n" * 60 + b" CDLL(M(N))"',
    "sums of sums": 'b"CDLL\\n" + b"N = N + N + b\\n" * 3_000 + b"CDLL(N)\\n" * 3_000',
    "formats in formats": '''b"CDLL(" + b"f'{" * 200 + b"}'" * 200 + b")"''',
    "an encoding that is none": 'b"# coding: nothing\\nCDLL(1)"',
    "an encoding that is no text": 'b"# coding: hex\\nCDLL(1)"',
}
MANY = """
    from nixpatch.resolve.python_names import opened_names
    source = b"".join(b"N = 'lib%d.so'\\n" % n for n in range(4_000)) + b"CDLL(N)\\n" * 4_000
    print(len(opened_names(dict([("x.py", source)]))) <= 4_000 * 16)
"""
TUPLES = """
    from nixpatch.installed.manylinux_parser import answers
    lines = ["a0 = b0 = 1"]
    for n in range(60):
        lines += [f"a{n + 1} = (a{n}, a{n})", f"b{n + 1} = (b{n}, b{n})"]
    lines.append("manylinux1_compatible = a60 == b60")
    print(answers("\\n".join(lines).encode()).computed)
    wide = "a = (" + "1," * 15_000 + ")\\nb = (" + "a," * 10_000 + ")\\nx = b == b"
    print(answers(wide.encode()).computed)
"""
LD_CACHE = """
    from nixpatch.installed import loader_defaults
    data = open(path, "rb").read()
    try:
        print("read", len(loader_defaults.parse(data)))
    except loader_defaults.NotACache as why:
        print("none", why)
"""
LOADER = """
    from nixpatch.installed.loader_defaults import read_loader_defaults
    found = read_loader_defaults(path)
    print(len(found.directories), found.cache)
"""
LOADERS = {
    "one name without an end": b"/a" * 2_000_000,
    "directories": b"/a/\0" * 1_000_000,
    "directories and no end": b"/a/\0" * 500_000 + b"/a" * 1_000_000,
    "slashes": b"/" * 4_000_000,
    "letters": b"a" * 4_000_000,
    "caches": b"\0/ld.so.cach" * 340_000,
    "one long name of a cache": b"\0/" + b"/ld.so.cache" * 340_000,
}
DOCUMENT = """
    from nixpatch.operations.diff import read_side
    from nixpatch.unvendor.versions import components
    try:
        print("read", read_side(path).kind)
    except RequestError as refused:
        print("refused", len(str(refused)) < 1000)
    print(len(list(components(open(path, "rb").read()))))
"""
DOCUMENTS = {
    "tables": b"[" + b"{}," * 5_000_000 + b"{}]",
    "deep": b'{"command":' + b"[" * 1_000_000,
    "a number": b'{"command":"plan","trees":' + b"9" * 10_000_000 + b"}",
    "a command of megabytes": b'{"command":"' + b"a" * 15_000_000 + b'"}',
    "components": b'{"components":[' + b'{"name":"a","version":"1"},' * 200_000 + b"{}]}",
}


@pytest.mark.parametrize("shape", SOURCES)
def test_python_sources(shape: str) -> None:
    assert run(PYTHON.format(make=SOURCES[shape].strip())) in {"0 True", "0 False"}


def test_as_many_calls_as_names() -> None:
    assert run(MANY) == "True"


def test_tuples_of_tuples_are_not_compared() -> None:
    assert run(TUPLES).splitlines() == [
        "line 6 has more than a list of versions",
        "line 1 has more than a list of versions",
    ]


@pytest.mark.parametrize("value", [0, 1, 0xFFFFFFFF])
@pytest.mark.parametrize("count", [170_000, 0xFFFFFFFF])
def test_a_cache_whose_names_are_tails_of_one(count: int, value: int, tmp_path: Path) -> None:
    entries = min(count, 170_000)
    start = 48 + 24 * entries
    table = b"".join(
        struct.pack("=iIIIQ", 3, start + n % 4000, min(start * value, 0xFFFFFFFF), 0, 0)
        for n in range(entries)
    )
    head = b"glibc-ld.so.cache1.1" + struct.pack("=II", count, 0) + bytes(20)
    (tmp_path / "cache").write_bytes(head + table + b"a" * 4090 + b"\0")
    assert run(LD_CACHE, str(tmp_path / "cache")).startswith("none")


@pytest.mark.parametrize("shape", LOADERS)
def test_loaders(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "ld.so"
    path.write_bytes(LOADERS[shape])
    assert run(LOADER, str(path)).endswith("None")


@pytest.mark.parametrize("shape", DOCUMENTS)
def test_documents(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DOCUMENTS[shape])
    said, components = run(DOCUMENT, str(path)).splitlines()
    assert said == "refused True"
    assert components == ("200000" if shape == "components" else "0")
