"""What is installed, and the Python that will load it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from nixpatch.model.elf import Machine


class TreeKind(enum.Enum):
    """What the user named."""

    SITE_PACKAGES = "site-packages"
    VENV = "venv"
    PREFIX = "prefix"
    PLAIN = "directory"


@dataclass(frozen=True, slots=True)
class Dist:
    """An installed distribution: its ``.dist-info`` and what its RECORD lists."""

    name: str
    """normalised (PEP 503)"""
    version: str
    site: str
    """directory that RECORD's rows are relative to"""
    info: str
    """the ``.dist-info`` directory"""
    requires: tuple[str, ...] = ()
    """Requires-Dist lines, unparsed"""
    files: frozenset[str] = frozenset()
    """absolute real paths of the RECORD rows that lie inside the tree's prefix"""
    has_record: bool = True


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One regular file that begins with the ELF magic."""

    path: str
    size: int
    mode: int
    links: int
    """st_nlink: above 1 the bytes are shared with another name (uv's cache)"""
    owners: tuple[str, ...] = ()
    """``info`` directories of the dists whose RECORD lists it, sorted"""
    identity: tuple[int, ...] = field(default=(), compare=False)
    """what told it from any other file when the tree was read; () where nobody looked"""


@dataclass(frozen=True, slots=True)
class Tree:
    """What is installed under the path that the user named. Holds no file contents."""

    root: str
    """the real path of what was named"""
    prefix: str
    """nothing outside it is written; equal to root unless root is a site-packages inside a prefix"""
    kind: TreeKind
    files: tuple[TreeFile, ...]
    """sorted by path"""
    dists: tuple[Dist, ...] = ()
    """sorted by info"""
    python_version: tuple[int, int] | None = None
    """from ``lib/pythonX.Y``; None where the tree does not say"""
    notes: tuple[str, ...] = ()
    """what was odd: rows that point outside, a RECORD that cannot be read"""
    leftovers: tuple[str, ...] = ()
    """temp files of a run that was killed"""


class Libc(enum.Enum):
    """The two C libraries wheels are tagged for (PEP 600, PEP 656)."""

    GLIBC = "glibc"
    MUSL = "musl"


@dataclass(frozen=True, slots=True)
class Target:
    """The Python whose process will load the tree. Read from its files; it is never run for this."""

    python: str
    """the interpreter as found"""
    found_by: str
    """``pyvenv.cfg``, ``--python``, ``the tree``, ``PATH``"""
    version: tuple[int, int] | None
    machine: Machine
    loader: str
    """its PT_INTERP: what patched executables get"""
    libc: Libc
    libc_version: tuple[int, ...]
    """``(2, 36)`` for glibc 2.36"""
    libc_versions: frozenset[str]
    """every version the libc defines (verdef), such as ``GLIBC_2.36``"""
    libc_dir: str
    """directory of libc.so.6: where ld.so finds libc's own sonames"""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """Where a loader looks when no search path helps."""

    directories: tuple[str, ...] = ()
    """in the order of the search"""
    cache: str | None = None
    """the cache that it would read, if that is there"""
    cached: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """what the cache has: soname -> files, best first"""
