"""Libraries that files open themselves: by their note, by the tables, by --runtime-dep."""

from dataclasses import replace

import pytest
from resolving import STORE, World, elf, provider

from nixpatch.model import DlopenNeed, DlopenPriority, ElfFacts, Origin
from nixpatch.policy import Policy, Rule

ZSTD = f"{STORE}/eeee-zstd-1.5/lib/libzstd.so.1"
NVRTC = f"{STORE}/ffff-nvrtc/lib/libnvrtc.so.12"


def opening(*needs: DlopenNeed, needed: tuple[str, ...] = ()) -> ElfFacts:
    return replace(elf(*needed), dlopen_needs=needs)


def recommended(*sonames: str) -> DlopenNeed:
    return DlopenNeed(sonames, DlopenPriority.RECOMMENDED)


def test_what_a_note_names_gets_into_the_search_path() -> None:
    world = World({"a/x.so": opening(recommended("libzstd.so.1"))}, store=[provider(ZSTD)])

    assert world.search_path("a/x.so") == f"{STORE}/eeee-zstd-1.5/lib"
    assert "opened at run time, recommended" in world.answer("a/x.so", "libzstd.so.1").detail


def test_the_first_alternative_that_can_be_met_serves() -> None:
    world = World({"a/x.so": opening(recommended("libzstd.so.9", "libzstd.so.1"))}, store=[provider(ZSTD)])

    assert world.answer("a/x.so", "libzstd.so.1").origin is Origin.STORE


@pytest.mark.parametrize(
    ("priority", "origin"),
    [
        (DlopenPriority.REQUIRED, Origin.MISSING),
        (DlopenPriority.RECOMMENDED, Origin.IGNORED),
        (DlopenPriority.SUGGESTED, Origin.IGNORED),
    ],
)
def test_only_what_is_required_can_be_missing(priority: DlopenPriority, origin: Origin) -> None:
    world = World({"a/x.so": opening(DlopenNeed(("libgone.so",), priority))})

    assert world.answer("a/x.so", "libgone.so").origin is origin
    assert world.plan("a/x.so").edit is None


def test_a_need_that_is_also_linked_is_told_once() -> None:
    facts = opening(recommended("libzstd.so.1"), needed=("libzstd.so.1",))
    world = World({"a/x.so": facts}, store=[provider(ZSTD)])

    assert [answer.need for answer in world.plan("a/x.so").answers] == ["libzstd.so.1"]


def test_a_row_of_the_tables_concerns_the_files_that_fit() -> None:
    world = World({"torch/lib/x.so": elf("libc.so.6"), "a/y.so": elf("libc.so.6")}, store=[provider(NVRTC)])
    rule = Rule("*/torch/lib/*", ("libnvrtc.so.12",), "opened by its bare name")
    world.policy = world.policy.extended(Policy(runtime=(rule,)))

    assert world.search_path("torch/lib/x.so") == f"{STORE}/ffff-nvrtc/lib"
    assert world.search_path("a/y.so") is None


def test_a_library_of_another_dist_is_opened_through_origin() -> None:
    files = {"torch/lib/x.so": elf(), "nvidia/lib/libnvrtc.so.12": elf(soname="libnvrtc.so.12")}
    world = World(files)
    world.policy = world.policy.extended(
        Policy(runtime=(Rule("*/x.so", ("libnvrtc.so.12",), "--runtime-dep"),))
    )

    assert world.search_path("torch/lib/x.so") == "$ORIGIN/../../nvidia/lib"
