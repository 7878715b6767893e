"""Reasons to keep a vendored library, apart from its symbols.

Code may open it by its name, RECORD may not describe it, or nothing could bring it back.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from nixpatch import elf
from nixpatch.errors import FileRefused
from nixpatch.fs import open_regular, read_regular
from nixpatch.installed.dist_records import DistRecords, TreeRecords
from nixpatch.installed.hashing import DEFAULT_ALGORITHM, Hashing, hash_file
from nixpatch.installed.record import RecordRow
from nixpatch.model import Dist, ElfFacts, FileHash, Tree, TreeFile

_SOURCE_LIMIT = 16 << 20  # bytes of one Python file
_LOADS = re.compile(rb"\b(CDLL|PyDLL|LoadLibrary|dlopen|load_library)\b")


def objections(
    tree: Tree, vendored: Sequence[TreeFile], facts: Mapping[str, ElfFacts], records: TreeRecords
) -> Mapping[str, tuple[str, ...]]:
    """Return the reasons to keep each vendored library, by its path."""
    reasons: dict[str, list[str]] = {file.path: [] for file in vendored}
    by_info: dict[str, list[TreeFile]] = {}
    for file in vendored:
        if len(file.owners) == 1:
            by_info.setdefault(file.owners[0], []).append(file)
        else:
            who = "several dists claim it" if file.owners else "no dist claims it"
            reasons[file.path].append(f"{who}, so nothing could bring it back")
    dists = {dist.info: dist for dist in tree.dists}
    unread = {file.path for file in tree.files} - facts.keys()
    for path in sorted(unread):
        for library, text in _named_in_unread(path, vendored):
            reasons[library].append(text)
    for info, files in by_info.items():
        for path, text in (
            *_not_recorded(records.of(tree, info), files, facts),
            *_opened_by_name(dists[info], files, facts, unread),
        ):
            reasons[path].append(text)
    return {path: tuple(texts) for path, texts in reasons.items()}


def _not_recorded(
    records: DistRecords, vendored: Sequence[TreeFile], facts: Mapping[str, ElfFacts]
) -> Iterator[tuple[str, str]]:
    """Find the libraries that RECORD does not describe, or whose original is lost."""
    by_lief = records.written_by_lief()
    try:
        rows = records.read_record().rows_of({file.path for file in vendored})
    except (OSError, FileRefused) as error:
        yield from ((file.path, f"RECORD cannot be read: {error}") for file in vendored)
        return
    for file in vendored:
        if os.path.islink(file.path):
            yield file.path, "it is a link, and its file is not of this tree (uv's --link-mode symlink)"
            continue
        if facts[file.path].stale_undo or file.path in by_lief:
            yield file.path, "its original is lost: another tool changed it after nixpatch, or LIEF wrote it"
        file_rows = rows.get(file.path, [])
        if len(file_rows) != 1:
            yield file.path, f"RECORD has {len(file_rows)} rows for it"
            continue
        row = file_rows[0]
        current = hash_file(file.path, {"sha256", row.check_algorithm or "sha256"})
        if row.agrees(current) is False and row.agrees(_original(file.path, row)) is not True:
            yield file.path, "RECORD does not describe it as it is"


def _original(path: str, row: RecordRow) -> FileHash:
    hashing = Hashing({DEFAULT_ALGORITHM, row.check_algorithm or DEFAULT_ALGORITHM})
    elf.feed_original(path, hashing.update)
    return hashing.result()


def _named_in_unread(path: str, vendored: Sequence[TreeFile]) -> Iterator[tuple[str, str]]:
    """Find the libraries whose names are in an ELF file with unreadable needs: it may need or open them."""
    try:
        descriptor = open_regular(path)
        with open(descriptor, "rb"), mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
            names = {file.path: os.fsencode(os.path.basename(file.path)) for file in vendored}
            named = [library for library, name in names.items() if data.find(name) >= 0]
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        yield from ((file.path, _unknown(path, error)) for file in vendored)
        return
    for library in named:
        yield library, f"{path} has its name and is no file that nixpatch can link anew: it may need it"


def _opened_by_name(
    dist: Dist, vendored: Sequence[TreeFile], facts: Mapping[str, ElfFacts], unread: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Find the libraries that code of the dist names, or whose directory it names and opens libraries."""
    names = {os.fsencode(os.path.basename(file.path)): file.path for file in vendored}
    for path in sorted(dist.files):
        try:
            if path in facts:
                for name in sorted(elf.mentions(path, names)):
                    yield names[name], f"{path} has its name outside the dynamic section: it may open it"
            elif path.endswith(".py") and path not in unread and os.path.lexists(path):
                yield from _named_in_source(path, vendored)
            elif path not in unread and os.path.lexists(path) and not os.access(path, os.R_OK):
                yield from ((file.path, f"{path} cannot be read: it may need it") for file in vendored)
        except (FileRefused, OSError) as error:
            yield from ((file.path, _unknown(path, error)) for file in vendored)


def _unknown(path: str, error: Exception) -> str:
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{path} cannot be read ({why}): it may need it"


def _named_in_source(path: str, vendored: Sequence[TreeFile]) -> Iterator[tuple[str, str]]:
    source = read_regular(path, _SOURCE_LIMIT)
    opens_libraries = None
    for file in vendored:
        directory, name = os.path.split(file.path)
        if os.fsencode(name) in source:
            yield file.path, f"{path} has its name: it may open it"
            continue
        # The directory alone means nothing: on Windows, code adds it to the search path for DLLs.
        directory_name = os.fsencode(os.path.basename(directory))
        if directory_name in source and re.search(rb"""["'/]""" + re.escape(directory_name), source):
            if opens_libraries is None:
                opens_libraries = bool(_LOADS.search(source))
            if opens_libraries:
                yield file.path, f"{path} opens libraries and has the name of its directory"
