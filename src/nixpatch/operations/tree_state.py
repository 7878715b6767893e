"""Remember a tree in which a run found nothing to do: the next run need not look at its contents again.

What is kept names everything that the plan depended on: the state of each file of the tree and of each file
outside that was read, the places where there was none, the store, the options, and nixpatch itself. A state
is inode, size and time stamps; st_ctime cannot be set back by any call. As in git's index, a file that
changed less than two seconds ago may change again without another time stamp: then nothing is kept
(https://git-scm.com/docs/racy-git).
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import nixpatch
from nixpatch.installed.tree_roots import root_of
from nixpatch.model import Outcome, Tree
from nixpatch.operations import kept_files
from nixpatch.operations.patch_options import PatchOptions, texts_of
from nixpatch.operations.request import PatchRequest
from nixpatch.resolve.search_path import inside
from nixpatch.store import gc_roots
from nixpatch.store.cache import settled, stamp_of
from nixpatch.store.nix_store import Store, is_sealed
from nixpatch.store_paths import store_paths_of
from nixpatch.version import __version__

_KIND = "trees"
_ABSENT = ""
_NO_STORE = Store("", "")


_Stamp = tuple[int, ...]
"""Device, inode number and st_ctime_ns of a file: compared for equality, never with a clock. The inode number
alone is not enough: a file system reuses the number of a removed file, and uv removes a dist before it
installs the same version again."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The installed dists of a tree, with stamps that change when a dist is installed again."""

    dists: Mapping[str, _Stamp] = field(default_factory=dict)
    """``.dist-info`` -> stamp of its RECORD, which every installer writes anew; () without a RECORD"""
    loose: Mapping[str, _Stamp] = field(default_factory=dict)
    """ELF files that no dist claims"""


def snapshot_of(tree: Tree) -> Snapshot:
    """Return the state of the dists and files of a tree."""
    return Snapshot(
        {dist.info: _stamp(os.path.join(dist.info, "RECORD"), "st_ctime_ns") for dist in tree.dists},
        # No st_ctime_ns: the inode of such a file may be shared, and every link to it changes the time.
        {file.path: _stamp(file.path, "st_size", "st_mtime_ns") for file in tree.files if not file.owners},
    )


def _stamp(path: str, *fields: str) -> _Stamp:
    try:
        status = os.lstat(path)
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, *(getattr(status, field) for field in fields))


@dataclass(frozen=True, slots=True)
class KnownTree:
    """A tree in which nothing has changed since a run had nothing to do."""

    printed: Printed
    snapshot: Snapshot
    """what was installed"""
    digest: str
    """over the states of all files"""


@dataclass(frozen=True, slots=True)
class Printed:
    """What a run printed of a tree, to be printed again."""

    lines: tuple[tuple[str, str], ...]
    """with their style"""
    quiet_lines: tuple[tuple[str, str], ...]
    """the same with ``--quiet``"""
    satisfied: bool
    """whether nothing is missing and nothing is wrong"""


