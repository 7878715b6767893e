"""Texts that ask for more than they are worth: RECORD, METADATA, JSON, TOML, the cache, a deep tree."""

import contextlib
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest

from nixpatch.installed.record import MAX_RECORD_SIZE
from nixpatch.store.cache import Cache, RowKind
from support.bounded import run

MIB = 1 << 20

RECORD = """
    data = {make}
    try:
        print(len(list(record.paths(data))))
        rows = record.parse(data)
        new = record.FileHash(1, {{"sha256": b"x" * 32}})
        print(len(rows.with_row("new", new).data) - len(data))
    except FileRefused as refused:
        print("refused", refused)
"""
RECORDS = {
    "64 MiB": 'b"a" * (64 << 20)',
    "one row of 15 MiB": 'b"a" * (15 << 20)',
    "an open quote and a million pairs": """b'"' + b'""' * 1_000_000""",
    "3,000,000 pairs in quotes that end": """b'"' + b'""' * 3_000_000 + b'",,\\n"'
""",
    "15,000,000 commas and a quote": """b',' * 15_000_000 + b'"' """,
    "quotes that are none": """b'a"' * 3_000_000""",
    "quotes at each field": """b'"",' * 1_500_000""",
    "a million rows of one path": """b"a,,\\n" * 1_000_000""",
    "130,000 rows of a hundred bytes": """b"".join(b"%099d,sha256=x,1\\n" % n for n in range(130_000))""",
    "carriage returns": """b"\\r" * 15_000_000""",
}


@pytest.mark.parametrize("shape", RECORDS)
def test_record(shape: str) -> None:
    assert run(RECORD.format(make=RECORDS[shape].strip()))


def test_the_largest_record_is_larger_than_any_real_one() -> None:
    rows = b"".join(b"package/module_%d/file.py,sha256=%s,1234\n" % (n, b"x" * 43) for n in range(100_000))
    assert len(rows) < MAX_RECORD_SIZE


LOCATE = """
    locator = record_paths.Locator("/t/lib/python3.11/site-packages", "/t")
    for number in range({rows}):
        locator.locate({row})
    print("done")
"""


@pytest.mark.parametrize(
    "row",
    [
        'str(number) + "/a" * 2000 + "/x.so"',
        'str(number) + "/.." * 1300 + "/x.so"',
        '"a/../" * 800 + f"{number}.so"',
        '"../" * number + "x.so"',
    ],
)
def test_rows_of_two_thousand_directories(row: str) -> None:
    """Four thousand rows of four thousand bytes are a RECORD of 16 MiB."""
    assert run(LOCATE.format(rows=4000, row=row)) == "done"


METADATA = """
    found = dists.headers({make})
    lines = tuple(found.get("requires-dist", ()))
    all_of = [dists.Dist("a", "1", "/s", "/s/a", lines), dists.Dist("b", "1", "/s", "/s/b")]
    from nixpatch.model import Libc, Machine, Target
    machine = Machine(62, 64, "little")
    target = Target("/p", "", (3, 11), machine, "/l", Libc.GLIBC, (2, 36), frozenset(), "/l")
    print(len(dist_graph.lenders(all_of, target)))
"""


@pytest.mark.parametrize(
    "make",
    [
        'b"Name: a\\n" + b" b\\n" * 340_000',
        'b"Name: a" + b" " * 1_000_000 + b"b"',
        'b"Requires-Dist: b" + b" " * 500_000 + b"\\n" + b" " * 500_000 + b"x"',
        'b"Name" + b" " * 1_000_000',
        'b"Requires-Dist: b\\n" * 30_000',
        'b"Requires-Dist: b; " + b"(" * 200_000',
        'b"Requires-Dist: b; " + b"os_name == \\"x\\" and " * 20_000 + b"os_name == \\"y\\""',
        'b"Requires-Dist: b[" + b"x," * 500_000 + b"x]"',
        'b"Requires-Dist: b==" + b"1." * 500_000 + b"1"',
        'b"Requires-Dist: b>=" + b"9" * 1_000_000',
        'b"Requires-Dist: b; python_version >= \\"" + b"9" * 1_000_000 + b"\\""',
    ],
)
def test_metadata(make: str) -> None:
    assert run(METADATA.format(make=make)) == "2"


def test_of_a_metadata_of_gigabytes_only_the_head_is_read(tmp_path: Path) -> None:
    info = tmp_path / "a-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_bytes(b"Name: a\nVersion: 2\n\n")
    os.truncate(info / "METADATA", 4 << 30)
    code = "print(dists.find_dists(path, path)[0][0].version)"
    assert run(code, str(tmp_path)) == "2"


