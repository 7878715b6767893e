"""The list of missing libraries, from a plan and a catalog made of text."""

from __future__ import annotations

from nixpatch.model import Answer, Dist, FilePlan, Origin, Plan, Tree, TreeFile, TreeKind
from nixpatch.operations.missing import find_missing
from nixpatch.store.catalog import Catalog
from support.resolving import STORE, TARGET

CATALOG = Catalog("\nzlib\tlibz.so.1 \nlibsodium\tlibsodium.so.26 \n")
DIST = Dist("one", "1.0", "/t", "/t/one-1.0.dist-info")


def file(name: str, *sonames: str, owned: bool = True) -> FilePlan:
    missing = (Answer(soname, Origin.MISSING, considered=(f"{name}: searched",)) for soname in sonames)
    owners = (DIST.info,) if owned else ()
    return FilePlan(TreeFile(f"/t/{name}", 1, owners), None, answers=tuple(missing), stops=(f"/t/{name}",))


def plan(*files: FilePlan) -> Plan:
    tree = Tree("/t", "/t", TreeKind.PLAIN, tuple(file.file for file in files), (DIST,))
    return Plan(tree, TARGET, STORE, files)


def test_each_soname_is_listed_once_with_its_files_and_dists() -> None:
    lacking = plan(file("b.so", "libz.so.1"), file("a.so", "libz.so.1", "liba.so", owned=False))
    first, second = find_missing(lacking, CATALOG)
    assert (first.soname, first.files, first.dists) == ("liba.so", ("/t/a.so",), ("(no dist)",))
    assert (second.soname, second.files) == ("libz.so.1", ("/t/a.so", "/t/b.so"))
    assert second.dists == ("(no dist)", "one 1.0")
    assert second.considered == ("b.so: searched",)


def test_the_catalog_gives_the_attribute_or_other_versions() -> None:
    absolute, other, unknown = find_missing(
        plan(file("a.so", "/usr/lib/libz.so.1", "libsodium.so.23", "libx.so")), CATALOG
    )
    assert absolute.attribute is not None
    assert (absolute.attribute.attribute, absolute.near) == ("zlib", ())
    assert other.attribute is None
    assert [near.soname for near in other.near] == ["libsodium.so.26"]
    assert (unknown.attribute, unknown.near, unknown.alternatives) == (None, (), ())


def test_without_missing_needs_the_list_is_empty() -> None:
    assert find_missing(plan(file("a.so"))) == ()
