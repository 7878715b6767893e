"""A few short sequences; ``python -m property.sequences`` takes others."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from property.sequences import Bench, StepSequence
from support.patchelf import newest

pytestmark = [pytest.mark.gcc, pytest.mark.pypi]

# seed and number of steps; 2068 ends with section headers in the area of a stale edit
SEQUENCES = [*((seed, 8) for seed in range(16)), (2068, 16)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = os.path.realpath(tmp_path_factory.mktemp("sequences"))
    return Bench(root, newest(root))


@pytest.mark.parametrize(("seed", "steps"), SEQUENCES)
def test_program_and_library_run_after_every_step_and_restore_gives_their_bytes(
    bench: Bench, seed: int, steps: int
) -> None:
    outcomes: Counter[str] = Counter()
    sequence = StepSequence(bench, seed, outcomes)
    try:
        sequence.go(steps)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{sequence}") from error
    assert [outcome for outcome in outcomes if outcome.startswith("refused")] == []
