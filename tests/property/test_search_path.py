"""Search-path algebra over anything a file can hold."""

import os

from hypothesis import example, given
from hypothesis import strategies as st

from nixpatch.resolve.search_path import (
    SearchPathParts,
    expand,
    inside,
    join,
    leads_to,
    relative_entry,
    split,
)

HERE = "/venv/lib/pkg"
PREFIX = "/venv"
STORE = "/nix/store"
DRIVERS = "/run/opengl-driver/lib"

names = st.sampled_from(["a", "lib", "..", ".", "", "pkg", "$LIB", "$ORIGINX", "x y", "\udcff", "c:d", "..."])
heads = st.sampled_from(
    ["$ORIGIN", "${ORIGIN}", "/venv", HERE, "/nix/store/x", "/usr", DRIVERS, "", "lib", "$PLATFORM", "/"]
)
entries = st.builds(lambda head, rest: "/".join([head, *rest]), heads, st.lists(names, max_size=6))
noise = st.binary(max_size=40).filter(lambda data: 0 not in data).map(os.fsdecode)
paths = st.lists(entries | noise | heads, max_size=8).map(":".join)
wanted = st.lists(
    st.sampled_from(["$ORIGIN", "$ORIGIN/../b", "/nix/store/x", "/nix/store/y/lib"]), max_size=4
)


def sorted_out(search_path: str) -> SearchPathParts:
    return split(
        search_path,
        directory=HERE,
        prefix=PREFIX,
        store_dir=STORE,
        driver_directory=DRIVERS,
        exists=lambda path: "x" in path,
    )


def rewritten(search_path: str, new: list[str]) -> str:
    old = sorted_out(search_path)
    return join(old, directory=HERE, new=new, driver_directory=DRIVERS if old.driver else None)


@given(path=paths, new=wanted)
@example(path="$ORIGIN/a/..:$ORIGIN", new=[])
def test_a_second_time_changes_nothing(path: str, new: list[str]) -> None:
    once = rewritten(path, [entry for entry in new if "y" not in entry])
    assert rewritten(once, []) == once
    assert sorted_out(once).dropped == ()


@given(path=paths, new=wanted)
def test_no_hole_comes_out(path: str, new: list[str]) -> None:
    joined = rewritten(path, new)
    for entry in joined.split(":") if joined else ():
        where = expand(entry, HERE)
        assert where is not None
        assert where.startswith("/")


@given(path=paths, new=wanted)
def test_nothing_inside_the_tree_is_lost_and_its_order_stays(path: str, new: list[str]) -> None:
    def of_tree(search_path: str) -> list[str]:
        found = [expand(entry, HERE) for entry in search_path.split(":")]
        mine = [where for where in found if where and inside(os.path.normpath(where), PREFIX)]
        return list(dict.fromkeys(mine))

    before, after = of_tree(path), of_tree(rewritten(path, new))
    assert after[: len(before)] == before


@given(path=paths)
def test_every_entry_is_accounted_for(path: str) -> None:
    found = sorted_out(path)
    told = {drop.entry for drop in found.dropped} | {*found.kept, *found.store}
    for entry in path.split(":") if path else ():
        assert entry in told or (found.driver and expand(entry, HERE) == DRIVERS)


@given(parts=st.lists(st.text("ab$:{}ORIGINL \udcff", min_size=1, max_size=8), max_size=4))
def test_relative_entry_leads_there_or_is_known_not_to(parts: list[str]) -> None:
    for wanted_dir in ("/".join([PREFIX, *parts]), "/".join([HERE, *parts])):
        entry = relative_entry(HERE, wanted_dir)
        # Each entry of the path as ld.so splits it, so that a colon shows.
        found = [expand(one, HERE) for one in entry.split(":")]
        assert leads_to(entry, HERE, wanted_dir) == (found == [wanted_dir])
