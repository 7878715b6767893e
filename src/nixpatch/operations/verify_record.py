"""Holding the rows of every RECORD against the files that they name, in one process or in several."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nixpatch.errors import FileRefused
from nixpatch.fs import read_regular
from nixpatch.installed import Locator, hash_file, record
from nixpatch.installed.hashing import DEFAULT_ALGORITHM, format_sha256
from nixpatch.installed.record import Row
from nixpatch.model import Finding, Tree
from nixpatch.operations.edit_jobs import PARALLEL_FROM


@dataclass(frozen=True, slots=True)
class _Rows:
    """One dist's RECORD to be held against its files, small enough to hand to another process."""

    info: str
    site: str
    prefix: str
    patched: Mapping[str, str]
    """digests as provenance has them, by path"""


def rows_of(tree: Tree, patched: Mapping[str, str], workers: int) -> Iterator[tuple[int, list[Finding]]]:
    """Yield, for each dist that has a RECORD, how many rows were compared and what is wrong with them.

    ``patched`` has the digests of patched files as provenance has them, by path; ``workers`` is the number
    of processes, 0 one per core for a large tree.
    """
    jobs = [
        _Rows(
            dist.info,
            dist.site,
            tree.prefix,
            {path: patched[path] for path in patched.keys() & dist.files},
        )
        for dist in tree.dists
        if dist.has_record
    ]
    large = sum(file.size for file in tree.files) >= PARALLEL_FROM
    workers = workers or (len(os.sched_getaffinity(0)) if large else 1)
    if workers == 1 or len(jobs) < 2:
        yield from map(_dist_rows, jobs)
        return
    from nixpatch.operations.worker_pool import shared_out  # noqa: PLC0415 - a small tree need not wait for it

    # Processes: of tens of thousands of small files, hashing is the smaller part of the work.
    with shared_out(_dist_rows, jobs, min(workers, len(jobs)), _lost) as results:
        yield from results


def _lost() -> tuple[int, list[Finding]]:
    text = "a process that compared files with RECORD died (was it killed, or out of memory?)"
    return 0, [Finding("error", "RECORD", f"{text}: verify again")]


def _dist_rows(job: _Rows) -> tuple[int, list[Finding]]:
    findings: list[Finding] = []
    path = os.path.join(job.info, "RECORD")
    try:
        rows = record.parse(read_regular(path, record.MAX_RECORD_SIZE)).rows
    except (OSError, FileRefused) as error:
        return 0, [Finding("error", path, f"cannot be read: {error}")]
    locator = Locator(job.site, job.prefix)
    checked = 0
    for row in rows:
        if row.path is None or row.check_algorithm is None:
            continue
        file = locator.locate(row.path)
        if file is None:
            continue
        checked += 1
        trouble = _row(file, row, job.patched)
        if trouble is not None:
            findings.append(trouble)
    return checked, findings


def _row(file: str, row: Row, patched: Mapping[str, str]) -> Finding | None:
    assert row.check_algorithm is not None
    try:
        now = hash_file(file, {row.check_algorithm, "sha256"})
    except FileNotFoundError:
        return Finding("error", file, "RECORD lists it, but it is gone")
    except OSError as error:
        return Finding("note", file, f"cannot be compared with RECORD: {error.strerror}")
    if row.agrees(now) is not False:
        return None
    known = patched.get(file)
    if known is None:
        return Finding(
            "error", file, "differs from RECORD, and not because of nixpatch: it was changed otherwise"
        )
    if format_sha256(now.digests[DEFAULT_ALGORITHM]) == known:
        text = "is as nixpatch left it, but RECORD does not say so: run nixpatch again"
    else:
        text = "was changed after nixpatch: neither RECORD nor provenance describes it"
    return Finding("error", file, text)
