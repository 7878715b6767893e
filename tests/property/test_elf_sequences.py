"""A few short sequences; ``python -m property.sequences`` takes others."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from property.sequences import Bench, StepSequence
from support.patchelf import newest

pytestmark = [pytest.mark.gcc, pytest.mark.pypi]

SEEDS = range(16)
STEPS = 8


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = os.path.realpath(tmp_path_factory.mktemp("sequences"))
    return Bench(root, newest(root))


@pytest.mark.parametrize("seed", SEEDS)
def test_program_and_library_run_after_every_step_and_restore_gives_their_bytes(
    bench: Bench, seed: int
) -> None:
    outcomes: Counter[str] = Counter()
    sequence = StepSequence(bench, seed, outcomes)
    try:
        sequence.go(STEPS)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{sequence}") from error
    assert outcomes["edited"] or outcomes["restored"]
