"""Run the coverage-guided fuzzer: ``cd tests; python -m fuzz run TARGET CORPUS [RUNS]`` (needs atheris).

The corpus begins with the seeds and grows. What a target raises goes to ``CORPUS.found``, one input for each
place in the code, and the run goes on. ``python -m fuzz replay TARGET CORPUS`` sends a corpus through its
target once more without the fuzzer, for ``coverage run --source=nixpatch -m fuzz replay ...``.
"""

import hashlib
import os
import random
import signal
import sys
import time
import traceback
from types import FrameType, TracebackType
from typing import Any

_CPU_PER_INPUT = 10
"""seconds of CPU, which do not depend on what else the machine does"""
_SECONDS_PER_INPUT = 600
"""seconds: what stays in a call of C does not see the limit above"""
_MEMORY = 2000  # MB, of the whole fuzzer


def main(arguments: list[str]) -> None:
    """Do what the first word says."""
    if len(arguments) < 3 or arguments[0] not in {"run", "replay"}:
        sys.exit(__doc__)
    what, name, corpus, *more = arguments
    if what == "replay":
        _replay(name, corpus)
    else:
        _run(name, corpus, int(more[0]) if more else 1_000_000)


def _replay(name: str, corpus: str) -> None:
    from fuzz.targets import TARGETS

    paths = [os.path.join(corpus, entry) for entry in sorted(os.listdir(corpus))]
    for path in paths:
        with open(path, "rb") as file:
            TARGETS[name].run(file.read())
    print(f"{name}: {len(paths)} inputs")


class TooSlow(BaseException):
    """An input takes too much CPU; what a target may expect is an Exception."""


class CpuLimit:
    """Raises :class:`TooSlow` in the target; one timer for all inputs, as a timer for each costs more."""

    def __init__(self) -> None:
        self.input = 0
        """number of the input that runs"""
        self._last = 0
        self._ticks = 0
        signal.signal(signal.SIGPROF, self._tick)
        signal.setitimer(signal.ITIMER_PROF, 1, 1)

    def _tick(self, _number: int, _frame: FrameType | None) -> None:
        self._ticks = self._ticks + 1 if self.input == self._last else 0
        self._last = self.input
        if self._ticks >= _CPU_PER_INPUT:
            self._ticks = 0
            raise TooSlow


def _run(name: str, corpus: str, runs: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["nixpatch", "packaging", "tomllib"]):
        from fuzz import seeds
        from fuzz.targets import TARGETS
    target = TARGETS[name]
    seeds.write(corpus, name)
    seen: set[tuple[str, str, int]] = set()
    start, done, limit = time.monotonic(), 0, CpuLimit()

    def one(data: bytes) -> None:
        nonlocal done
        done += 1
        limit.input = done
        if done == runs:
            print(f"{name}: {done} runs in {time.monotonic() - start:.0f} s, {len(seen)} found", flush=True)
        try:
            target.run(data)
        except (Exception, TooSlow) as error:  # noqa: BLE001 - what it is, a person decides
            place = _place(error.__traceback__)
            key = (type(error).__name__, *place)
            if key not in seen:
                seen.add(key)
                _keep(f"{corpus}.found", key, data)

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.randrange(3) == 0:
            return bytes(atheris.Mutate(data, size))
        return target.mutate(data, rng)[:size]

    options = [
        f"-runs={runs}",
        f"-max_len={target.longest}",
        f"-timeout={_SECONDS_PER_INPUT}",
        f"-rss_limit_mb={_MEMORY}",
    ]
    options += ["-print_final_stats=1", "-reduce_inputs=1", f"-artifact_prefix={corpus}.found/"]
    os.makedirs(f"{corpus}.found", exist_ok=True)
    atheris.Setup([sys.argv[0], *options, corpus], one, custom_mutator=mutate)
    atheris.Fuzz()


def _place(trace: TracebackType | None) -> tuple[str, int]:
    frames: Any = traceback.extract_tb(trace)
    return os.path.basename(frames[-1].filename), frames[-1].lineno or 0


def _keep(directory: str, key: tuple[str, str, int], data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()[:8]
    path = os.path.join(directory, "-".join((*map(str, key), digest)))
    with open(path, "wb") as file:
        file.write(data)
    print(f"found {path}: {traceback.format_exc()}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
