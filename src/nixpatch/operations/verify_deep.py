"""Read every patched file again with pyelftools and LIEF, and compare it with its original.

Each reader describes the patched file and the original, which its undo record restores outside of the tree.
The readers must agree, and nothing may differ from the original but what provenance declares.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from nixpatch import elf
from nixpatch.elf.inplace_writer import write_original
from nixpatch.elf.readers import own
from nixpatch.elf.readers.comparison import FieldDifference, disagreements, unexplained
from nixpatch.elf.readers.others import OTHERS, OpenFile, OtherReader, Unread, describe_all, version_of
from nixpatch.elf.undo import UndoState, open_source, views_of
from nixpatch.errors import FileRefused
from nixpatch.installed.hashing import format_sha256
from nixpatch.installed.provenance import PatchedFile
from nixpatch.model import ElfFacts, Finding, Linkage, ManualEdit, Reread
from nixpatch.model.elf_description import ElfDescription
from nixpatch.operations.edit_jobs import worker_count
from nixpatch.operations.worker_pool import batches, run_in_pool

_OWN = "nixpatch"
_LOT = 64 << 20  # bytes of files for one child process: LIEF alone takes half a second to start
_Description = ElfDescription | Unread


@dataclass(frozen=True, slots=True)
class RereadJob:
    """Patched files to read again, few enough to hand to another process."""

    files: Mapping[str, PatchedFile]
    """by path"""
    readers: Mapping[OtherReader, str]
    """name and version of each"""


@dataclass(frozen=True, slots=True)
class RereadResult:
    """Result of one job."""

    files: int = 0
    originals: int = 0
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """Descriptions of one file by one reader."""

    reader: str
    patched: _Description
    original: _Description | None
    """None where the original cannot be restored"""


def reread(files: Mapping[str, PatchedFile], root: str, workers: int) -> tuple[Reread, tuple[Finding, ...]]:
    """Read patched files again; return the readers with their counts, and the findings.

    Args:
        files: entries of provenance, by path.
        root: the tree, as the path of findings about a reader.
        workers: processes; 0 is one per core for large work.

    """
    readers: dict[OtherReader, str] = {}
    findings: list[Finding] = []
    for reader in OTHERS:
        try:
            readers[reader] = version_of(reader)
        except (FileRefused, OSError) as error:
            findings.append(Finding("note", root, f"{error}: it did not read the files again"))
    paths = sorted(files)
    sizes = list(map(_size, paths))
    workers = worker_count(workers, sum(sizes))
    jobs = [
        RereadJob({paths[index]: files[paths[index]] for index in share}, readers)
        for share in batches(sizes, workers, _LOT)
    ]
    results = list(_results(jobs, root, workers))
    findings += sorted((finding for result in results for finding in result.findings), key=lambda f: f.path)
    totals = (sum(result.files for result in results), sum(result.originals for result in results))
    return Reread((_OWN, *readers.values()), *totals), tuple(findings)


def judge(path: str, readings: Sequence[Reading], linkage: Linkage, growth: int) -> Iterator[Finding]:
    """Compare the readings of one file; nixpatch's own is the first.

    Args:
        path: of the file.
        readings: by each reader.
        linkage: as provenance declares it.
        growth: bytes by which the file is longer than its original.

    """
    for reading in readings:
        yield from _unread(path, reading)
    for reading in readings[1:]:
        yield from _disagreements(path, readings[0], reading)
    changes: dict[FieldDifference, list[str]] = {}
    for reading in readings:
        if isinstance(reading.patched, ElfDescription) and isinstance(reading.original, ElfDescription):
            for difference in unexplained(reading.original, reading.patched, linkage, growth):
                changes.setdefault(difference, []).append(reading.reader)
    for difference, names in changes.items():
        change = "was {} and is {}".format(*difference.values) if difference.values else "changed"
        text = f"its {difference.place} {change}, which the patch does not explain"
        yield Finding("error", path, f"{text} (read by {', '.join(names)})")


def _unread(path: str, reading: Reading) -> Iterator[Finding]:
    patched, original = reading.patched, reading.original
    if isinstance(patched, Unread):
        if not patched.blames_file:
            yield Finding("note", path, f"was not read again by {reading.reader}: {patched.reason}")
        elif isinstance(original, ElfDescription):
            text = f"{reading.reader} cannot read it, but can read the original: {patched.reason}"
            yield Finding("error", path, text)
        else:
            yield Finding("note", path, f"{reading.reader} cannot read it: {patched.reason}")
    elif isinstance(original, Unread):
        yield Finding("note", path, f"{reading.reader} cannot read its original: {original.reason}")


def _disagreements(path: str, ours: Reading, theirs: Reading) -> Iterator[Finding]:
    """Report disagreements with our reader; as a note where they concern the original as well."""
    known = {difference.field for difference in _compared(ours.original, theirs.original)}
    for difference in _compared(ours.patched, theirs.patched):
        values = "" if difference.values is None else ": {1} and {0}".format(*difference.values)
        text = f"{theirs.reader} and nixpatch disagree on its {difference.place}{values}"
        if difference.field in known:
            yield Finding("note", path, f"{text}; so they do on the original")
        else:
            yield Finding("error", path, text)


def _compared(ours: _Description | None, theirs: _Description | None) -> tuple[FieldDifference, ...]:
    if isinstance(ours, ElfDescription) and isinstance(theirs, ElfDescription):
        return disagreements(ours, theirs)
    return ()


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _results(jobs: Sequence[RereadJob], root: str, workers: int) -> Iterator[RereadResult]:
    if workers == 1 or len(jobs) < 2:
        yield from map(carry_out, jobs)
        return
    text = "a process that read files again died (was it killed, or out of memory?): verify again"
    lost = RereadResult(findings=(Finding("error", root, text),))
    with run_in_pool(carry_out, jobs, min(workers, len(jobs)), lambda: lost) as results:
        yield from results


def carry_out(job: RereadJob) -> RereadResult:
    """Read the files of one job again and compare the readings."""
    findings: list[Finding] = []
    pairs: list[_PatchedPair] = []
    with ExitStack() as stack:
        for path, entry in job.files.items():
            try:
                pairs.append(_PatchedPair.of(path, entry, stack, findings))
            except FileNotFoundError:
                pass  # verify reports it
            except (OSError, FileRefused) as error:
                findings.append(Finding("note", path, f"cannot be read again: {error}"))
        for reader, name in job.readers.items():
            descriptions = describe_all(reader, [file for pair in pairs for file in pair.open_files])
            for pair in pairs:
                pair.add(name, [next(descriptions) for _ in pair.open_files])
        for pair in pairs:
            growth = pair.open_files[0].size - pair.open_files[-1].size
            findings += judge(pair.path, pair.readings, pair.linkage, growth)
    return RereadResult(len(pairs), sum(len(pair.open_files) > 1 for pair in pairs), tuple(findings))


@dataclass(frozen=True, slots=True)
class _PatchedPair:
    """A patched file and, where it can be restored, its original."""

    path: str
    linkage: Linkage
    open_files: tuple[OpenFile, ...]
    """one or two"""
    readings: list[Reading]

    @classmethod
    def of(cls, path: str, entry: PatchedFile, stack: ExitStack, findings: list[Finding]) -> _PatchedPair:
        """Open both files, which ``stack`` closes, and read them with nixpatch's reader."""
        descriptors = [stack.enter_context(open_source(path))]
        try:
            originals = _original(descriptors[0], entry, stack)
            if originals and _has_manual_edit(descriptors[0]):
                text = "was edited with nixpatch elf, too, which provenance does not have: only read again"
                findings.append(Finding("note", path, text))
            else:
                descriptors += originals
        except FileRefused as refused:
            findings.append(Finding("error", path, f"nixpatch cannot restore its original: {refused}"))
        except OSError as error:
            findings.append(Finding("note", path, f"was not compared with its original: {error.strerror}"))
        descriptions = list(map(_described, descriptors))
        pair = cls(path, entry.linkage, tuple(map(_open_file, descriptors, descriptions)), [])
        pair.add(_OWN, descriptions)
        return pair

    def add(self, reader: str, descriptions: Sequence[_Description]) -> None:
        """Add the descriptions by one reader, of as many files as there are."""
        self.readings.append(Reading(reader, descriptions[0], descriptions[1] if descriptions[1:] else None))


def _original(fd: int, entry: PatchedFile, stack: ExitStack) -> list[int]:
    """Restore the original into a temporary file; [] where the file holds no intact undo record.

    Raises:
        FileRefused: the undo record does not give the file that was patched.
        OSError: there is no space for it.

    """
    try:
        if views_of(fd).state is not UndoState.INTACT:
            return []
    except FileRefused:
        return []  # _described reports it
    temp = stack.enter_context(tempfile.TemporaryFile()).fileno()  # noqa: SIM115 - it is one
    if format_sha256(write_original(fd, temp)) != entry.original:
        raise FileRefused("it is not the file that provenance names")
    return [temp]


def _has_manual_edit(fd: int) -> bool:
    facts = elf.read(fd, payload_ok=True, any_os=True)
    return isinstance(facts, ElfFacts) and facts.manual != ManualEdit()


def _described(fd: int) -> _Description:
    try:
        return own.describe(fd)
    except FileRefused as refused:
        return Unread(str(refused))
    except OSError as error:
        return Unread(error.strerror or str(error), blames_file=False)


def _open_file(fd: int, description: _Description) -> OpenFile:
    symbols = description.symbols if isinstance(description, ElfDescription) else None
    return OpenFile(fd, symbols.count if symbols else None)
