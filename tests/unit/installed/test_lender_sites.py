"""Libraries in site-packages outside the tree, as withPackages and store paths of one dist have them."""

import os
from pathlib import Path

from nixpatch.installed.lender_sites import read_lender_sites

SITE = "lib/python3.12/site-packages"


def _dist(prefix: Path, name: str, *libraries: str) -> Path:
    site = prefix / SITE
    info = site / f"{name}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    for library in libraries:
        path = site / library
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (info / "RECORD").write_text("".join(f"{library},,\n" for library in libraries))
    return site


def test_prefix_and_site_packages_serve_alike(tmp_path: Path) -> None:
    site = _dist(tmp_path / "a", "a", "a/lib/liba.so.1", "a/__init__.py")

    for given in (str(tmp_path / "a"), str(site)):
        (lender,) = read_lender_sites([given])
        assert lender.libraries == {"liba.so.1": (f"{site}/a/lib/liba.so.1",)}
        assert [dist.name for dist in lender.dists] == ["a"]


def test_prefixes_without_libraries_of_dists_lend_nothing(tmp_path: Path) -> None:
    _dist(tmp_path / "pure", "pure", "pure/__init__.py")
    (tmp_path / "zlib" / "lib").mkdir(parents=True)
    (tmp_path / "zlib" / "lib" / "libz.so.1").write_bytes(b"")

    assert read_lender_sites([str(tmp_path / "pure"), str(tmp_path / "zlib"), str(tmp_path / "gone")]) == ()


def test_linked_directories_and_files_count_where_they_are(tmp_path: Path) -> None:
    a = _dist(tmp_path / "a", "a", "a/liba.so.1")
    b = _dist(tmp_path / "b", "b", "shared/libb.so.1")
    farm = tmp_path / "farm" / SITE
    (farm / "shared").mkdir(parents=True)
    os.symlink(a / "a", farm / "a")
    os.symlink(a / "a-1.dist-info", farm / "a-1.dist-info")
    os.symlink(b / "shared" / "libb.so.1", farm / "shared" / "libb.so.1")
    os.symlink(farm, farm / "round")

    (lender,) = read_lender_sites([str(tmp_path / "farm")])

    assert lender.libraries == {
        "liba.so.1": (f"{a}/a/liba.so.1",),
        "libb.so.1": (f"{b}/shared/libb.so.1",),
    }


def test_owner_of_a_library(tmp_path: Path) -> None:
    site = _dist(tmp_path / "both", "a", "a/liba.so.1")
    _dist(tmp_path / "both", "b", "b/libb.so.1")

    (lender,) = read_lender_sites([str(tmp_path / "both")])

    assert lender.owner_of(f"{site}/b/libb.so.1") == f"{site}/b-1.dist-info"
    assert lender.owner_of(f"{site}/c/libc.so.1") == ""
