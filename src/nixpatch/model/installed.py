"""Installed trees, their files and dists, and the Python that loads them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nixpatch.model.elf import Machine

ROOTS_DIRECTORY = ".nixpatch-roots"
"""in the prefix of a tree: links to the store paths that its garbage-collector roots hold"""
ENV_DIRECTORY = ".nixpatch-env"
"""in the prefix of a tree: links to libraries for ``nixpatch env``"""


class TreeKind(enum.Enum):
    """The kind of directory that the user named."""

    SITE_PACKAGES = "site-packages"
    VENV = "venv"
    PREFIX = "prefix"
    PLAIN = "directory"
    WHEEL = "wheel"
    """a wheel file, in a report: a run has it unpacked, as a prefix"""


@dataclass(frozen=True, slots=True)
class Dist:
    """An installed distribution: its ``.dist-info`` directory, and the files that its RECORD lists."""

    name: str
    """normalised (PEP 503)"""
    version: str
    site: str
    """the directory that the rows of RECORD are relative to"""
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
    """bytes"""
    owners: tuple[str, ...] = ()
    """``info`` directories of the dists whose RECORD lists it, sorted"""
    identity: tuple[int, ...] = field(default=(), compare=False)
    """``fs.identity`` at the time of the scan, of what a link leads to; () if unknown"""
    link: str = ""
    """the text of the link that it is, to a file outside the tree; a patched copy takes its place"""


@dataclass(frozen=True, slots=True)
class Tree:
    """The files and dists under the path that the user named. Holds no file contents."""

    root: str
    """the real path of the tree: the directory that was named, or the tree that it is a part of"""
    prefix: str
    """nothing outside it is written; equal to root unless root is a site-packages inside a prefix"""
    kind: TreeKind
    files: tuple[TreeFile, ...]
    """sorted by path"""
    dists: tuple[Dist, ...] = ()
    """sorted by info"""
    python_version: tuple[int, int] | None = None
    """from ``lib/pythonX.Y`` or ``pyvenv.cfg``; None if neither names one"""
    notes: tuple[str, ...] = ()
    """oddities: RECORD rows that lead outside, files that cannot be read"""
    leftovers: tuple[str, ...] = ()
    """temp files of killed runs"""
    dangling: tuple[str, ...] = ()
    """files of dists that are links to what is gone, sorted"""
    linked: tuple[str, ...] = ()
    """store paths that links of the tree lead into, whose files were read as well; sorted"""
    linked_note: str = ""
    """what was read through links; "" if nothing was"""
    part: str | None = None
    """the real path of the directory or file that was named, if it is only a part of the tree"""
    perhaps_scripts: frozenset[str] = frozenset()
    """below root: links, and files with an execute bit that are no ELF files"""

    def prefix_of(self, path: str) -> str:
        """Return the prefix of a file: that of the tree, or a store path that a link leads into."""
        return next((prefix for prefix in self.linked if path.startswith(prefix + "/")), self.prefix)

    def has(self, path: str) -> bool:
        """Return whether a path is in the named part; any is if the whole tree was named."""
        return self.part is None or path == self.part or path.startswith(self.part + "/")

    def only_part(self) -> Tree:
        """Return the tree with the files of the named part only, and the dists that own files in it."""
        if self.part is None:
            return self
        files = tuple(file for file in self.files if self.has(file.path))
        dists = tuple(dist for dist in self.dists if self.has(dist.info) or any(map(self.has, dist.files)))
        return replace(self, files=files, dists=dists)


@dataclass(frozen=True, slots=True)
class LenderSite:
    """A site-packages outside the tree whose dists provide libraries: each package of nixpkgs has one."""

    path: str
    dists: tuple[Dist, ...]
    libraries: Mapping[str, tuple[str, ...]]
    """by file name: absolute paths, links to other directories resolved"""

    def owner_of(self, path: str) -> str:
        """Return the ``info`` of the dist that a library belongs to, "" if that is unknown."""
        if len(self.dists) == 1:
            return self.dists[0].info
        return next((dist.info for dist in self.dists if path in dist.files), "")


class Libc(enum.Enum):
    """The C libraries that wheels are tagged for (PEP 600, PEP 656)."""

    GLIBC = "glibc"
    MUSL = "musl"


@dataclass(frozen=True, slots=True)
class Target:
    """The Python that loads the tree, as read from its files; it is not run."""

    python: str
    """the real path of the interpreter; the loader, if the target is any process that it starts"""
    found_by: str
    """``pyvenv.cfg``, ``--python``, ``the tree``, ``PATH``, ``stdenv``"""
    version: tuple[int, int] | None
    machine: Machine
    loader: str
    """its PT_INTERP, which patched programs get, too"""
    libc: Libc
    libc_version: tuple[int, ...]
    """``(2, 36)`` for glibc 2.36"""
    libc_versions: frozenset[str]
    """every version the libc defines (verdef), such as ``GLIBC_2.36``"""
    libc_dir: str
    """the directory of libc.so.6, where ld.so finds libc's own sonames"""
    cannot_start: str = ""
    """why the Python cannot start here; then ``loader`` is the one that it gets when it is patched"""

    @property
    def has_python(self) -> bool:
        """Whether the target is a Python, and not only a loader."""
        return self.python != self.loader


@dataclass(frozen=True, slots=True)
class TargetLibrary:
    """A library that the target Python itself loads."""

    path: str
    """real path"""
    loaded_by: str
    """``by Python itself`` or ``by Python's module _ssl``"""


@dataclass(frozen=True, slots=True)
class LoaderDefaults:
    """Where a dynamic loader searches after RPATH, LD_LIBRARY_PATH and RUNPATH (ld.so(8))."""

    directories: tuple[str, ...] = ()
    """in the order of the search"""
    cache: str | None = None
    """path of its ld.so.cache, if that exists"""
    cached: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """contents of the cache: soname -> files, best first"""
