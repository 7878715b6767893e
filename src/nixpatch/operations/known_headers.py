"""Keep what the headers of a tree's ELF files say, for the next run, under the state of each file.

As in git's index, a file that changed less than two seconds before it was read may change again without
another time stamp: then nothing is kept (https://git-scm.com/docs/racy-git).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from nixpatch.fs import can_be_path
from nixpatch.model import (
    DlopenNeed,
    DlopenPriority,
    ElfFacts,
    Linkage,
    Machine,
    Skip,
    SkipReason,
    Tag,
    VersionNeed,
)
from nixpatch.operations import kept_files
from nixpatch.store.cache import settled, stamp_of

_KIND = "headers"


class KnownHeaders:
    """The headers of the files of one tree as earlier runs read them."""

    def __init__(self, cache: str | None, tree: str, edition: str) -> None:
        """Load what is known.

        Args:
            cache: the cache file of the run; None keeps nothing.
            tree: the root of the tree.
            edition: version of the program. Another one may read files differently.

        """
        self._path = kept_files.path_of(cache, _KIND, tree)
        self._edition = edition
        self._rows: dict[str, Any] = {}
        self._states: dict[str, os.stat_result] = {}
        if self._path is not None:
            try:
                kept = kept_files.read(self._path)
                if kept["edition"] == edition:
                    self._rows = dict(kept["files"])
            except (OSError, ValueError, KeyError, TypeError):
                pass

    def of(self, paths: Iterable[str]) -> dict[str, ElfFacts | Skip]:
        """Return what is known of these files as they are now; none of them may have been read yet."""
        known: dict[str, ElfFacts | Skip] = {}
        if self._path is None:
            return known
        machines: dict[tuple[int, int, str], Machine] = {}
        for path in paths:
            try:
                status = self._states[path] = os.stat(path)
            except OSError:
                continue
            row = self._rows.get(path)
            if isinstance(row, list) and len(row) == 2 and row[0] == stamp_of(status).hex():
                try:
                    known[path] = _unpacked(row[1], machines)
                except (ValueError, TypeError, KeyError):
                    continue
        return known

    def keep(self, facts: Mapping[str, ElfFacts | Skip]) -> None:
        """Keep what was read of the files that were asked for."""
        if self._path is None:
            return
        rows = {
            path: [stamp_of(self._states[path]).hex(), _packed(result)]
            for path, result in facts.items()
            if path in self._states and settled(self._states[path])
        }
        if rows != self._rows:
            kept_files.write(self._path, {"edition": self._edition, "files": rows})


def _packed(result: ElfFacts | Skip) -> list[Any]:
    if isinstance(result, Skip):
        return [result.reason.name, result.detail]
    machine, digest = result.machine, result.original_sha256
    return [
        [machine.number, machine.bits, machine.byteorder],
        [result.executable, result.stale_undo, result.no_default_lib, result.both_tags],
        result.soname,
        list(result.needed),
        _packed_linkage(result.current),
        _packed_linkage(result.original),
        None if digest is None else digest.hex(),
        [[need.soname, list(need.versions)] for need in result.version_needs],
        list(result.version_defs),
        [[list(need.sonames), need.priority.value] for need in result.dlopen_needs],
        result.obstacle,
    ]


def _packed_linkage(linkage: Linkage) -> list[Any]:
    tag = None if linkage.tag is None else linkage.tag.value
    return [linkage.search_path, tag, linkage.interp, [list(pair) for pair in linkage.renamed]]


def _unpacked(row: Any, machines: dict[tuple[int, int, str], Machine]) -> ElfFacts | Skip:
    """Return the inverse of :func:`_packed`.

    Raises:
        ValueError: the row has another form: a digest is not a signature.
        TypeError: the same.
        KeyError: the same.

    """
    if len(row) == 2:
        return Skip(SkipReason[row[0]], _text(row[1]))
    (number, bits, order), flags, soname, needed, current, original, digest, needs, defs, opened, obstacle = (
        row
    )
    key = (number, bits, order)
    if key not in machines:
        if [type(part) for part in key] != [int, int, str]:
            raise ValueError("not a machine")
        machines[key] = Machine(*key)
    executable, stale_undo, no_default_lib, both_tags = flags
    if not all(isinstance(flag, bool) for flag in flags):
        raise ValueError("not a flag")
    return ElfFacts(
        machine=machines[key],
        executable=executable,
        soname=_optional(soname),
        needed=_texts(needed),
        current=_linkage(current),
        original=_linkage(original),
        original_sha256=None if digest is None else bytes.fromhex(digest),
        stale_undo=stale_undo,
        no_default_lib=no_default_lib,
        both_tags=both_tags,
        version_needs=tuple(VersionNeed(_text(name), _texts(versions)) for name, versions in needs),
        version_defs=_texts(defs),
        dlopen_needs=tuple(DlopenNeed(_texts(names), DlopenPriority(value)) for names, value in opened),
        obstacle=_optional(obstacle),
    )


def _linkage(row: Any) -> Linkage:
    search_path, tag, interp, renamed = row
    return Linkage(
        _optional(search_path),
        None if tag is None else Tag(tag),
        _optional(interp),
        tuple((_text(old), _text(new)) for old, new in renamed),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or not can_be_path(value):
        raise ValueError("not a text of an ELF file")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(map(_text, values))


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)
