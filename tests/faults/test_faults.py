"""A run of nixpatch is killed, or a call fails, at every call that changes the file system.

By default SIGKILL strikes at every call; a full disk, half a write, Ctrl-C and what cannot be read at one
call of each kind in each directory; every other fault at one call of each kind: some 1,500 runs. Everything
strikes everywhere, in some 9,000, with ``NIXPATCH_FAULTS=all``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from faults.stories import Bench, Story
from support.injector import Fault, Kind, Site

pytestmark = [pytest.mark.gcc, pytest.mark.faults]

PARTS = 4
STORIES = list(Story)
TIDYING = {"renameat", "unlinkat"}  # rmdir(2) is unlinkat(2) with AT_REMOVEDIR
OFTEN = {Fault.KILL_ALL, Fault.TORN, Fault.ENOSPC, Fault.INTERRUPT}


def _sites(
    bench: Bench, story: Story, fault: Fault, kind: Kind = Kind.CHANGE, more: Sequence[str] = ()
) -> list[Site]:
    ended, _, _ = bench.uninterrupted(story, *more)
    sites = [site for site in ended.sites if site.kind is kind]
    if fault in {Fault.TORN, Fault.SHORT}:
        sites = [site for site in sites if site.writes]
    if os.environ.get("NIXPATCH_FAULTS") == "all" or (fault is Fault.KILL_ALL and not more):
        return sites
    if fault in OFTEN if kind is Kind.CHANGE else fault.is_error:
        return list({(site.call, os.path.dirname(site.path)): site for site in sites}.values())
    return list({site.call: site for site in sites}.values())


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("story", STORIES)
def test_a_run_that_is_killed_anywhere_is_finished_by_the_next_one(
    bench: Bench, story: Story, part: int
) -> None:
    assert bench.disturb(story, Fault.KILL_ALL, _sites(bench, story, Fault.KILL_ALL)[part::PARTS]) == []


@pytest.mark.parametrize("story", [Story.PATCH, Story.REPATCH, Story.RESTORE])
def test_a_run_that_is_killed_anywhere_can_be_taken_back(bench: Bench, story: Story) -> None:
    assert bench.restore_after(story, _sites(bench, story, Fault.KILL_ALL)) == []


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("fault", [Fault.TORN, Fault.SHORT])
def test_half_a_write_is_no_file(bench: Bench, story: Story, fault: Fault) -> None:
    assert bench.disturb(story, fault, _sites(bench, story, fault)) == []


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("fault", [Fault.ENOSPC, Fault.EIO, Fault.EACCES, Fault.EMFILE])
def test_a_call_that_fails_is_told_and_costs_nothing(bench: Bench, story: Story, fault: Fault) -> None:
    assert bench.disturb(story, fault, _sites(bench, story, fault)) == []


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("fault", [Fault.INTERRUPT, Fault.TERMINATE])
@pytest.mark.parametrize("kind", [Kind.CHANGE, Kind.OPEN])
def test_ctrl_c_and_sigterm_end_a_run_cleanly(bench: Bench, story: Story, fault: Fault, kind: Kind) -> None:
    assert bench.disturb(story, fault, _sites(bench, story, fault, kind), kind) == []


@pytest.mark.parametrize("story", [Story.UNVENDOR, Story.RETURN])
def test_what_is_tidied_up_last_is_tidied_up_by_the_next_run(bench: Bench, story: Story) -> None:
    ended, _, _ = bench.uninterrupted(story)
    sites = [site for site in ended.sites if site.call in TIDYING]
    assert len(sites) > 5
    assert bench.disturb(story, Fault.EIO, sites) == []


@pytest.mark.parametrize("kind", [Kind.OPEN, Kind.READ])
@pytest.mark.parametrize("fault", [Fault.EIO, Fault.EMFILE])
def test_what_cannot_be_read_costs_nothing_either(bench: Bench, fault: Fault, kind: Kind) -> None:
    assert bench.disturb(Story.PATCH, fault, _sites(bench, Story.PATCH, fault, kind), kind) == []


@pytest.mark.parametrize(
    "fault", [Fault.KILL, Fault.KILL_ALL, Fault.INTERRUPT, Fault.TERMINATE, Fault.ENOSPC]
)
def test_workers_leave_no_less_behind(bench: Bench, fault: Fault) -> None:
    jobs = ("--jobs", "2")
    assert bench.disturb(Story.PATCH, fault, _sites(bench, Story.PATCH, fault, more=jobs), more=jobs) == []


@pytest.mark.parametrize("fault", [Fault.KILL_ALL, Fault.ENOSPC, Fault.EIO, Fault.EACCES, Fault.EMFILE])
def test_the_cache_is_never_what_a_run_fails_of(bench: Bench, fault: Fault) -> None:
    assert bench.disturb_cache(fault) == []
