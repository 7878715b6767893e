"""The order in which the files of a run are handed to its workers."""

from hypothesis import given
from hypothesis import strategies as st

from nixpatch.operations.worker_pool import batches

MB = 1 << 20


@given(st.lists(st.integers(0, 400 * MB), max_size=200), st.integers(1, 16))
def test_every_job_is_handed_out_once(sizes: list[int], workers: int) -> None:
    handed = [index for batch in batches(sizes, workers) for index in batch]
    assert sorted(handed) == list(range(len(sizes)))


def test_the_largest_file_is_begun_before_all_others() -> None:
    sizes = [10 * MB] * 20 + [400 * MB, 90 * MB]
    first, second, *_ = batches(sizes, 2)
    assert (first, second) == ([20], [21])


def test_small_files_go_together_and_stay_in_the_order_of_their_dists() -> None:
    handed = list(batches([1000] * 100, 2))
    assert [index for batch in handed for index in batch] == list(range(100))
    assert len(handed) < 10
