"""The order in which the files of a run are handed to its workers."""

from hypothesis import given
from hypothesis import strategies as st

from nixpatch.operations.edit_jobs import shares

MB = 1 << 20


@given(st.lists(st.integers(0, 400 * MB), max_size=200), st.integers(1, 16))
def test_every_job_is_handed_out_once(sizes: list[int], workers: int) -> None:
    handed = [index for share in shares(sizes, workers) for index in share]
    assert sorted(handed) == list(range(len(sizes)))


def test_the_largest_file_is_begun_before_all_others() -> None:
    sizes = [10 * MB] * 20 + [400 * MB, 90 * MB]
    first, second, *_ = shares(sizes, 2)
    assert (first, second) == ([20], [21])


def test_small_files_go_together_and_stay_in_the_order_of_their_dists() -> None:
    handed = list(shares([1000] * 100, 2))
    assert [index for share in handed for index in share] == list(range(100))
    assert len(handed) < 10
