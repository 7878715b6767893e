"""Compare the rows of every RECORD with the files that they name, in one process or in several."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nixpatch import elf
from nixpatch.errors import FileRefused
from nixpatch.fs import read_regular
from nixpatch.installed.dist_records import DistRecords, TreeRecords
from nixpatch.installed.hashing import (
    DEFAULT_ALGORITHM,
    Hashing,
    format_sha256,
    hash_bytes,
    hash_file,
    parse_sha256,
)
from nixpatch.installed.record import RecordRow
from nixpatch.model import FileHash, Finding, Tree
from nixpatch.operations.edit_jobs import worker_count

_PIPX_FLAG = b" -E"
_MAX_SCRIPT = 1 << 20
_AGAIN = "run nixpatch again"


@dataclass(frozen=True, slots=True)
class PatchedDigests:
    """Digests that provenance has of one file, as ``sha256=<hex>``."""

    patched: str
    original: str
    """"" for a start-up file"""


@dataclass(frozen=True, slots=True)
class _DistJob:
    """The RECORD of one dist to check, small enough to hand to another process."""

    records: DistRecords
    record_path: str
    patched: Mapping[str, PatchedDigests]
    """by path"""
    wrong_row: str
    """of a row that describes neither the file nor what nixpatch made of it"""


@dataclass(frozen=True, slots=True)
class RowsChecked:
    """Result of the check of one RECORD."""

    rows: int
    """rows whose file was hashed"""
    findings: tuple[Finding, ...]
    compared: frozenset[str] = frozenset()
    """patched files that were compared with provenance, too, or could not be read"""


def check_rows(
    tree: Tree,
    records: TreeRecords,
    patched: Mapping[str, PatchedDigests],
    workers: int,
    *,
    accept_modified: bool = False,
) -> Iterator[RowsChecked]:
    """Yield the result for each dist that has a RECORD.

    Args:
        tree: the tree.
        records: its RECORDs.
        patched: digests by provenance, by path; the files are compared with them at the same time.
        workers: processes; 0: one per core for a large tree.
        accept_modified: wrong rows are notes: a wheel may have been published with them.

    """
    jobs = [
        _DistJob(
            records.of(tree, dist.info),
            os.path.join(dist.info, "RECORD"),
            {path: patched[path] for path in patched.keys() & dist.files},
            "note" if accept_modified else "error",
        )
        for dist in tree.dists
        if dist.has_record
    ]
    workers = worker_count(workers, sum(file.size for file in tree.files))
    if workers == 1 or len(jobs) < 2:
        yield from map(_check_dist, jobs)
        return
    from nixpatch.operations.worker_pool import run_in_pool  # noqa: PLC0415 - 20 ms that a small tree can save

    # Processes: of tens of thousands of small files, hashing is the smaller part of the work.
    with run_in_pool(_check_dist, jobs, min(workers, len(jobs)), _lost) as results:
        yield from results


def _lost() -> RowsChecked:
    text = "a process that compared files with RECORD died (was it killed, or out of memory?)"
    return RowsChecked(0, (Finding("error", "RECORD", f"{text}: verify again"),))


def check_digest(path: str, digests: PatchedDigests) -> Iterator[Finding]:
    """Compare a patched file that no RECORD describes with provenance."""
    yield from _check_file(path, (), digests)


def _check_dist(job: _DistJob) -> RowsChecked:
    try:
        rows = job.records.read_record().record.rows
    except (OSError, FileRefused) as error:
        return RowsChecked(0, (Finding("error", job.record_path, f"cannot be read: {error}"),))
    job.records.forget_record()
    rows_by_path: dict[str, list[RecordRow]] = {}
    for row in rows:
        path = None if row.path is None else job.records.locator.locate(row.path)
        if path is not None:
            rows_by_path.setdefault(path, []).append(row)
    count = 0
    findings: list[Finding] = []
    compared: set[str] = set()
    for path, of_file in rows_by_path.items():
        checked = sum(row.check_algorithm is not None for row in of_file)
        count += checked
        if checked or path in job.patched:
            findings += _check_file(path, of_file, job.patched.get(path), job.wrong_row)
            compared.add(path)
    return RowsChecked(count, tuple(findings), frozenset(compared & job.patched.keys()))


def _check_file(
    path: str, rows: Sequence[RecordRow], digests: PatchedDigests | None, wrong_row: str = "error"
) -> Iterator[Finding]:
    algorithms = {row.check_algorithm for row in rows if row.check_algorithm is not None}
    try:
        is_link = os.path.islink(path)
        if digests is not None and is_link:
            yield Finding("error", path, "was patched and is a link now: install the dist again")
            return
        # A row is about the content, which `uv pip install --link-mode symlink` puts behind a link.
        content = os.path.realpath(path) if is_link else path
        now = hash_file(content, {*algorithms, DEFAULT_ALGORITHM})
    except FileNotFoundError:
        if rows:
            is_link = os.path.islink(path)
            text = "it is a link to what is gone: install the dist again" if is_link else "it is gone"
            yield Finding("error", path, f"RECORD lists it, but {text}")
        return
    except OSError as error:
        if digests is None:
            yield Finding("note", path, f"cannot be compared with RECORD: {error.strerror}")
        else:
            text = f"was patched and cannot be read ({error.strerror}): install the dist again"
            yield Finding("error", path, text)
        return
    # A row without a hash describes nothing: pip adds one for each .pyc that it has compiled, also where the
    # wheel brought another one with a row.
    wrong = [row for row in rows if row.agrees(now) is False]
    digest = format_sha256(now.digests[DEFAULT_ALGORITHM])
    if digests is not None and digest != digests.patched:
        if digest == digests.original:
            yield Finding("error", path, f"is the original again, but provenance calls it patched: {_AGAIN}")
            return
        if not rows:
            who = "provenance describes another one"
        elif wrong:
            who = "neither RECORD nor provenance describes it"
        else:
            who = "RECORD describes it, but provenance another one"
        yield Finding("error", path, f"was changed after nixpatch: {who}; install the dist again")
    elif wrong and len(wrong) < len(rows):
        if any(row.agrees(now) is True for row in rows):
            yield Finding("note", path, "RECORD has another row for this file, which does not describe it")
    elif wrong and digests is None:
        if _is_script_of_pipx(path, wrong):
            return
        text = "differs from RECORD, and not because of nixpatch: it was changed otherwise; "
        text += "install the dist again; if its wheel was published so, verify --accept-modified"
        yield Finding(wrong_row, path, text)
    elif wrong and digests is not None:
        text = "is as nixpatch left it, but RECORD does not say so"
        advice = _advice(path, rows, digests)
        yield Finding("error" if advice == _AGAIN else wrong_row, path, f"{text}: {advice}")


def _is_script_of_pipx(path: str, rows: Sequence[RecordRow]) -> bool:
    """Whether rows describe a script as it was before pipx added -E to its first line.

    pipx keeps PYTHONPATH away from programs so (``pipx/commands/common.py``), and leaves RECORD as it is.
    """
    try:
        first, newline, rest = read_regular(path, _MAX_SCRIPT).partition(b"\n")
    except OSError:
        return False
    if not (first.startswith(b"#!") and first.endswith(_PIPX_FLAG)):
        return False
    before = first.removesuffix(_PIPX_FLAG) + newline + rest
    algorithms = {row.check_algorithm for row in rows if row.check_algorithm is not None}
    return all(row.agrees(hash_bytes(before, algorithms)) is True for row in rows)


def _advice(path: str, rows: Sequence[RecordRow], digests: PatchedDigests) -> str:
    """Return what helps where no row describes a patched file. A row of its original is only out of date."""
    hashing = Hashing({DEFAULT_ALGORITHM, *(row.check_algorithm or DEFAULT_ALGORITHM for row in rows)})
    original = FileHash(None, {})
    try:
        elf.feed_original(path, hashing.update)
        original = hashing.result()
    except (OSError, FileRefused):  # a script
        if digests.original:
            original = FileHash(None, {DEFAULT_ALGORITHM: parse_sha256(digests.original)})
    if any(row.agrees(original) is True for row in rows):
        return _AGAIN
    return (
        "it does not describe the original either; install the dist again; if its wheel was published so, "
        "nixpatch --accept-modified updates the row"
    )
