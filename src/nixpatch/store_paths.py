"""The names of store paths: their hash part, their package name, and which of two versions is newer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import takewhile

BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"
"""Nix's alphabet: digits and letters without e, o, t, u (Nix manual, "Store path")."""

HASH_CHARS = 32
"""160 bits of digest, five to a character"""

_ENTRY = re.compile(rf"[{BASE32}]{{{HASH_CHARS}}}-[0-9A-Za-z+\-._?=]+\Z")
_PARTS = re.compile(r"[0-9]+|[^0-9.\-]+")

_DIGITS = 255  # NAME_MAX: no name in a store has more, and Python refuses to read 4,301

VersionKey = tuple[tuple[int, int, str], ...]


def is_store_entry(name: str) -> bool:
    """Whether a name in the store directory is that of a store object (not ``.links`` or a stray file)."""
    return _ENTRY.match(name) is not None


def package_of_entry(name: str) -> str:
    """Return the name without hash: ``zlib-1.3.1`` for ``abc...-zlib-1.3.1``; ``""`` if there is no hash."""
    return name[HASH_CHARS + 1 :] if is_store_entry(name) else ""


def version_of(package: str) -> str:
    """Return the version part of a package name, split as by ``builtins.parseDrvName``.

    It begins after the first dash that no letter follows: ``gcc-13.2.0-lib`` has ``13.2.0-lib``.
    """
    for position, char in enumerate(package[:-1]):
        if char == "-" and not (package[position + 1].isascii() and package[position + 1].isalpha()):
            return package[position + 1 :]
    return ""


def version_key(version: str) -> VersionKey:
    """Return a key that sorts versions as ``builtins.compareVersions`` does (Nix manual).

    Dots, dashes and every change between digits and other characters separate the components. ``pre`` comes
    before the end of a version, that before any other word, and words before numbers:
    ``2.3pre1 < 2.3 < 2.3a < 2.3.1``.
    """
    key = [
        (3, int(part[:_DIGITS]), "") if "0" <= part[0] <= "9" else (0 if part == "pre" else 2, 0, part)
        for part in _PARTS.findall(version)
    ]
    return (*key, (1, 0, ""))


def library_stem(name: str) -> str:
    """Return a library's file name without the version: ``libz.so`` of ``libz.so.1.3.1``."""
    before, dot, _ = name.partition(".so")
    return before + dot


def library_version(name: str) -> str:
    """Return the digits after ``.so.``: ``1.3.1`` of ``libz.so.1.3.1``, ``""`` where there are none."""
    return "".join(takewhile(lambda char: char.isdigit() or char == ".", name.partition(".so.")[2]))


def store_paths_of(files: Iterable[str], store_dir: str) -> tuple[str, ...]:
    """Return the store paths that files lie in, sorted."""
    depth = store_dir.rstrip("/").count("/") + 2
    inside = (path for path in files if path.startswith(store_dir.rstrip("/") + "/"))
    return tuple(sorted({"/".join(path.split("/")[:depth]) for path in inside}))