JSON = """
    try:
        {read}
        print("read")
    except (ValueError, RequestError) as error:
        print("refused", str(error)[:200])
"""
HOSTILE_JSON = {
    "tables": b"[" + b"{}," * 5_000_000 + b"{}]",
    "lists": b"[" + b"[]," * 5_000_000 + b"[]]",
    "texts": b"[" + b'"ab",' * 3_000_000 + b'"ab"]',
    "keys": b"{" + b",".join(b'"%x":0' % n for n in range(400_000)) + b"}",
    "deep": b"[" * 1_000_000,
    "a number": b"9" * 10_000_000,
    "one text": b'"' + "\U0001f600".encode() + b"a" * 15_000_000 + b'"',
}


@pytest.mark.parametrize("shape", HOSTILE_JSON)
@pytest.mark.parametrize("reader", ["provenance.read(path)", "lockfile.read(path, None)"])
def test_json(reader: str, shape: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(HOSTILE_JSON[shape])
    assert run(JSON.format(read=reader), str(path)).startswith("refused")


@pytest.mark.parametrize(
    "text",
    [
        b"a = " + b"[" * 500_000,
        b"a = " + b"{a = " * 100_000,
        b".".join([b"a"] * 400_000) + b" = 1",
        b"[" + b".".join([b"a"] * 400_000) + b"]",
        b"a = [" + b"[]," * 300_000 + b"]",
        b"a = " + b"9" * 1_000_000,
        b'[drivers]\nsonames = ["' + b"*a" * 2000 + b'b"]',
    ],
)
def test_toml(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(text)
    code = """
        data = open(path, "rb").read()
        try:
            print(policy.parse(policy.toml(data)).is_driver("a" * 60_000))
        except policy.PolicyError as error:
            print("refused", str(error)[:200])
    """
    assert run(code, str(path)).startswith(("refused", "False"))


def test_globs_of_many_stars_take_no_time() -> None:
    code = """
        table = policy.Policy(drivers=("*a" * 500 + "b", "?*" * 500 + "[!c]d"))
        print(table.is_driver("a" * 65_536))
    """
    assert run(code) == "False"


@pytest.mark.parametrize(
    "entries",
    [
        '"/../x" * 200_000',
        '"$ORIGIN/.." * 90_000',
        '":".join(f"$ORIGIN/{n}" for n in range(100_000))',
        '":" * 500_000',
    ],
)
def test_search_paths_of_a_mebibyte(entries: str) -> None:
    code = f"""
        text = {entries}
        old = search_path.split(text, directory="/t/lib/p", prefix="/t", store_dir="/nix/store",
                                driver_directory="/run/d", exists=lambda _: True)
        search_path.join(old, directory="/t/lib/p", new=(), driver_directory=None)
        print("done")
    """
    assert run(code) == "done"


CACHE = """
    cache = Cache(path, "x")
    print(len(cache._rows[RowKind.NAMES]), os.path.exists(path))
"""


def test_a_cache_that_is_a_view_without_an_end(tmp_path: Path) -> None:
    path = os.path.join(tmp_path, "cache")
    known = Cache(path, "x")
    known.put(RowKind.NAMES, "/a", b"s", b"v")
    known.save()
    assert run(CACHE, path) == "1 True"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE entry")
        database.execute(
            "CREATE VIEW entry AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
            "SELECT 1, CAST(x AS BLOB), x'00', zeroblob(1000000), 0 FROM n"
        )
        database.commit()
    assert run(CACHE, path) == "0 False"


def test_a_cache_of_gigabytes_is_made_anew(tmp_path: Path) -> None:
    path = os.path.join(tmp_path, "cache")
    Path(path).write_bytes(b"SQLite format 3\0")
    os.truncate(path, 4 << 30)
    assert run(CACHE, path) == "0 False"


def test_a_tree_two_thousand_directories_deep(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x7fELF" + bytes(60))
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(2000):
            os.mkdir("deep", dir_fd=here)
            os.symlink("..", "up", dir_fd=here)
            deeper = os.open("deep", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        said = run("tree = scan(path)\nprint(len(tree.files), len(tree.notes))", str(tmp_path))
    finally:
        os.close(here)
        # Python's own rmtree, and pytest with it, goes down by recursion.
        subprocess.run(["rm", "-rf", str(tmp_path / "deep")], check=True)
    assert said == "1 1"  # the note is of the directory whose path is longer than PATH_MAX
