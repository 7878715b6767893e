"""Read which libraries the code of a tree opens by name: strings of ELF files, and the sources of each dist.

Sources take long to follow, and a dist is hardly ever changed after its installation. So the names of a dist
are kept in the cache by the digests that its RECORD has of its sources. Without those they are read anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nixpatch.elf.dlopen_strings import DLOPEN, dlopen_strings
from nixpatch.errors import FileRefused
from nixpatch.installed.dist_records import DistRecords, TreeRecords
from nixpatch.installed.scan import dist_sources
from nixpatch.model import Dist, DlopenStrings, ElfFacts, Machine, OpenedName, Opener, Tree
from nixpatch.policy import Policy
from nixpatch.resolve.python_names import opened_names
from nixpatch.store.cache import Cache, RowKind, settled, stamp_of

_SOURCE_ROW = re.compile(rb"^[^\r\n]*\.py[\"']?,[^\r\n]*$", re.MULTILINE)
_HASHED = re.compile(rb",sha(?:256|384|512)=[\w-]{20,},\d*\Z")


@dataclass(frozen=True, slots=True)
class CodeNames:
    """The names in the code of a tree."""

    native: Mapping[str, DlopenStrings]
    """by path of the ELF file"""
    python: Mapping[str, tuple[OpenedName, ...]]
    """by ``.dist-info``; paths of sources are relative to the site directory"""


def read_code_names(
    tree: Tree,
    facts: Mapping[str, ElfFacts],
    machine: Machine,
    policy: Policy,
    cache: Cache,
    records: TreeRecords,
) -> CodeNames:
    """Read the names of a tree. Nothing is run."""
    symbols = (*DLOPEN, *(symbol for opener in policy.dlopen.openers for symbol in opener.symbols))
    native: dict[str, DlopenStrings] = {}
    for path, file_facts in facts.items():
        if file_facts.machine == machine:
            try:
                strings = _strings_of(path, symbols, cache)
            except (FileRefused, OSError):  # the plan of the file tells what is wrong with it
                continue
            if strings is not None:
                native[path] = strings
    python = {
        dist.info: names
        for dist in tree.dists
        if (names := _names_of(dist, records.of(tree, dist.info), cache))
    }
    return CodeNames(native, python)


def _strings_of(path: str, symbols: tuple[str, ...], cache: Cache) -> DlopenStrings | None:
    """Return the names in an ELF file; those of one that has not changed come from the cache."""
    status = os.stat(path)
    stamp = stamp_of(status)
    value = cache.get(RowKind.STRINGS, path, stamp)
    if value is not None:
        try:
            asked, row = json.loads(value)
            if tuple(asked) == symbols:
                return None if row is None else DlopenStrings(*(tuple(part) for part in row))
        except (ValueError, TypeError, RecursionError):  # not a row of this program
            pass
    strings = dlopen_strings(path, symbols)
    if settled(status):
        row = None if strings is None else (strings.symbols, strings.names, strings.in_text)
        cache.put(RowKind.STRINGS, path, stamp, json.dumps((symbols, row)).encode("ascii"))
    return strings


def _names_of(dist: Dist, records: DistRecords, cache: Cache) -> tuple[OpenedName, ...]:
    record = os.path.join(dist.info, "RECORD")
    key = _source_digest(records)
    if key is not None:
        known = _unpacked(cache.get(RowKind.OPENED, record, key))
        if known is not None:
            return known
    sources = ((os.path.relpath(path, dist.site), data) for path, data in dist_sources(dist))
    names = opened_names(sources)
    if key is not None:
        cache.put(RowKind.OPENED, record, key, _packed(names))
    return names


def _source_digest(records: DistRecords) -> bytes | None:
    """Return a digest over the rows of RECORD that describe sources; None where they do not tell contents."""
    try:
        rows = _SOURCE_ROW.findall(records.read_record().data)
    except OSError:
        return None
    return hashlib.sha256(b"\n".join(rows)).digest() if all(map(_HASHED.search, rows)) else None


def _packed(names: Iterable[OpenedName]) -> bytes:
    rows = [(name.name, name.opener.name, name.path, name.line, name.traced) for name in names]
    return json.dumps(rows).encode("ascii")


def _unpacked(value: bytes | None) -> tuple[OpenedName, ...] | None:
    """Return the names of a row of the cache; None where it is none of ours."""
    if value is None:
        return None
    try:
        return tuple(
            OpenedName(str(name), Opener[opener], str(path), int(line), bool(traced))
            for name, opener, path, line, traced in json.loads(value)
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
