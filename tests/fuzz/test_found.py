"""Every input that was found to break something goes through its target once more; and a little fuzzing."""

import random
from functools import cache
from pathlib import Path

import pytest

from fuzz import seeds
from fuzz.targets import TARGETS

FOUND = Path(__file__).parent / "found"
RUNS = 300


@cache
def _seeds(target: str) -> list[bytes]:
    return list(seeds.of(target).values())


@pytest.mark.parametrize(
    "path", sorted(FOUND.glob("*/*.hex")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_what_was_found_is_mended(path: Path) -> None:
    TARGETS[path.parent.name].run(bytes.fromhex(path.read_text("ascii")))


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_and_some_hundred_mutations_of_them(target: str) -> None:
    known = _seeds(target)
    assert known
    rng = random.Random(target)
    pool = list(known)
    for data in known:
        TARGETS[target].run(data)
    for _ in range(RUNS):
        data = TARGETS[target].mutate(rng.choice(pool[-64:] + known), rng)[: TARGETS[target].longest]
        TARGETS[target].run(data)
        pool.append(data)


def test_a_target_that_nobody_mutates_has_no_name_here() -> None:
    assert {path.name for path in FOUND.iterdir()} <= TARGETS.keys()


def test_elf_seeds_get_past_the_reader() -> None:
    """A seed that is refused at the first check teaches the fuzzer nothing."""
    from fuzz.targets_elf import PREFIX, Scratch
    from nixpatch.elf import read
    from nixpatch.model import ElfFacts

    scratch = Scratch("seed")
    for target, skipped in (("elf_read", 0), ("elf_edit", PREFIX), ("elf_undo", 0)):
        for data in _seeds(target):
            found = read(scratch.fill(data[skipped:]), payload_ok=True)
            assert isinstance(found, ElfFacts)
            assert (found.original_sha256 is not None) >= (target == "elf_undo")
