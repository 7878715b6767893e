"""``sys.path`` of a Python, read from its files, as the site module makes it.

The order is that of CPython: the standard library, then the site directories, each with the directories that
its ``.pth`` files name. PYTHONPATH and the user site depend on the caller, and are left out.
https://docs.python.org/3/library/site.html
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from nixpatch.errors import RequestError
from nixpatch.fs import read_regular
from nixpatch.installed import python_layout
from nixpatch.model import Target, Tree, TreeKind

_MAX_PTH = 1 << 16  # bytes; those that installers write name a few directories


@dataclass(frozen=True, slots=True)
class SysPathEntry:
    """A directory on ``sys.path``."""

    directory: str
    label: str
    """its description in reports"""


def site_of(tree: Tree) -> str:
    """Return the site directory that a module for the whole tree goes into.

    Raises:
        RequestError: the tree has none, or several.

    """
    if tree.kind is TreeKind.SITE_PACKAGES:
        return tree.root
    sites = python_layout.site_directories(tree.root) if tree.kind is not TreeKind.PLAIN else ()
    if len(sites) != 1:
        what = "has no site-packages" if not sites else f"has {len(sites)} of them: name one"
        raise RequestError(f"{tree.root}: {what}; this is for a venv, a prefix, or a site-packages")
    return sites[0]


def sys_path(tree: Tree, target: Target) -> tuple[SysPathEntry, ...]:
    """Return the entries in the order in which the target searches them for a module."""
    site = site_of(tree)
    config = python_layout.read_config(tree.prefix)
    base = _base(config.get("home", "") if config is not None else "", target)
    entries = [SysPathEntry(path, "the standard library") for path in _libraries(base, target.version)]
    entries += _with_pth(site, "site-packages of the tree")
    # A prefix that is not a venv is the base itself, or PYTHONPATH adds it to the base.
    if config is None or config.get("include-system-site-packages", "").lower() == "true":
        local = "/usr/local" if base == "/usr" else base  # Debian's pip installs there
        for prefix in dict.fromkeys((local, base)):
            for directory in python_layout.site_directories(prefix):
                # Debian's lib/python3 serves every version; directories of other versions are left out.
                if python_layout.version_in_path(directory) in (target.version, None):
                    entries += _with_pth(directory, "site-packages of the base Python")
    unique: dict[str, SysPathEntry] = {}
    for entry in entries:
        unique.setdefault(os.path.realpath(entry.directory), entry)
    return tuple(unique.values())


def extension_modules(target: Target) -> tuple[str, ...]:
    """Return the extension modules of the target's standard library, sorted by directory and name."""
    modules: list[str] = []
    for directory in module_directories(target):
        with contextlib.suppress(OSError):
            names = sorted(name for name in os.listdir(directory) if name.endswith(".so"))
            modules += (os.path.join(directory, name) for name in names)
    return tuple(modules)


def module_directories(target: Target) -> tuple[str, ...]:
    """Return the directories of the extension modules of the target's standard library."""
    libraries = _libraries(os.path.dirname(os.path.dirname(target.python)), target.version)
    return tuple(path for path in libraries if os.path.basename(path) == "lib-dynload")


def _base(home: str, target: Target) -> str:
    """Return the prefix of the standard library: that of a venv's ``home`` (PEP 405), else of the target."""
    above = os.path.dirname(home.rstrip("/")) if os.path.isabs(home) else ""
    if above and any(_libraries(above, target.version)):
        return above
    return os.path.dirname(os.path.dirname(target.python))


def _libraries(prefix: str, version: tuple[int, int] | None) -> Iterator[str]:
    """Yield the directories of the standard library; ``os.py`` is the landmark of CPython (getpath)."""
    if version is None:
        return
    for lib in ("lib", "lib64"):
        for suffix in ("", "t"):
            path = os.path.join(prefix, lib, f"python{version[0]}.{version[1]}{suffix}")
            if os.path.isfile(os.path.join(path, "os.py")):
                yield path
                yield os.path.join(path, "lib-dynload")


def _with_pth(site: str, label: str) -> Iterator[SysPathEntry]:
    """Yield a site directory and the directories that its ``.pth`` files name (site module)."""
    yield SysPathEntry(site, label)
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
            # A line that begins with import is executed at start-up; its effect is unknown here.
            if line.strip() and not line.startswith(("#", "import ", "import\t")) and "\0" not in line:
                directory = os.path.normpath(os.path.join(site, line.rstrip()))
                if os.path.isdir(directory):
                    yield SysPathEntry(directory, f"named by {name}")
