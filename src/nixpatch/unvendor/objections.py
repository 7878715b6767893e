"""What speaks against the removal of a grafted library, apart from its symbols.

Somebody may open it by its name, RECORD may not describe it, or there may be no way to bring it back.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from nixpatch import elf
from nixpatch.errors import FileRefused
from nixpatch.fs import open_regular, read_regular
from nixpatch.installed import record
from nixpatch.installed.dist_records import describes, ledger, original_hash, rows_by_file, without_undo
from nixpatch.installed.hashing import hash_file
from nixpatch.model import Dist, ElfFacts, Tree, TreeFile

_SOURCE_LIMIT = 16 << 20  # bytes of one Python file
_LOADS = re.compile(rb"\b(CDLL|PyDLL|LoadLibrary|dlopen|load_library)\b")


def objections(
    tree: Tree, grafts: Sequence[TreeFile], facts: Mapping[str, ElfFacts]
) -> Mapping[str, tuple[str, ...]]:
    """Return, by path of a graft, what speaks against its removal."""
    found: dict[str, list[str]] = {file.path: [] for file in grafts}
    by_info: dict[str, list[TreeFile]] = {}
    for file in grafts:
        if len(file.owners) == 1:
            by_info.setdefault(file.owners[0], []).append(file)
        else:
            who = "several dists claim it" if file.owners else "no dist claims it"
            found[file.path].append(f"{who}, so nothing could bring it back")
    dists = {dist.info: dist for dist in tree.dists}
    unread = {file.path for file in tree.files} - facts.keys()
    for path in sorted(unread):
        for graft, text in _in_unread(path, grafts):
            found[graft].append(text)
    for info, its_grafts in by_info.items():
        for path, text in (
            *_not_recorded(tree, info, its_grafts, facts),
            *_opened_by_name(dists[info], its_grafts, facts, unread),
        ):
            found[path].append(text)
    return {path: tuple(texts) for path, texts in found.items()}


def _not_recorded(
    tree: Tree, info: str, grafts: Sequence[TreeFile], facts: Mapping[str, ElfFacts]
) -> Iterator[tuple[str, str]]:
    where = ledger(tree, info)
    by_lief = without_undo(where)
    try:
        rows = record.parse(read_regular(where.record or "", record.MAX_RECORD_SIZE))
    except (OSError, FileRefused) as error:
        yield from ((file.path, f"RECORD cannot be read: {error}") for file in grafts)
        return
    spelled = rows_by_file(where, rows, {file.path: None for file in grafts})
    for file in grafts:
        if facts[file.path].stale_undo or file.path in by_lief:
            yield file.path, "its original is lost: another tool changed it after nixpatch, or LIEF wrote it"
        its_rows = spelled.get(file.path, [])
        if len(its_rows) != 1:
            yield file.path, f"RECORD has {len(its_rows)} rows for it"
            continue
        algorithms = {"sha256", its_rows[0].check_algorithm or "sha256"}
        now = hash_file(file.path, algorithms)
        original = facts[file.path].original_sha256
        was_right = original is not None and describes(its_rows[0], original_hash(original)) is True
        if its_rows[0].agrees(now) is False and not was_right:
            yield file.path, "RECORD does not describe it as it is"


def _in_unread(path: str, grafts: Sequence[TreeFile]) -> Iterator[tuple[str, str]]:
    """Find the grafts that an ELF file names whose needs nobody can read: it may need them, or open them."""
    try:
        descriptor = open_regular(path)
        with open(descriptor, "rb"), mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
            named = [graft for graft in grafts if data.find(os.fsencode(os.path.basename(graft.path))) >= 0]
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        yield from ((graft.path, _unknown(path, error)) for graft in grafts)
        return
    for graft in named:
        yield graft.path, f"{path} has its name and is no file that nixpatch can link anew: it may need it"


def _opened_by_name(
    dist: Dist, grafts: Sequence[TreeFile], facts: Mapping[str, ElfFacts], unread: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Find who names a graft outside its dynamic section, or opens what lies in its directory."""
    names = {os.fsencode(os.path.basename(file.path)): file.path for file in grafts}
    for path in sorted(dist.files):
        try:
            if path in facts:
                for name in sorted(elf.mentions(path, names)):
                    yield names[name], f"{path} has its name outside the dynamic section: it may open it"
            elif path.endswith(".py") and path not in unread and os.path.lexists(path):
                yield from _in_source(path, grafts)
            elif path not in unread and os.path.lexists(path) and not os.access(path, os.R_OK):
                yield from ((file.path, f"{path} cannot be read: it may need it") for file in grafts)
        except (FileRefused, OSError) as error:
            yield from ((file.path, _unknown(path, error)) for file in grafts)


def _unknown(path: str, error: Exception) -> str:
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{path} cannot be read ({why}): it may need it"


def _in_source(path: str, grafts: Sequence[TreeFile]) -> Iterator[tuple[str, str]]:
    source = read_regular(path, _SOURCE_LIMIT)
    loads = None
    for file in grafts:
        directory, name = os.path.split(file.path)
        if os.fsencode(name) in source:
            yield file.path, f"{path} has its name: it may open it"
            continue
        # The directory alone says nothing: Windows looks for DLLs in one of the same name.
        place = os.fsencode(os.path.basename(directory))
        if place in source and re.search(rb"""["'/]""" + re.escape(place), source):
            loads = bool(_LOADS.search(source)) if loads is None else loads
            if loads:
                yield file.path, f"{path} opens libraries and has the name of its directory"
