"""The places that a resolution cache lists."""

import pytest

from nixpatch.model import ResolutionCache
from nixpatch.resolve.resolution_cache import cache_entries, untrue_entries, useful_entries

FILES = {"/a/libx.so", "/b/libx.so", "/b/liby.so", "/hwcaps/libx.so"}


def entries(search_path: str | None, *needed: str) -> ResolutionCache:
    return cache_entries(
        needed or ("libx.so",),
        search_path,
        is_listed=lambda directory: directory in {"/a", "/b"},
        is_readable=FILES.__contains__,
    )


@pytest.mark.parametrize(
    ("search_path", "places"),
    [
        ("/a", "=/a/libx.so"),
        ("/a:/b", "=/a/libx.so:=/b/libx.so"),
        ("$ORIGIN/lib:/b", "?$ORIGIN/lib:=/b/libx.so"),
        ("/gone:/b", "?/gone:=/b/libx.so"),
        ("/hwcaps:/a", "?/hwcaps:=/a/libx.so"),
        (":/a:", "?:=/a/libx.so:?"),
        ("lib:/$LIB:/a", "?lib:?/$LIB:=/a/libx.so"),
    ],
)
def test_places_stand_in_the_order_of_the_search_path(search_path: str, places: str) -> None:
    assert entries(search_path) == (("libx.so", places),)


def test_names_are_sorted_and_paths_left_out() -> None:
    assert entries("/b", "liby.so", "./libz.so", "libx.so", "libnone.so", "liby.so") == (
        ("libx.so", "=/b/libx.so"),
        ("liby.so", "=/b/liby.so"),
    )
    assert entries(None) == entries("") == ()


def test_only_names_with_an_exact_place_are_of_use() -> None:
    both = entries("$ORIGIN:/a", "libx.so", "liby.so")
    assert [name for name, _ in both] == ["libx.so", "liby.so"]
    assert [name for name, _ in useful_entries(both)] == ["libx.so"]


@pytest.mark.parametrize(
    ("places", "search_path", "is_true"),
    [
        ("=/a/libx.so", "/a", True),
        ("=/a/libx.so:=/b/libx.so", "/a:/b", True),
        ("?/a:=/b/libx.so", "/a:/b", True),  # left to the loader, which finds the same
        ("?$ORIGIN:=/a/libx.so", "$ORIGIN:/a", True),
        ("=/a/libx.so", "$ORIGIN:/a", False),
        ("=/a/libx.so", "/a:/b", False),
        ("=/b/libx.so", "/a:/b", False),
        ("=/b/libx.so:=/a/libx.so", "/a:/b", False),
        ("=/a/libx.so", "/gone:/a", False),
        ("=/gone/libx.so", "/gone", False),
        ("=/a/libx.so", None, False),
    ],
)
def test_a_cache_is_true_where_it_leads_to_what_the_search_path_leads_to(
    places: str, search_path: str | None, is_true: bool
) -> None:
    untrue = untrue_entries(
        (("libx.so", places),),
        search_path,
        is_listed=lambda directory: directory in {"/a", "/b"},
        is_readable=FILES.__contains__,
    )
    assert untrue == (() if is_true else ("libx.so",))
