import random

import pytest

from nixpatch.store_paths import (
    is_store_entry,
    library_version,
    package_of_entry,
    version_key,
    version_of,
)


def test_versions_sort_as_nix_compares_them() -> None:
    # The examples of the Nix manual for builtins.compareVersions, and what follows from them.
    oldest_first = [
        "1.0pre1",
        "1.0",
        "1.0a",
        "1.0.1",
        "1.2",
        "1.9",
        "1.10",
        "2.3pre1",
        "2.3",
        "2.3a",
        "2.3.1",
    ]
    shuffled = oldest_first.copy()
    random.Random(0).shuffle(shuffled)
    assert sorted(shuffled, key=version_key) == oldest_first


def test_separators_and_zeros_make_no_difference() -> None:
    assert version_key("1.2-3") == version_key("1.2.3") == version_key("1..2--03")


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("zlib-1.3.1", "1.3.1"),
        ("gcc-13.2.0-lib", "13.2.0-lib"),
        ("util-linux-minimal-2.39-lib", "2.39-lib"),
        ("python3.12-numpy-2.1.0", "2.1.0"),
        ("system-path", ""),
        ("ends-in-dash-", ""),
        ("", ""),
    ],
)
def test_version_is_what_nix_takes_for_it(package: str, version: str) -> None:
    assert version_of(package) == version


@pytest.mark.parametrize(
    ("entry", "package"),
    [
        ("0c5b8vw40dy178xlpddw65q9gf1h2186-zlib-1.3.1", "zlib-1.3.1"),
        ("0c5b8vw40dy178xlpddw65q9gf1h2186-libstdc++-13", "libstdc++-13"),
        (".links", ""),
        ("0c5b8vw40dy178xlpddw65q9gf1h2186", ""),
        ("0c5b8vw40dy178xlpddw65q9gf1h2186-", ""),
        ("0c5b8vw40dy178xlpddw65q9gf1e2186-zlib", ""),  # e is not in the alphabet
    ],
)
def test_package_name_of_a_store_entry(entry: str, package: str) -> None:
    assert package_of_entry(entry) == package
    assert is_store_entry(entry) == bool(package)


def test_library_version() -> None:
    assert library_version("libz.so.1.3.1") == "1.3.1"
    assert library_version("libz.so") == ""
