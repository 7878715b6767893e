"""The trees that a path means: itself, the tree that it is a part of, or every tree below it.

A tree begins in a directory that has ``pyvenv.cfg`` (PEP 405; virtualenv from version 20, uv),
``conda-meta``, ``lib/pythonX.Y/site-packages`` (a prefix, an older virtualenv), or dists themselves
(``pip install --target``, PEP 582). ``root_kind`` decides from a listing; the rest of this module lists.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from nixpatch.errors import RequestError
from nixpatch.installed import python_layout
from nixpatch.installed.system_trees import is_system_directory
from nixpatch.model import Tree, TreeKind

_MAX_DEPTH = 12
"""directories below the path; hatch's environments are six below ~/.local/share"""
_MAX_DIRECTORIES = 100_000
"""about a second on a warm disk"""

# Histories, caches and packages of other languages: large, and no environment is in them.
_NOT_SEARCHED = frozenset(
    [
        *("__pycache__", ".git", ".hg", ".svn", ".jj", "node_modules", "bower_components", ".npm", ".cargo"),
        *(".rustup", ".gradle", ".m2", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"),
        *(".terraform", ".yarn", ".pnpm-store", ".ccache"),
    ]
)
_CACHE_MARK = "CACHEDIR.TAG"
"""https://bford.info/cachedir/: uv's cache has unpacked wheels, which venvs are linked to, beside venvs"""
_CONDA = "conda-meta"
_NESTED = "envs"
"""environments in a prefix with an interpreter: conda's, and those of pyenv-virtualenv"""
_PACKAGES = "pkgs"
"""unpacked packages of conda; environments are linked to them"""
_LINKED = frozenset({".venv", "venv"})
"""names by which a project links to its venv elsewhere"""
_INFO = ".dist-info"


@dataclass(frozen=True, slots=True)
class Listing:
    """The names in one directory."""

    directories: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """All of them."""
        return self.directories | self.links | self.files


@dataclass(frozen=True, slots=True)
class Enclosure:
    """The tree that a path is in."""

    root: str
    """real path"""
    prefix: str
    kind: TreeKind


@dataclass(frozen=True, slots=True)
class TreeRoots:
    """The trees that a path means."""

    roots: tuple[str, ...]
    """paths for ``scan``, sorted; each begins with the path that was given"""
    is_above: bool = False
    """the path is no tree, but a directory above them"""
    unsearched: int = 0
    """directories that were not searched: there are too many, or they lie too deep"""


def find_roots(path: str, home: str | None = None) -> TreeRoots:
    """Return the trees that a path means.

    Links are not followed, but for a link with a usual name of a venv that leads to one. A path that does not
    exist, a file, a tree, a part of a tree, a directory of the system and a directory without trees below are
    returned as they are.

    Args:
        path: the path.
        home: the home directory, which is not searched either.

    """
    real = os.path.realpath(path) if "\0" not in path else path
    listing = _list(real)
    if listing is None or is_system_directory(real, home):
        return TreeRoots((path,))
    kind = root_kind(real, listing)
    if kind in {TreeKind.VENV, TreeKind.SITE_PACKAGES} or (kind is None and enclosing(real) is not None):
        return TreeRoots((path,))
    search = _Search(real)
    below = list(search.roots(listing, kind))
    if kind is not None:
        return TreeRoots((path, *(_joined(path, name) for name in below)), unsearched=search.unsearched)
    return TreeRoots(
        tuple(_joined(path, name) for name in below) or (path,), bool(below), unsearched=search.unsearched
    )


def root_kind(directory: str, listing: Listing) -> TreeKind | None:
    """Return the kind of the tree that begins in a directory, None if none does."""
    names = listing.names
    if python_layout.NAME in names and not names.isdisjoint({"bin", *python_layout.LIB}):
        return TreeKind.VENV
    if _CONDA in listing.directories or has_prefix(directory, listing):
        return TreeKind.PREFIX
    infos = (name for name in listing.directories if name.endswith(_INFO) and not name.startswith("~"))
    if any(os.path.lexists(os.path.join(directory, info, "RECORD")) for info in infos):
        return TreeKind.SITE_PACKAGES
    return None


def has_prefix(directory: str, listing: Listing) -> bool:
    """Return whether a directory is a prefix with an interpreter, or with dists in its site-packages."""
    if listing.names.isdisjoint(python_layout.LIB):
        return False
    sites = python_layout.site_directories(directory)
    return bool(sites) and (
        has_interpreter(directory) or any(python_layout.has_dist_info(site) for site in sites)
    )


def has_interpreter(prefix: str) -> bool:
    """Return whether ``bin`` of a prefix has a Python of its own."""
    return any(
        python_layout.is_python_name(name) for name in python_layout.listed(os.path.join(prefix, "bin"))
    )


def is_nested(root: str, kind: TreeKind) -> Callable[[str, frozenset[str]], bool]:
    """Return a function of a directory and the names in it: whether a tree of its own begins there.

    The answer for the directories of a tree is that of :func:`find_roots`, which finds any tree below a plain
    directory or a prefix without an interpreter, as the output of a build or ~/.local.
    """
    if kind in {TreeKind.VENV, TreeKind.SITE_PACKAGES} or has_interpreter(root):
        return _is_environment
    sites = tuple(f"{site}/" for site in python_layout.site_directories(root))
    return lambda directory, names: (
        _is_environment(directory, names)
        or (
            not f"{directory}/".startswith(sites)
            and (any(name.endswith(_INFO) for name in names) or not names.isdisjoint(python_layout.LIB))
            and root_kind(directory, _list(directory) or Listing()) is not None
        )
    )


def _is_environment(directory: str, names: frozenset[str]) -> bool:
    """Whether an environment with a Python of its own begins in a directory."""
    if python_layout.NAME in names:
        return not names.isdisjoint({"bin", *python_layout.LIB})
    return _CONDA in names or (
        "bin" in names
        and not names.isdisjoint(python_layout.LIB)
        and bool(python_layout.site_directories(directory))
        and has_interpreter(directory)
    )


def real_name(path: str) -> str:
    """Return the real path; of a link from a tree to a file in a cache the path of the link.

    ``uv pip install --link-mode symlink`` makes such links: they mean the file in the venv, not in the cache.
    """
    real = os.path.realpath(path)
    directory, name = os.path.split(os.path.abspath(path))
    if not os.path.islink(path) or not os.path.isfile(real) or python_layout.is_python_name(name):
        return real
    home, elsewhere = enclosing(os.path.realpath(directory)), enclosing(real)
    if home is None or (elsewhere is not None and elsewhere.kind is not TreeKind.SITE_PACKAGES):
        return real
    return real if real.startswith(f"{home.root}/") else os.path.join(os.path.realpath(directory), name)


def enclosing(path: str) -> Enclosure | None:
    """Return the tree that a path is in, or that it is; None if it is in none.

    A venv comes before a prefix, which comes before a site-packages or directory of dists. A prefix without
    an interpreter, as ~/.local, owns its scripts and libraries of Python only.
    """
    real = real_name(path)
    directory = real if os.path.isdir(real) else os.path.dirname(real)
    below: list[str] = []
    site: str | None = None
    while directory != "/":
        if python_layout.read_config(directory) is not None:
            return Enclosure(directory, directory, TreeKind.VENV)
        if _owns(directory, below):
            return Enclosure(directory, directory, TreeKind.PREFIX)
        if site is None and python_layout.has_dist_info(directory):
            site = directory
        directory, name = os.path.split(directory)
        below.insert(0, name)
    if site is None:
        return None
    return Enclosure(site, python_layout.prefix_of_site(site) or site, TreeKind.SITE_PACKAGES)


def root_of(path: str) -> str:
    """Return the real path of the tree that a path is, or is a part of; of the path itself if in none."""
    enclosure = enclosing(path) if "\0" not in path else None
    return os.path.realpath(path) if enclosure is None else enclosure.prefix


def tree_of_file(path: str) -> Tree | None:
    """Return the tree that a file is in, without files and dists, for ``find_target``; None if in none."""
    enclosure = enclosing(path)
    if enclosure is None:
        return None
    version = python_layout.version_in_path(os.path.dirname(os.path.realpath(path)))
    version = version or python_layout.only_version(enclosure.prefix)
    return Tree(enclosure.root, enclosure.prefix, enclosure.kind, (), python_version=version)


def default_tree(environ: Mapping[str, str], directory: str = ".") -> str:
    """Return the tree that a command without a path means: the active venv, else ``./.venv``.

    Raises:
        RequestError: there is none.

    """
    active = environ.get("VIRTUAL_ENV")
    if active:
        if python_layout.read_config(active) is None:
            raise RequestError(
                f"VIRTUAL_ENV {active}: no venv (no {python_layout.NAME}): activate another or name a tree"
            )
        return active
    venv = os.path.abspath(os.path.join(directory, ".venv"))
    if python_layout.read_config(venv) is not None:
        return venv
    conda = environ.get("CONDA_PREFIX")
    if conda and os.path.isdir(os.path.join(conda, _CONDA)):
        return conda
    names = sorted(python_layout.listed(directory))
    others = [name for name in names if python_layout.read_config(os.path.join(directory, name)) is not None]
    advice = "name the one here: nixpatch" if others else "name a tree: nixpatch PATH, or see nixpatch --help"
    advice = " ".join([advice, *others[:1]])
    raise RequestError(f"no active venv (VIRTUAL_ENV) and no ./.venv: {advice}")


class _Search:
    """A search below one directory, breadth first, so that a limit leaves out what lies deepest."""

    def __init__(self, top: str) -> None:
        self._top = top
        self._linked: dict[str, str] = {}
        self.unsearched = 0

    def roots(self, listing: Listing, kind: TreeKind | None) -> Iterator[str]:
        """Yield the trees below the top, sorted, by paths relative to it."""
        names: list[str] = []
        pending = deque((name, 1, _CACHE_MARK in listing.files) for name in self._below("", listing, kind))
        count = 0
        while pending:
            name, depth, in_cache = pending.popleft()
            count += 1
            if depth > _MAX_DEPTH or count > _MAX_DIRECTORIES:
                self.unsearched += 1
                continue
            directory = os.path.join(self._top, name)
            entries = _list(directory)
            if entries is None:
                continue
            kind = root_kind(directory, entries)
            if kind is not None and (kind is TreeKind.VENV or not in_cache):
                names.append(name)
            if kind in {None, TreeKind.PREFIX}:
                in_cache = in_cache or _CACHE_MARK in entries.files
                pending += ((child, depth + 1, in_cache) for child in self._below(name, entries, kind))
        for name in names:
            self._linked.pop(os.path.join(self._top, name), None)
        yield from sorted((*names, *self._linked.values()))

    def _below(self, name: str, listing: Listing, kind: TreeKind | None) -> Iterator[str]:
        """Yield the directories to search in one that was listed; remember the venvs that it links to."""
        for link in sorted(listing.links & _LINKED):
            target = os.path.realpath(os.path.join(self._top, name, link))
            if python_layout.read_config(target) is not None:
                self._linked.setdefault(target, os.path.join(name, link))
        names = listing.directories - _NOT_SEARCHED
        if name and os.path.basename(name) == _PACKAGES and listing.files & {"urls", "urls.txt"}:
            return
        if kind is TreeKind.PREFIX:
            if _CONDA in names or has_interpreter(os.path.join(self._top, name)):
                names &= {_NESTED}
            else:
                sites = python_layout.site_directories(os.path.join(self._top, name))
                names -= {"bin", "include", *map(os.path.basename, sites)}
        if os.path.basename(name) in python_layout.LIB:
            names -= {child for child in names if python_layout.is_python_name(child)}
        yield from (os.path.join(name, child) for child in sorted(names))


def _owns(prefix: str, below: list[str]) -> bool:
    """Whether a directory is a prefix that a path below it is a part of."""
    if below and below[0] in {_NESTED, _PACKAGES}:
        return False
    if os.path.isdir(os.path.join(prefix, _CONDA)):
        return True
    if not python_layout.site_directories(prefix):
        return False
    # /usr is a prefix, too, and hardly anything below it is of Python.
    return _in_scheme(below) or (has_interpreter(prefix) and not is_system_directory(prefix, None))


def _in_scheme(below: list[str]) -> bool:
    """Whether names below a prefix lead to what Python installs there: its scripts and its libraries."""
    if not below or below[0] == "bin":
        return True
    return len(below) > 1 and below[0] in python_layout.LIB and python_layout.is_python_name(below[1])


def _list(directory: str) -> Listing | None:
    """Return the names in a directory, None if it cannot be listed or is none."""
    directories, links, files = set(), set(), set()
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_symlink():
                    links.add(entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    directories.add(entry.name)
                else:
                    files.add(entry.name)
    except (OSError, ValueError):
        return None
    return Listing(frozenset(directories), frozenset(links), frozenset(files))


def _joined(path: str, name: str) -> str:
    return os.path.normpath(os.path.join(path, name))
