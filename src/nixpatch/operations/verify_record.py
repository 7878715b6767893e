"""Compare the rows of every RECORD with the files that they name, in one process or in several."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nixpatch.errors import FileRefused
from nixpatch.installed.dist_records import DistRecords, TreeRecords
from nixpatch.installed.hashing import DEFAULT_ALGORITHM, format_sha256, hash_file
from nixpatch.installed.record import RecordRow
from nixpatch.model import Finding, Tree
from nixpatch.operations.edit_jobs import PARALLEL_FROM


@dataclass(frozen=True, slots=True)
class _DistJob:
    """The RECORD of one dist to check, small enough to hand to another process."""

    records: DistRecords
    record_path: str
    patched: Mapping[str, str]
    """digests by provenance, by path"""


def check_rows(
    tree: Tree, records: TreeRecords, patched: Mapping[str, str], workers: int
) -> Iterator[tuple[int, list[Finding]]]:
    """Yield, for each dist that has a RECORD, the number of compared rows and the findings.

    Args:
        tree: the tree.
        records: its RECORDs.
        patched: path of a patched file -> digest by provenance.
        workers: processes; 0: one per core for a large tree.

    """
    jobs = [
        _DistJob(
            records.of(tree, dist.info),
            os.path.join(dist.info, "RECORD"),
            {path: patched[path] for path in patched.keys() & dist.files},
        )
        for dist in tree.dists
        if dist.has_record
    ]
    is_large = sum(file.size for file in tree.files) >= PARALLEL_FROM
    workers = workers or (len(os.sched_getaffinity(0)) if is_large else 1)
    if workers == 1 or len(jobs) < 2:
        yield from map(_check_dist, jobs)
        return
    from nixpatch.operations.worker_pool import run_in_pool  # noqa: PLC0415 - 20 ms that a small tree can save

    # Processes: of tens of thousands of small files, hashing is the smaller part of the work.
    with run_in_pool(_check_dist, jobs, min(workers, len(jobs)), _lost) as results:
        yield from results


def _lost() -> tuple[int, list[Finding]]:
    text = "a process that compared files with RECORD died (was it killed, or out of memory?)"
    return 0, [Finding("error", "RECORD", f"{text}: verify again")]


def _check_dist(job: _DistJob) -> tuple[int, list[Finding]]:
    try:
        rows = job.records.read_record().record.rows
    except (OSError, FileRefused) as error:
        return 0, [Finding("error", job.record_path, f"cannot be read: {error}")]
    job.records.forget_record()
    count = 0
    findings: list[Finding] = []
    for row in rows:
        path = None if row.path is None else job.records.locator.locate(row.path)
        if path is None or row.check_algorithm is None:
            continue
        count += 1
        finding = _check_file(path, row, row.check_algorithm, job.patched.get(path))
        if finding is not None:
            findings.append(finding)
    return count, findings


def _check_file(path: str, row: RecordRow, algorithm: str, patched: str | None) -> Finding | None:
    try:
        # A row is about the content, which `uv pip install --link-mode symlink` puts behind a link.
        now = hash_file(os.path.realpath(path), {algorithm, DEFAULT_ALGORITHM})
    except FileNotFoundError:
        return Finding("error", path, "RECORD lists it, but it is gone")
    except OSError as error:
        return Finding("note", path, f"cannot be compared with RECORD: {error.strerror}")
    if row.agrees(now) is not False:
        return None
    if patched is None:
        text = "differs from RECORD, and not because of nixpatch: it was changed otherwise"
    elif format_sha256(now.digests[DEFAULT_ALGORITHM]) == patched:
        text = "is as nixpatch left it, but RECORD does not say so: run nixpatch again"
    else:
        text = "was changed after nixpatch: neither RECORD nor provenance describes it"
    return Finding("error", path, text)
