"""Where a Python looks for modules, read from its files: ``sys.path`` as the site module makes it.

The order is that of CPython: the standard library, then the site directories with what their ``.pth`` files
name. What the environment adds (PYTHONPATH, user site) depends on who runs it, and is not in here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from nixpatch.errors import RequestError
from nixpatch.fs import read_regular
from nixpatch.installed import python_layout
from nixpatch.model import Target, Tree, TreeKind

_MAX_PTH = 1 << 16  # bytes; the largest that installers write name a few directories


@dataclass(frozen=True, slots=True)
class Place:
    """A directory on the path."""

    directory: str
    what: str
    """how reports name it"""


def site_of(tree: Tree) -> str:
    """Return the site directory of a tree in which a module for all of its Python goes.

    Raises:
        RequestError: it has none, or several.

    """
    if tree.kind is TreeKind.SITE_PACKAGES:
        return tree.root
    sites = python_layout.site_directories(tree.root) if tree.kind is not TreeKind.PLAIN else ()
    if len(sites) != 1:
        what = "has no site-packages" if not sites else f"has {len(sites)} of them: name one"
        raise RequestError(f"{tree.root}: {what}; this is for a venv, a prefix, or a site-packages")
    return sites[0]


def module_path(tree: Tree, target: Target) -> tuple[Place, ...]:
    """Return the places in the order in which the target looks for a module."""
    site = site_of(tree)
    config = python_layout.read_config(tree.prefix)
    base = _base(config.get("home", "") if config is not None else "", target)
    places = [Place(path, "the standard library") for path in _libraries(base, target.version)]
    places += _with_pth(site, "site-packages of the tree")
    # A prefix that is no venv is the base itself, or is added to it by PYTHONPATH.
    if config is None or config.get("include-system-site-packages", "").lower() == "true":
        local = "/usr/local" if base == "/usr" else base  # Debian's pip installs there
        for prefix in dict.fromkeys((local, base)):
            for directory in python_layout.site_directories(prefix):
                # Debian's lib/python3 is for every version, another version's directory for none of ours.
                if python_layout.version_in_path(directory) in (target.version, None):
                    places += _with_pth(directory, "site-packages of the base Python")
    unique: dict[str, Place] = {}
    for place in places:
        unique.setdefault(os.path.realpath(place.directory), place)
    return tuple(unique.values())


def _base(home: str, target: Target) -> str:
    """Return the prefix of the standard library: above a venv's ``home`` (PEP 405), else the Python's."""
    above = os.path.dirname(home.rstrip("/")) if os.path.isabs(home) else ""
    if above and any(_libraries(above, target.version)):
        return above
    return os.path.dirname(os.path.dirname(target.python))


def _libraries(prefix: str, version: tuple[int, int] | None) -> Iterator[str]:
    """Yield the directories of the standard library; ``os.py`` is the landmark that CPython looks for."""
    if version is None:
        return
    for lib in ("lib", "lib64"):
        for suffix in ("", "t"):
            path = os.path.join(prefix, lib, f"python{version[0]}.{version[1]}{suffix}")
            if os.path.isfile(os.path.join(path, "os.py")):
                yield path
                yield os.path.join(path, "lib-dynload")


def _with_pth(site: str, what: str) -> Iterator[Place]:
    """Yield a site directory and the directories that its ``.pth`` files name (site module)."""
    yield Place(site, what)
    try:
        names = sorted(name for name in os.listdir(site) if name.endswith(".pth"))
    except OSError:
        return
    for name in names:
        try:
            lines = os.fsdecode(read_regular(os.path.join(site, name), _MAX_PTH)).splitlines()
        except OSError:
            continue
        for line in lines:
            # A line that begins with import is run at start-up; what it does is not told here.
            if line.strip() and not line.startswith(("#", "import ", "import\t")) and "\0" not in line:
                directory = os.path.normpath(os.path.join(site, line.rstrip()))
                if os.path.isdir(directory):
                    yield Place(directory, f"named by {name}")
