"""What is installed under a path: its kind, its ELF files, its dists, and who owns which file."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

from nixpatch.errors import MachineError, RequestError
from nixpatch.escape import of_the_machine, shown, why
from nixpatch.fs import is_temporary
from nixpatch.installed import python_layout
from nixpatch.installed.dists import find_dists
from nixpatch.installed.elf_files import Candidate, Found, inspect, walk
from nixpatch.model import Dist, Tree, TreeFile, TreeKind


def scan(path: str) -> Tree:
    """Read a tree. Nothing is executed, and no file's contents but METADATA and RECORD are kept.

    ``path`` may be relative and may be a link; it names a venv, a prefix, a site-packages, any directory
    with ELF files, or one ELF file.

    Raises:
        RequestError: it does not exist, cannot be read, or holds neither dists nor ELF files.
        MachineError: a disk fails, or the run may open no more files.

    """
    try:
        root = os.path.realpath(path)
        mode = os.stat(root).st_mode
        if not stat.S_ISDIR(mode):
            return _single(path, root, mode)
        kind, prefix, sites = _kind(root)
        found = walk(root)
        dists, notes = _dists(sites, prefix)
        candidates, outside = _all_candidates(found, dists, root, prefix)
    except (OSError, ValueError) as error:
        if of_the_machine(error):
            name = shown(str(getattr(error, "filename", None) or path))
            raise MachineError(f"{name}: {why(error)}: mend this and run nixpatch again") from error
        raise RequestError(f"{shown(path)} cannot be read: {why(error)}") from error
    if kind is TreeKind.PLAIN and not candidates:
        raise RequestError(
            f"nothing to do in {shown(path)}: it holds no ELF file and no *.dist-info;"
            " name a site-packages, a venv, a prefix that has lib/pythonX.Y/site-packages, or one ELF file"
        )
    return Tree(
        root=root,
        prefix=prefix,
        kind=kind,
        files=_with_owners(candidates, dists),
        dists=dists,
        python_version=_version(root, prefix, sites),
        notes=(*notes, *_other_manager(prefix), *found.notes, *outside),
        leftovers=(*found.leftovers, *_strays(dists, root, prefix)),
    )


def _kind(root: str) -> tuple[TreeKind, str, tuple[str, ...]]:
    """Return the kind, the prefix, and the directories in which dists are looked for."""
    sites = python_layout.site_directories(root)
    if python_layout.read_config(root) is not None:
        return TreeKind.VENV, root, sites
    if sites:
        return TreeKind.PREFIX, root, sites
    prefix = python_layout.prefix_of_site(root)
    if prefix is not None or python_layout.has_dist_info(root):
        return TreeKind.SITE_PACKAGES, prefix or root, (root,)
    return TreeKind.PLAIN, root, ()


def _single(path: str, real: str, mode: int) -> Tree:
    """Return a tree of one file. Its neighbours are none of it."""
    found = inspect(real) if stat.S_ISREG(mode) else None
    if found is None:
        raise RequestError(f"{shown(path)} is neither a directory nor an ELF file")
    root = os.path.dirname(real)
    return Tree(
        root,
        root,
        TreeKind.PLAIN,
        _with_owners([found], ()),
        python_version=python_layout.version_in_path(root),
    )


def _dists(sites: Iterable[str], prefix: str) -> tuple[tuple[Dist, ...], tuple[str, ...]]:
    found = [find_dists(site, prefix) for site in sites]
    dists = sorted((dist for some, _ in found for dist in some), key=lambda dist: dist.info)
    return tuple(dists), tuple(note for _, notes in found for note in notes)


def _all_candidates(
    found: Found, dists: Iterable[Dist], root: str, prefix: str
) -> tuple[Iterable[Candidate], list[str]]:
    """Return those of the walk and the rows that lie elsewhere in the prefix (``bin/ruff``), with notes."""
    if root == prefix:
        return found.candidates, []
    candidates = {candidate.path: candidate for candidate in found.candidates}
    notes = []
    below = root.rstrip("/") + "/"
    for path in sorted({path for dist in dists for path in dist.files if not path.startswith(below)}):
        try:
            candidate = inspect(path)
        except OSError as error:
            if of_the_machine(error):
                raise
            notes.append(f"{shown(path)}: not read: {why(error)}")
            continue
        if candidate is not None:
            candidates[path] = candidate
    return [candidates[path] for path in sorted(candidates)], notes


def _strays(dists: Iterable[Dist], root: str, prefix: str) -> list[str]:
    """Return the temp files that a killed run left beside rows outside the tree (``bin/ruff``)."""
    if root == prefix:
        return []
    below = root.rstrip("/") + "/"
    outside = {path for dist in dists for path in dist.files if not path.startswith(below)}
    found = []
    for directory in sorted({os.path.dirname(path) for path in outside}):
        with contextlib.suppress(OSError):
            found += [os.path.join(directory, name) for name in os.listdir(directory) if is_temporary(name)]
    return sorted(found)


def _with_owners(candidates: Iterable[Candidate], dists: Iterable[Dist]) -> tuple[TreeFile, ...]:
    """Two dists may list one file: both own it, and both RECORDs will change (PEP 376 forbids it nowhere)."""
    candidates = tuple(candidates)
    paths = {candidate.path for candidate in candidates}
    owners: dict[str, list[str]] = {}
    for dist in dists:
        for path in paths & dist.files:
            owners.setdefault(path, []).append(dist.info)
    return tuple(
        TreeFile(
            item.path,
            item.size,
            item.mode,
            item.links,
            tuple(sorted(owners.get(item.path, ()))),
            item.identity,
        )
        for item in candidates
    )


def _version(root: str, prefix: str, sites: Iterable[str]) -> tuple[int, int] | None:
    """Return what the paths say where they agree, else what pyvenv.cfg says."""
    said = {
        version for site in (root, *sites) if (version := python_layout.version_in_path(site)) is not None
    }
    if len(said) == 1:
        return said.pop()
    config = python_layout.read_config(prefix)
    return python_layout.config_version(config) if config is not None else None


def _other_manager(prefix: str) -> tuple[str, ...]:
    if os.path.isdir(os.path.join(prefix, "conda-meta")):
        return (
            f"{shown(prefix)}: conda manages it; its own checksums (conda-meta) will not match patched files",
        )
    return ()
