"""Read what the plan of a large tree needs in several processes: headers, and the names in its code.

What they bring is what this process would read by itself. What one of them could not read, or did not come
to, this process reads when it is needed, and then says what is wrong.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from nixpatch import elf
from nixpatch.elf.dlopen_strings import dlopen_strings
from nixpatch.errors import FileRefused
from nixpatch.model import Dist, DlopenStrings, ElfFacts, Skip, Tree
from nixpatch.operations.opened_names import CodeReader, DistNames

# Measured in microseconds of one core: what a file costs, and starting the processes.
_HEADERS = 200
_SOURCE = 100
_STRINGS_PER_MB = 150
_WORTH_IT = 150_000


@dataclass(frozen=True, slots=True)
class PartRead:
    """What was read, by path or by ``.dist-info``."""

    facts: dict[str, ElfFacts | Skip] = field(default_factory=dict)
    strings: dict[str, DlopenStrings | None] = field(default_factory=dict)
    names: dict[str, DistNames] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Job:
    files: tuple[str, ...] = ()
    dist: Dist | None = None


@contextlib.contextmanager
def read_ahead(
    tree: Tree, code: CodeReader, known: Container[str], workers: int
) -> Iterator[Iterator[PartRead]]:
    """Yield an iterator of what other processes read of a tree; it is empty if the tree is small.

    Args:
        tree: the tree.
        code: knows which code has to be read.
        known: the files whose headers need not be read.
        workers: the number of processes; 0 is one per core.

    """
    workers = workers or len(os.sched_getaffinity(0))
    if workers == 1:
        yield iter(())
        return
    unread = frozenset(code.unread_files())
    files = [file for file in tree.files if file.path not in known or file.path in unread]
    dists = sorted(code.unread_dists(), key=lambda dist: -len(dist.files))
    sizes = [file.size for file in files]
    cost = _HEADERS * len(sizes) + _SOURCE * sum(
        path.endswith(".py") for dist in dists for path in dist.files
    )
    cost += _STRINGS_PER_MB * sum(file.size for file in files if file.path in unread) // 1_000_000
    if cost < _WORTH_IT:
        yield iter(())
        return
    from nixpatch.operations.worker_pool import batches, run_in_pool  # noqa: PLC0415 - for large trees only

    jobs = [_Job(dist=dist) for dist in dists]
    jobs += (_Job(tuple(files[index].path for index in batch)) for batch in batches(sizes, workers))

    def work(job: _Job) -> PartRead:
        return _read(job, code, known, unread)

    with run_in_pool(work, jobs, workers, PartRead) as readings:
        yield readings


def read_headers(path: str) -> ElfFacts | Skip:
    """Read the headers of a file, whose last name may be a link.

    Raises:
        OSError: it cannot be read.

    """
    return elf.read(os.path.realpath(path) if os.path.islink(path) else path)


def _read(job: _Job, code: CodeReader, known: Container[str], unread: frozenset[str]) -> PartRead:
    reading = PartRead()
    if job.dist is not None:
        reading.names[job.dist.info] = code.read_names(job.dist)
    for path in job.files:
        if path not in known:
            with contextlib.suppress(OSError):
                reading.facts[path] = read_headers(path)
        if path in unread:
            with contextlib.suppress(OSError, FileRefused):
                reading.strings[path] = dlopen_strings(path, code.symbols)
    return reading
