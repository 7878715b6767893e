"""Scan a tree: its kind, its ELF files, its dists, and which dist owns which file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from nixpatch.errors import MachineError, RequestError
from nixpatch.escape import is_machine_error, reason, shown
from nixpatch.fs import is_temporary, read_regular
from nixpatch.installed import python_layout
from nixpatch.installed.dists import find_dists
from nixpatch.installed.elf_files import WalkResult, inspect, walk
from nixpatch.installed.linked import FilesBehindLinks, follow_links, owned_links
from nixpatch.installed.tree_roots import enclosing, is_nested, real_name
from nixpatch.model import Dist, Tree, TreeFile, TreeKind

_MAX_SOURCE_SIZE = 4 << 20  # bytes; the largest source that people write has a tenth
_MAX_SOURCES = 500_000

EMPTY_PATH = "the path of a tree is empty (a variable that is not set?): name it; the current directory is ."

_INSTALL = "install it into a venv, then run nixpatch on the venv"
_ARCHIVES = {
    ".whl": ("a wheel", "patch it with nixpatch wheel, or install it into a venv and patch the venv"),
    ".pex": ("a zip archive that is run", "build it with --venv, or unpack it and name the directory"),
    ".pyz": ("a zip archive that is run", "install what is in it into a venv, then run nixpatch on the venv"),
    ".zip": ("an archive", "unpack it and name the directory"),
    ".egg": ("an archive", _INSTALL),
    ".gz": ("an archive", _INSTALL),
}
"""files that people name instead of a tree: suffix -> what it is, what to do"""


def scan(path: str, *, store_dir: str | None = None, follow: bool = True) -> Tree:
    """Read a tree. Nothing is executed, and no contents of files but METADATA and RECORD are used.

    Args:
        path: a venv, a prefix, a site-packages, a part of one of them, any directory with ELF files, or one
            ELF file. It may be relative, and a link.
        store_dir: the directory of the store; None follows no links that lead out of the tree.
        follow: follow them all, for a command that only reads; else only those to other places than the store
            that a RECORD lists, as ``uv pip install --link-mode symlink`` makes them.

    Raises:
        RequestError: it does not exist, cannot be read, or holds neither dists nor ELF files.
        MachineError: the disk fails, or the run may open no more files.

    """
    if not path:
        raise RequestError(EMPTY_PATH)
    try:
        root = real_name(path)
        mode = os.stat(root).st_mode
        if not stat.S_ISDIR(mode) and (not stat.S_ISREG(mode) or inspect(os.path.realpath(root)) is None):
            raise RequestError(
                archive_message(path) or f"{shown(path)} is neither a directory nor an ELF file"
            )
        part, root = root, _root_of_part(root)
        if not os.path.isdir(root):
            return _single(root)
        kind, prefix, sites = _kind(root)
        walked = walk(root, is_nested(root, kind))
        linked = FilesBehindLinks()
        follow = follow and store_dir is not None
        if (
            follow
            and store_dir is not None
            and (kind is not TreeKind.PLAIN or root.startswith(store_dir + "/"))
        ):
            sites = python_layout.site_directories(root, with_links=True) or sites
            linked = follow_links(root, walked, sites, store_dir)
        dists, notes = _dists(sites, prefix, follow=follow)
        owned = frozenset[str]().union(*(dist.files for dist in dists))
        files, unreadable = _all_files(walked, owned, root, prefix)
        links = (*walked.links, *filter(os.path.islink, _files_outside(owned, root)))
        dangling = sorted(link for link in owned.intersection(links) if not os.path.exists(link))
        if store_dir is not None and not follow:
            linked.files.update(owned_links(links, owned, prefix, store_dir))
        files = sorted({file.path: file for file in (*files, *linked.files.values())}.values(), key=_path)
    except (OSError, ValueError) as error:
        if is_machine_error(error):
            name = shown(str(getattr(error, "filename", None) or path))
            raise MachineError(f"{name}: {reason(error)}: mend this and run nixpatch again") from error
        raise RequestError(f"{shown(path)} cannot be read: {reason(error)}") from error
    if kind is TreeKind.PLAIN and not files and walked.nested:
        raise RequestError(
            f"nothing to do in {shown(path)} itself, but there are trees in it: name one, such as"
            f" {shown(walked.nested[0])}"
        )
    if kind is TreeKind.PLAIN and not files and any(name.endswith(".whl") for name in os.listdir(root)):
        raise RequestError(
            f"{shown(path)} has wheel files, which are not patched themselves: patch them with "
            f"nixpatch wheel {shown(path.rstrip('/'))}/*.whl, or install them into a venv and patch the venv"
        )
    if kind is TreeKind.PLAIN and not files:
        raise RequestError(
            f"nothing to do in {shown(path)}: it holds no ELF file and no *.dist-info;"
            " name a site-packages, a venv, a prefix that has lib/pythonX.Y/site-packages, or one ELF file"
        )
    return Tree(
        root=root,
        prefix=prefix,
        kind=kind,
        files=_with_owners(files, dists, linked.real_paths),
        dists=dists,
        python_version=_version(root, prefix, sites),
        notes=(
            *notes,
            *_other_manager(prefix),
            *walked.notes,
            *unreadable,
            *linked.notes,
            *_nested_notes(walked.nested),
        ),
        leftovers=(
            *(path for path in walked.leftovers if path not in owned),
            *_leftovers_outside(owned, root, prefix),
        ),
        dangling=tuple(dangling),
        linked=tuple(sorted(linked.prefixes)),
        linked_note=linked.note() if follow and linked.files else "",
        part=part if part != root else None,
        perhaps_scripts=frozenset((*walked.executables, *walked.links)),
    )


def _path(file: TreeFile) -> str:
    return file.path


def _kind(root: str) -> tuple[TreeKind, str, tuple[str, ...]]:
    """Return the kind, the prefix, and the directories to search for dists."""
    sites = python_layout.site_directories(root)
    if python_layout.read_config(root) is not None:
        return TreeKind.VENV, root, sites
    if sites:
        return TreeKind.PREFIX, root, sites
    prefix = python_layout.prefix_of_site(root)
    if prefix is not None or python_layout.has_dist_info(root):
        return TreeKind.SITE_PACKAGES, prefix or root, (root,)
    return TreeKind.PLAIN, root, ()


def _root_of_part(real: str) -> str:
    """Return the root of the tree that a path is a part of; the path itself if it is a tree, or in none."""
    enclosure = enclosing(real)
    # A site-packages is a tree of its own, with the programs of its dists.
    if enclosure is None or real in python_layout.site_directories(enclosure.root):
        return real
    return enclosure.root


def _single(real: str) -> Tree:
    """Return a tree of one ELF file, without its neighbours."""
    file, root = inspect(real), os.path.dirname(real)
    files = (file,) if file is not None else ()
    return Tree(root, root, TreeKind.PLAIN, files, python_version=python_layout.version_in_path(root))


def archive_message(path: str) -> str | None:
    """Return the message for a wheel or another archive, None for a file with another suffix."""
    kind = _ARCHIVES.get(os.path.splitext(path)[1].lower())
    return f"{shown(path)} is {kind[0]}, which is not patched itself: {kind[1]}" if kind is not None else None


def _nested_notes(nested: Iterable[str]) -> Iterator[str]:
    for directory in nested:
        yield f"{shown(directory)}: a tree of its own, not patched as a part of this one"


def _dists(sites: Iterable[str], prefix: str, *, follow: bool) -> tuple[tuple[Dist, ...], tuple[str, ...]]:
    results = [find_dists(site, prefix, follow=follow) for site in sites]
    dists = sorted((dist for site_dists, _ in results for dist in site_dists), key=lambda dist: dist.info)
    return tuple(dists), tuple(note for _, notes in results for note in notes)


def _all_files(
    walked: WalkResult, owned: frozenset[str], root: str, prefix: str
) -> tuple[Iterable[TreeFile], list[str]]:
    """Add files of dists that a walk does not enter or read; return all, and notes.

    They are elsewhere in the prefix (``bin/ruff``), or have a name as temp files of nixpatch have.
    """
    others = owned.intersection(walked.leftovers)
    if root != prefix:
        others |= _files_outside(owned, root)
    if not others:
        return walked.files, []
    files = {file.path: file for file in walked.files}
    notes = []
    for path in sorted(others):
        try:
            file = inspect(path)
        except OSError as error:
            if is_machine_error(error):
                raise
            notes.append(f"{shown(path)}: not read: {reason(error)}")
            continue
        if file is not None:
            files[path] = file
    return [files[path] for path in sorted(files)], notes


def _leftovers_outside(owned: frozenset[str], root: str, prefix: str) -> list[str]:
    """Return the temp files of killed runs beside files of dists outside ``root`` (``bin/ruff``)."""
    if root == prefix:
        return []
    leftovers: set[str] = set()
    for directory in {os.path.dirname(path) for path in _files_outside(owned, root)}:
        with contextlib.suppress(OSError):
            leftovers.update(
                os.path.join(directory, name) for name in os.listdir(directory) if is_temporary(name)
            )
    return sorted(leftovers - owned)


def _files_outside(owned: frozenset[str], root: str) -> frozenset[str]:
    below = root.rstrip("/") + "/"
    return frozenset(path for path in owned if not path.startswith(below))


def _with_owners(
    files: Iterable[TreeFile], dists: Iterable[Dist], real_paths: Mapping[str, str]
) -> tuple[TreeFile, ...]:
    """Add the owners. A file that two dists list has both, and both RECORDs change (PEP 376 allows that).

    A link belongs to the dist that lists it, and to the one that lists the file behind it.
    """
    files = tuple(files)
    paths = {file.path for file in files}.union(real_paths.values())
    owners: dict[str, set[str]] = {}
    for dist in dists:
        for path in paths & dist.files:
            owners.setdefault(path, set()).add(dist.info)
    none: set[str] = set()

    def owners_of(path: str) -> tuple[str, ...]:
        return tuple(sorted(owners.get(path, none) | owners.get(real_paths.get(path, path), none)))

    return tuple(replace(file, owners=owners_of(file.path)) for file in files)


def _version(root: str, prefix: str, sites: Iterable[str]) -> tuple[int, int] | None:
    """Return the version in the paths if they agree, else that in pyvenv.cfg."""
    versions = {python_layout.version_in_path(site) for site in (root, *sites)} - {None}
    if len(versions) == 1:
        return versions.pop()
    config = python_layout.read_config(prefix)
    return python_layout.config_version(config) if config is not None else None


def _other_manager(prefix: str) -> tuple[str, ...]:
    if os.path.isdir(os.path.join(prefix, "conda-meta")):
        return (
            f"{shown(prefix)}: conda manages it; its own checksums (conda-meta) will not match patched files",
        )
    return ()


class DistSources(Mapping[str, bytes]):
    """The ``.py`` files of a dist, by path relative to the site directory.

    Each is read when it is asked for, and not kept.

    Attributes:
        digests: SHA-256 of each source that was read, as it was the first time.
        are_lost: one could not be read.

    """

    def __init__(self, dist: Dist) -> None:
        """Read nothing yet."""
        self.digests: dict[str, bytes] = {}
        self.are_lost = False
        below = dist.site.rstrip("/") + "/"
        self._paths = {
            path[len(below) :] if path.startswith(below) else os.path.relpath(path, dist.site): path
            for path in sorted(path for path in dist.files if path.endswith(".py"))
        }

    def __getitem__(self, name: str) -> bytes:
        """Return the contents.

        Raises:
            KeyError: there is no such file, or it cannot be read.
            MachineError: the disk fails, or the run may open no more files.

        """
        try:
            data = _source(self._paths[name])
        except OSError as error:
            if is_machine_error(error):
                text = f"{shown(self._paths[name])}: {reason(error)}: mend this and run nixpatch again"
                raise MachineError(text) from error
            self.are_lost = True
            raise KeyError(name) from error
        if name not in self.digests:
            self.digests[name] = hashlib.sha256(data).digest()
        return data

    def __iter__(self) -> Iterator[str]:
        """Yield the paths, sorted."""
        return iter(self._paths)

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the sources are, sorted."""
        return tuple(self._paths.values())

    def __len__(self) -> int:
        """Return the number of sources that RECORD lists."""
        return len(self._paths)


def _source(path: str) -> bytes:
    try:
        return read_regular(path, _MAX_SOURCE_SIZE)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        # uv --link-mode symlink makes each of them a link into its cache.
        return read_regular(os.path.realpath(path), _MAX_SOURCE_SIZE)


def python_sources(root: str) -> Iterator[tuple[str, bytes]]:
    """Yield path and contents of each ``.py`` file below ``root``, sorted by directory; follow no links."""
    left = _MAX_SOURCES
    for directory, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            if name.endswith(".py"):
                left -= 1
                if left < 0:
                    return
                path = os.path.join(directory, name)
                with contextlib.suppress(OSError):
                    yield path, read_regular(path, _MAX_SOURCE_SIZE)
