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


def test_a_cache_is_untrue_where_the_search_path_says_something_else() -> None:
    cache = (("libx.so", "=/a/libx.so"), ("liby.so", "=/a/liby.so"))
    assert untrue_entries(cache, entries("/a:/b", "libx.so", "liby.so")) == ("libx.so", "liby.so")
    assert untrue_entries(cache[:1], entries("/a", "libx.so", "liby.so")) == ()
