"""Trees made of links: the files behind the links of a tree.

``withPackages`` of nixpkgs and ``mkVirtualEnv`` of pyproject.nix link whole directories of other store paths;
``uv pip install --link-mode symlink`` links each file to one in uv's cache.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from nixpatch.escape import shown
from nixpatch.installed import python_layout
from nixpatch.installed.elf_files import WalkResult, inspect, walk
from nixpatch.model import TreeFile
from nixpatch.store_paths import package_of_entry

_MAX_DIRECTORIES = 100_000


@dataclass(slots=True)
class FilesBehindLinks:
    """The ELF files behind the links of a tree."""

    files: dict[str, TreeFile] = field(default_factory=dict)
    """by path: of a file in a linked directory its real path, else that of the link, where ld.so opens it"""
    real_paths: dict[str, str] = field(default_factory=dict)
    """of the files that are links themselves"""
    prefixes: set[str] = field(default_factory=set)
    """the store paths that links lead into"""
    directories: set[str] = field(default_factory=set)
    """the directories outside the store that hold linked files"""
    notes: list[str] = field(default_factory=list)

    def note(self) -> str:
        """Return which places were read through links."""
        store_names = sorted(package_of_entry(os.path.basename(path)) or path for path in self.prefixes)
        # A cache has a directory for each dist: their common one says enough.
        common = os.path.commonpath(self.directories) if self.directories else ""
        places = [*store_names, *([common] if common.count("/") > 1 else sorted(self.directories))]
        files = f"{len(self.files)} ELF file{'' if len(self.files) == 1 else 's'}"
        named = ", ".join(map(shown, places[:8])) + (f" and {len(places) - 8} more" if places[8:] else "")
        return f"made of links: {files} read where they lead, in {named}"


def follow_links(root: str, walked: WalkResult, sites: Sequence[str], store_dir: str) -> FilesBehindLinks:
    """Return the ELF files behind the links that lead out of a tree.

    A directory is entered if it is in the store, or if the link is an entry of a site directory; those of
    the Python that the tree is based on are not. Links in entered directories are followed as well.

    Args:
        root: the real path of the tree.
        walked: the result of a walk over it.
        sites: its site directories.
        store_dir: the directory of the store.

    """
    linked = FilesBehindLinks()
    base = _base_pythons(root, sites)
    entered = {root}
    pending = [*walked.links, *(site for site in sites if not _inside(site, (root,)))]
    while pending and len(entered) < _MAX_DIRECTORIES:
        link = pending.pop()
        real = os.path.realpath(link)
        if _inside(real, base) or _inside(real, entered):
            continue
        in_store = real != store_dir and _inside(real, (store_dir,))
        if not os.path.isdir(real):
            file = inspect(real)
            if file is None:
                continue
            _add_file(linked, link, file, in_store=in_store)
        elif in_store or link in sites or os.path.dirname(link) in sites:
            entered.add(real)
            pending += _add_directory(linked, real)
        else:
            continue
        if in_store:
            linked.prefixes.add(_store_path(real, store_dir))
        else:
            linked.directories.add(real if os.path.isdir(real) else os.path.dirname(real))
    return linked


def sites_elsewhere(prefix: str, store_dir: str) -> tuple[str, ...]:
    """Return the real paths of site directories with ELF files that a prefix has by a link out of it.

    Those in the store are left out: they are the output of another build.
    """
    sites = set(python_layout.site_directories(prefix, with_links=True))
    return tuple(
        site
        for site in sorted(sites - set(python_layout.site_directories(prefix)))
        if not _inside(site, (store_dir,)) and walk(site).files
    )


def owned_links(
    links: Iterable[str], owned: Collection[str], prefix: str, store_dir: str
) -> Iterator[tuple[str, TreeFile]]:
    """Yield the ELF files that dists own and that are links to files outside the tree and the store, by path.

    Args:
        links: the links of the tree.
        owned: the files that its RECORDs list.
        prefix: the prefix of the tree.
        store_dir: the directory of the store.

    """
    for link in links:
        if link not in owned:
            continue
        real = cached_file(link, prefix, store_dir)
        if real is not None and (file := inspect(real)) is not None:
            yield link, replace(file, path=link, link=os.readlink(link))


def cached_file(link: str, prefix: str, store_dir: str) -> str | None:
    """Return the file in a cache that a link of a tree leads to; None if it is something else.

    It has to belong to the owner of the link or be readable by all: a copy in the tree shows its contents.
    """
    real = os.path.realpath(link)
    try:
        status, of_link = os.lstat(real), os.lstat(link)
    except OSError:
        return None
    if _inside(real, (prefix, store_dir)) or not stat.S_ISREG(status.st_mode):
        return None
    return real if status.st_uid == of_link.st_uid or status.st_mode & stat.S_IROTH else None


def _add_file(linked: FilesBehindLinks, link: str, file: TreeFile, *, in_store: bool) -> None:
    # $ORIGIN is the directory of the link for a library, that of the file behind it for a program (ld.so(8)).
    if in_store and os.path.basename(os.path.dirname(link)) == "bin":
        linked.files[file.path] = file
        return
    linked.files[link] = replace(file, path=link)
    linked.real_paths[link] = file.path


def _add_directory(linked: FilesBehindLinks, real: str) -> tuple[str, ...]:
    """Add the ELF files of a directory; return the links in it."""
    try:
        below = walk(real)
    except OSError as error:
        linked.notes.append(f"{shown(real)}: not searched: {error.strerror}")
        return ()
    linked.files.update((file.path, file) for file in below.files)
    linked.notes += below.notes
    return below.links


def _base_pythons(root: str, sites: Iterable[str]) -> set[str]:
    """Return the prefixes of the Python that a venv or an environment of links is made for."""
    config = python_layout.read_config(root) or {}
    candidates = [os.path.join(root, "bin", name) for name in ("python", "python3")]
    candidates += [os.path.join(config["home"], "python3")] if config.get("home", "").startswith("/") else []
    prefixes = {os.path.dirname(os.path.dirname(os.path.realpath(path))) for path in candidates}
    for site in sites:  # PREFIX/lib/python3.11/os.py
        library = os.path.realpath(os.path.join(os.path.dirname(site), "os.py"))
        if os.path.isfile(library):
            prefixes.add(os.path.dirname(os.path.dirname(os.path.dirname(library))))
    return {prefix for prefix in prefixes if not _inside(prefix, (root,)) and not _inside(root, (prefix,))}


def _store_path(path: str, store_dir: str) -> str:
    return os.path.join(store_dir, path[len(store_dir) :].lstrip("/").split("/")[0])


def _inside(path: str, directories: Iterable[str]) -> bool:
    return any(path == directory or path.startswith(directory.rstrip("/") + "/") for directory in directories)
