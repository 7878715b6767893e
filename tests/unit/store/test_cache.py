"""The cache may make a run quicker; it may never change what comes out."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nixpatch.model import Provider
from support.store_fakes import World, library, symlink, world

TICK = 0.02  # longer than the file system's clock ticks


@pytest.fixture
def here(tmp_path: Path) -> World:
    found = world(tmp_path)
    for name in ("zlib-1.3", "zlib-1.2"):
        library(f"{found.path(name)}/lib/libz.so.1", defs=[name])
    library(f"{found.path('xz-5')}/lib/liblzma.so.5")
    return found


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache" / "store.sqlite")


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep rows of files that changed a moment ago too, so that tests need not wait two seconds."""
    monkeypatch.setattr("nixpatch.store.cache._SETTLED", -(10**12))


def ask(here: World, cache: str | None, edition: str = "") -> dict[str, tuple[Provider, ...]]:
    here.reader.asked.clear()
    with here.index(cache=cache, edition=edition) as index:
        return {name: index.providers(name) for name in ("libz.so.1", "liblzma.so.5", "libnew.so.1")}


def check(here: World, cache: str) -> None:
    """What the cache makes of it is what reading makes of it, also the second time."""
    time.sleep(TICK)
    for _ in range(2):
        assert ask(here, cache) == ask(here, None)