def recall(request: PatchRequest, options: PatchOptions) -> KnownTree | None:
    """Return a tree if nothing has changed since a run had nothing to do; None if a run has to look."""
    path = _file(request)
    if path is None:
        return None
    try:
        known = kept_files.read(path)
        prefix = root_of(request.path)
        if known["directory"] not in {None, os.getcwd()}:
            return None
        if known["key"] != _key(request, options) or known["outside"] != _outside(known["outside"]):
            return None
        if known["tree"] != _tree_digest(prefix, request.store.real):
            return None
        rooted = options.gc_roots and gc_roots.wanted(request.store, prefix)
        if rooted and gc_roots.missing(request.store, prefix, known["used"]):
            return None
        lines, quiet_lines = (tuple((text, style) for text, style in part) for part in known["lines"])
        # It can be printed.
        "".join(text + style for text, style in (*lines, *quiet_lines)).encode("utf-8", "surrogateescape")
        dists, loose = ({path: tuple(stamp) for path, stamp in part.items()} for part in known["installed"])
        printed = Printed(lines, quiet_lines, known["directory"] is None)
        return KnownTree(printed, Snapshot(dists, loose), known["tree"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_unchanged(request: PatchRequest, known: KnownTree) -> bool:
    """Whether no file of a tree has changed since it was recalled."""
    try:
        return _tree_digest(root_of(request.path), request.store.real) == known.digest
    except OSError:
        return False


def remember(
    request: PatchRequest,
    options: PatchOptions,
    outcome: Outcome,
    used: Collection[str],
    printed: Printed,
    begun: int,
) -> None:
    """Keep what a run printed of a tree, if a run on the tree as it is now would print the same.

    The caller has made sure that the run had nothing to do. Never fails.

    Args:
        request: of the run.
        options: of the run.
        outcome: of the run.
        used: the store paths that need roots.
        printed: what it printed.
        begun: its beginning, in nanoseconds since the epoch: what changed since, it may have read before.

    """
    path = _file(request)
    if path is None:
        return
    plan = outcome.plan
    store = request.store.directory.rstrip("/") + "/"
    outside = {store, *(path for path in plan.read_paths if not inside(path, plan.tree.prefix))}
    outside.update(filter(None, (request.project, request.locked, *texts_of(options.policy))))
    stamps = _outside(outside, begun)
    installed = snapshot_of(plan.tree)
    digest = _tree_digest(plan.tree.prefix, request.store.real, begun)
    key = _key(request, options)
    if stamps is None or digest is None or key is None:
        return
    try:
        directory = os.getcwd()
    except OSError:  # it is gone
        return
    known = {
        "key": key,
        "outside": stamps,
        "tree": digest,
        "used": sorted(used),
        "lines": [printed.lines, printed.quiet_lines],
        "installed": [dict(installed.dists), dict(installed.loose)],
        # Advice on what is missing names paths as they are seen from the current directory.
        "directory": None if printed.satisfied else directory,
    }
    kept_files.write(path, known)


def _file(request: PatchRequest) -> str | None:
    """Return the file for a tree; None where nothing may be kept, or more decides than is noted."""
    given = (*request.libs, *request.closures)
    in_store = all(store_paths_of([path], request.store.directory) for path in given)
    if request.cache is None or request.in_nix_build or not in_store or request.nixpkgs is not None:
        return None
    return kept_files.path_of(request.cache, _KIND, request.path)


def _key(request: PatchRequest, options: PatchOptions) -> str | None:
    """Return a digest of what was asked for, and of the program that was asked; None if it is not settled."""
    program = _tree_digest(os.path.dirname(nixpatch.__file__), request.store.real)
    if program is None:
        return None
    store = request.store
    lists = (request.append, request.libs, request.closures, options.policy)
    named = any((request.python, request.locked, *lists))
    asked = (
        _plain(dataclasses.replace(request, path=os.path.realpath(request.path), store=_NO_STORE)),
        (store.directory, store.real, store.program, store.state, store.denied),
        _plain(options),
        os.getcwd() if named else "",  # names may be relative
        __version__,
        program,
    )
    return hashlib.sha256(repr(asked).encode("utf-8", "surrogateescape")).hexdigest()


def _plain(value: Any) -> Any:
    """Return a value whose ``repr`` is the same in every process: sets have no order of their own."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, _plain(getattr(value, field.name))) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return sorted((repr(key), _plain(item)) for key, item in value.items())
    if isinstance(value, frozenset | set):
        return sorted(map(repr, map(_plain, value)))
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, enum.Enum) else value


def _outside(paths: Iterable[str], begun: int | None = None) -> dict[str, str] | None:
    """Return the states of files outside the tree; None if one is not settled.

    After a run the directory that lacks one must be settled, too: the file may have been there.
    """
    stamps = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            stamps[path] = _ABSENT
            if begun is not None and not settled(os.stat(_existing(path)), begun):
                return None
            continue
        if not settled(status, begun):
            return None
        stamps[path] = stamp_of(status).hex()
    return stamps


def _existing(path: str) -> str:
    """Return the nearest directory above a path that exists."""
    while path not in {"/", ""} and not os.path.isdir(path):
        path = os.path.dirname(path)
    return path or "/"


def _tree_digest(prefix: str, store: str, begun: int | None = None) -> str | None:
    """Return a digest of the names and states of all files of a tree.

    None if one is not settled, or if a link leads to a directory whose contents are not looked at here:
    outside of the tree, and not in a store path that Nix has sealed. After a run the directories must be
    settled, too: what is moved in or out keeps its own time stamps. Byte code that Python writes beside its
    sources is left out.
    """
    digest = hashlib.blake2b(digest_size=32)
    pending = [prefix]
    while pending:
        directory = pending.pop()
        is_cache = directory.endswith("/__pycache__")
        if begun is not None and not is_cache and not settled(os.lstat(directory), begun):
            return None
        with os.scandir(directory) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
        for entry in entries:
            if is_cache and entry.name.endswith(".pyc"):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
                digest.update(b"d" + os.fsencode(entry.path) + b"\0")
                continue
            status = entry.stat(follow_symlinks=False)
            if not settled(status, begun):
                return None
            digest.update(os.fsencode(entry.path) + b"\0%o" % status.st_mode + stamp_of(status))
            if not stat.S_ISLNK(status.st_mode):
                continue
            digest.update(os.fsencode(os.readlink(entry.path)) + b"\0")
            with contextlib.suppress(OSError):
                led = os.stat(entry.path)
                real = os.path.realpath(entry.path)
                is_directory = stat.S_ISDIR(led.st_mode)
                if is_directory and not (inside(real, prefix) or (inside(real, store) and is_sealed(led))):
                    return None
                if not is_directory and not settled(led, begun):
                    return None
                digest.update(os.fsencode(real) + b"\0" + stamp_of(led))
    return digest.hexdigest()
