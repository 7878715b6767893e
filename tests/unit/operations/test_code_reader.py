"""What the sources of a dist open is kept by their digests: for the same ones in any tree, and no others."""

import os
from pathlib import Path

import pytest

from nixpatch.fs import read_regular
from nixpatch.installed.dist_records import TreeRecords
from nixpatch.installed.scan import scan
from nixpatch.model import Machine
from nixpatch.operations.opened_names import CodeReader
from nixpatch.policy import default_policy
from nixpatch.resolve import python_names
from nixpatch.store import cache as store_cache
from nixpatch.store.cache import Cache
from support.world import record_row

X86_64 = Machine(62, 64, "little")


class Tree:
    """A site-packages with one dist, which an installer recorded."""

    def __init__(self, site: Path, cache: Path) -> None:
        self.site = site
        self.cache = str(cache)
        self.info = site / "pkg-1.0.dist-info"
        self.info.mkdir(parents=True)
        (site / "pkg").mkdir()
        self.source = site / "pkg" / "__init__.py"

    def install(self, library: str, ending: str = "\n") -> None:
        self.source.write_text(f"import ctypes\nctypes.CDLL({library!r})\n")
        self.record(ending)

    def record(self, ending: str = "\n") -> None:
        rows = [record_row(str(self.source), str(self.site)), "pkg-1.0.dist-info/RECORD,,"]
        (self.info / "RECORD").write_bytes("".join(row + ending for row in rows).encode())

    def names(self) -> list[str]:
        tree, cache = scan(str(self.site)), Cache(self.cache, "1")
        python = CodeReader(tree, default_policy(), cache, TreeRecords()).code_names({}, X86_64).python
        cache.save()
        return [name.name for names in python.values() for name in names]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "a", tmp_path / "cache")


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that were followed."""
    paths: list[str] = []
    add = python_names._Dist._add

    def noted(dist: python_names._Dist, path: str, data: bytes) -> None:
        paths.append(path)
        add(dist, path, data)

    monkeypatch.setattr(python_names._Dist, "_add", noted)
    return paths


@pytest.mark.parametrize("ending", ["\n", "\r\n"])  # uv writes the first, pip the second
def test_an_upgrade_is_seen(tree: Tree, ending: str) -> None:
    tree.install("libz.so.1", ending)
    assert tree.names() == ["libz.so.1"]
    tree.install("libfoo.so.7", ending)
    assert tree.names() == ["libfoo.so.7"]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_same_dist_in_another_tree_is_known(
    tree: Tree, tmp_path: Path, parsed: list[str], ending: str
) -> None:
    tree.install("libz.so.1", ending)
    assert tree.names() == ["libz.so.1"]
    other = Tree(tmp_path / "b", tmp_path / "cache")
    other.install("libz.so.1", ending)
    parsed.clear()
    assert other.names() == ["libz.so.1"]
    assert not parsed


def test_a_record_that_claims_the_digests_of_another_dist_is_not_believed_for_that_one(
    tree: Tree, tmp_path: Path
) -> None:
    tree.install("libz.so.1")
    tree.source.write_text("import ctypes\nctypes.CDLL('libevil.so.1')\n")
    assert tree.names() == ["libevil.so.1"]
    other = Tree(tmp_path / "b", tmp_path / "cache")
    other.install("libz.so.1")
    assert other.names() == ["libz.so.1"]


def test_a_source_that_was_edited_after_it_was_installed_is_seen(tree: Tree) -> None:
    tree.install("libz.so.1")
    assert tree.names() == ["libz.so.1"]
    tree.source.write_text("import ctypes\nctypes.CDLL('libfoo.so.7')\n")
    assert tree.names() == ["libfoo.so.7"]
    tree.install("libz.so.1")
    assert tree.names() == ["libz.so.1"]


def test_an_edit_is_seen_where_the_sources_were_compared_before(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_cache, "_SETTLED", 0)
    tree.install("libz.so.1")
    for _ in range(3):
        assert tree.names() == ["libz.so.1"]
    status = tree.source.stat()
    tree.source.write_text("import ctypes\nctypes.CDLL('libz.so.2')\n")
    os.utime(tree.source, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert tree.names() == ["libz.so.2"]


def test_sources_that_have_not_changed_are_not_read_again(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_cache, "_SETTLED", 0)
    tree.install("libz.so.1")
    assert tree.names() == ["libz.so.1"]
    reads: list[str] = []

    def noted(path: str, limit: int) -> bytes:
        reads.append(path)
        return read_regular(path, limit)

    monkeypatch.setattr("nixpatch.installed.scan.read_regular", noted)
    assert tree.names() == ["libz.so.1"]
    assert str(tree.source) not in reads


def test_a_dist_that_claims_the_digests_of_a_known_one_is_read_itself(tree: Tree, tmp_path: Path) -> None:
    tree.install("libz.so.1")
    assert tree.names() == ["libz.so.1"]
    other = Tree(tmp_path / "b", tmp_path / "cache")
    other.install("libz.so.1")
    other.source.write_text("import ctypes\nctypes.CDLL('libevil.so.1')\n")
    assert other.names() == ["libevil.so.1"]
    assert tree.names() == ["libz.so.1"]


def test_a_source_that_record_does_not_list_by_digest_is_read_each_time(tree: Tree) -> None:
    tree.install("libz.so.1")
    rows = f"pkg/{tree.source.name},,\npkg-1.0.dist-info/RECORD,,\n"
    (tree.info / "RECORD").write_text(rows)
    assert tree.names() == ["libz.so.1"]
    tree.source.write_text("import ctypes\nctypes.CDLL('libfoo.so.7')\n")
    assert tree.names() == ["libfoo.so.7"]


def test_a_dist_without_sources_opens_nothing_and_teaches_nothing(tree: Tree, tmp_path: Path) -> None:
    (tree.info / "RECORD").write_text("pkg-1.0.dist-info/RECORD,,\n")
    assert tree.names() == []
    other = Tree(tmp_path / "b", tmp_path / "cache")
    other.install("libz.so.1", "\r\n")
    assert other.names() == ["libz.so.1"]


def test_rows_for_other_trees_stay(tree: Tree, tmp_path: Path, parsed: list[str]) -> None:
    others = [Tree(tmp_path / name, tmp_path / "cache") for name in "bcd"]
    for number, each in enumerate((tree, *others)):
        each.install(f"libz.so.{number}")
        each.names()
    parsed.clear()
    for number, each in enumerate((tree, *others)):
        assert each.names() == [f"libz.so.{number}"]
    assert not parsed


def test_a_source_that_cannot_be_read_is_not_taken_for_an_empty_one(tree: Tree, tmp_path: Path) -> None:
    tree.install("libz.so.1")
    os.rename(tree.source, tree.source.with_suffix(".away"))
    assert tree.names() == []
    os.rename(tree.source.with_suffix(".away"), tree.source)
    assert tree.names() == ["libz.so.1"]