@pytest.mark.usefixtures("trusting")
def test_a_second_run_reads_neither_directories_nor_headers(
    here: World, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask(here, cache)
    assert len(here.reader.asked) == 3

    def refuse(path: bytes) -> list[bytes]:
        raise AssertionError(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert ask(here, cache) == first
    assert here.reader.asked == []


def test_what_changed_a_moment_ago_is_not_remembered(
    here: World, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # File systems count time in ticks. Within a long one, a second change leaves the same stamp.
    for module in ("cached_reads", "whole_store"):
        monkeypatch.setattr(f"nixpatch.store.{module}.stamp_of", lambda _: b"the same tick")
    path = f"{here.path('xz-5')}/lib"
    ask(here, cache)
    library(f"{path}/liblzma.so.5", defs=["other"])
    library(f"{path}/libnew.so.1")
    found = ask(here, cache)
    assert found["liblzma.so.5"][0].version_defs == {"other"}
    assert len(found["libnew.so.1"]) == 1


def _replace_file(here: World) -> None:
    library(f"{here.path('zlib-1.3')}/lib/libz.so.1", defs=["other"])


def _rewrite_in_place(here: World) -> None:
    path = Path(f"{here.path('zlib-1.3')}/lib/libz.so.1")
    status = path.stat()
    data = path.read_bytes().replace(b"zlib-1.3", b"zlib-9.9")
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as Nix does: same size, same mtime


def _rebuild_path(here: World) -> None:
    path = here.path("zlib-1.3")
    shutil.rmtree(path)
    library(f"{path}/lib/libnew.so.1")
    for directory in (f"{path}/lib", path):
        os.utime(directory, (1, 1))  # as every store path


def _collect(here: World) -> None:
    shutil.rmtree(here.path("zlib-1.3"))


def _add_path(here: World) -> None:
    library(f"{here.path('new-1')}/lib/libnew.so.1")


def _add_file(here: World) -> None:
    library(f"{here.path('xz-5')}/lib/libnew.so.1")


def _add_lib64(here: World) -> None:
    library(f"{here.path('xz-5')}/lib64/libnew.so.1")


def _lib_becomes_link(here: World) -> None:
    path = here.path("xz-5")
    os.rename(f"{path}/lib", f"{path}/libs")
    symlink(f"{path}/lib", f"{here.path('zlib-1.2')}/lib")


def _file_becomes_link(here: World) -> None:
    path = f"{here.path('zlib-1.3')}/lib/libz.so.1"
    os.unlink(path)
    symlink(path, f"{here.path('zlib-1.2')}/lib/libz.so.1")


def _file_becomes_directory(here: World) -> None:
    path = f"{here.path('zlib-1.3')}/lib/libz.so.1"
    os.unlink(path)
    os.mkdir(path)


def _swap_paths(here: World) -> None:
    one, two = here.path("zlib-1.3"), here.path("zlib-1.2")
    os.rename(one, one + "~")
    os.rename(two, one)
    os.rename(one + "~", two)


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize(
    "change",
    [
        _replace_file, _rewrite_in_place, _rebuild_path, _collect, _add_path, _add_file, _add_lib64,
        _lib_becomes_link, _file_becomes_link, _file_becomes_directory, _swap_paths,
    ],
)  # fmt: skip
def test_every_change_of_the_store_is_seen(here: World, cache: str, change: Callable[[World], None]) -> None:
    before = ask(here, cache)
    time.sleep(TICK)
    change(here)
    check(here, cache)
    assert ask(here, cache) != before


@pytest.mark.usefixtures("trusting")
def test_rows_of_paths_that_are_gone_are_removed(here: World, cache: str) -> None:
    ask(here, cache)
    gone = here.path("zlib-1.3")
    shutil.rmtree(gone)
    library(f"{here.path('new-1')}/lib/libnew.so.1")
    check(here, cache)
    with sqlite3.connect(cache) as database:
        rows = [os.fsdecode(row[0]) for row in database.execute("SELECT path FROM entry")]
    database.close()
    assert rows
    assert not any(row.startswith(gone) for row in rows)


@pytest.mark.usefixtures("trusting")
def test_another_edition_of_the_program_reads_again(here: World, cache: str) -> None:
    ask(here, cache, edition="1.0")
    ask(here, cache, edition="1.1")
    assert len(here.reader.asked) == 3
    ask(here, cache, edition="1.1")
    assert here.reader.asked == []


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("contents", [b"", b"not a database", b"SQLite format 3\0" + bytes(4000)])
def test_a_broken_cache_is_replaced(here: World, cache: str, contents: bytes) -> None:
    os.makedirs(os.path.dirname(cache))
    Path(cache).write_bytes(contents)
    check(here, cache)
    ask(here, cache)
    assert here.reader.asked == []


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE entry (path TEXT, names TEXT)",
        "CREATE TABLE something (else TEXT); PRAGMA user_version = 7".replace("else", "other"),
        "CREATE TABLE entry (kind, path, stamp, value, sum); INSERT INTO entry VALUES (1, 5, 'x', NULL, -1)",
    ],
)
def test_a_cache_of_another_schema_or_program_is_replaced(here: World, cache: str, schema: str) -> None:
    os.makedirs(os.path.dirname(cache))
    database = sqlite3.connect(cache)
    database.executescript(schema)
    database.close()
    check(here, cache)
    ask(here, cache)
    assert here.reader.asked == []


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("row", ["5, 'text', NULL, 'x', 'y'", "1, x'2f', x'2f', 7, 7", "1, 3, 3, x'00', 0"])
def test_nonsense_in_a_cache_that_looks_right_does_not_matter(here: World, cache: str, row: str) -> None:
    ask(here, cache)
    database = sqlite3.connect(cache, isolation_level=None)
    database.execute(f"INSERT INTO entry VALUES ({row})")
    database.execute("UPDATE entry SET value = x'00' WHERE kind = 1")
    database.execute("UPDATE entry SET value = CAST('[1, 2]' AS BLOB) WHERE kind = 2")
    database.close()
    check(here, cache)


@pytest.mark.usefixtures("trusting")
def test_bits_that_flip_in_the_cache_do_not_matter(here: World, cache: str) -> None:
    right = ask(here, cache)
    good = Path(cache).read_bytes()
    dice = random.Random(20)
    filled = [place for place, byte in enumerate(good) if byte]
    for _ in range(150):
        bad = bytearray(good)
        for _ in range(dice.choice((1, 1, 20))):
            bad[dice.choice(filled)] ^= 1 << dice.randrange(8)
        Path(cache).write_bytes(bad[: dice.choice((len(bad), len(bad), dice.randrange(len(bad))))])
        assert ask(here, cache) == right


@pytest.mark.usefixtures("trusting")
def test_a_locked_cache_is_done_without(here: World, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nixpatch.store.cache._WAIT", 0.05)
    ask(here, cache)
    right = ask(here, None)
    database = sqlite3.connect(cache, isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    assert ask(here, cache) == right
    library(f"{here.path('new-1')}/lib/libnew.so.1")
    assert ask(here, cache) == ask(here, None)
    database.execute("COMMIT")
    database.close()
    check(here, cache)


@pytest.mark.usefixtures("trusting")
def test_a_cache_that_cannot_be_written_is_no_error(here: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (f"{tmp_path}/file/store.sqlite", f"{tmp_path}/nix", "/proc/nixpatch/store.sqlite"):
        assert ask(here, place) == ask(here, None)


@pytest.mark.usefixtures("trusting")
def test_processes_may_share_a_cache(here: World, cache: str) -> None:
    code = (
        "import sys, pathlib\n"
        "import nixpatch.store.cache as cache\n"
        "from support.store_fakes import World\n"
        "cache._SETTLED = -10**12\n"
        "for _ in range(8):\n"
        "    with World(sys.argv[1]).index(cache=sys.argv[2]) as index:\n"
        "        assert len(index.providers('libz.so.1')) == 2, index.providers('libz.so.1')\n"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    command = [sys.executable, "-c", code, here.root, cache]
    running = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(4)]
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            library(f"{here.path(f'churn-{number}')}/lib/libchurn.so.{number}")
            time.sleep(0.01)

    thread = threading.Thread(target=churn)
    thread.start()
    errors = [process.communicate()[1] for process in running]
    stop.set()
    thread.join()
    assert [process.returncode for process in running] == [0] * 4, errors
    check(here, cache)
