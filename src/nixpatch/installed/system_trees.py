"""Directories that are hardly ever meant: the system's, homes, externally managed Pythons (PEP 668)."""

from __future__ import annotations

import os
from collections.abc import Callable

from nixpatch.fs import read_head
from nixpatch.installed.python_layout import is_python_name, listed, site_directories
from nixpatch.model import Tree, TreeKind

# hier(7) and the Filesystem Hierarchy Standard 3.0: directories that hold programs and libraries.
_SYSTEM = frozenset(
    {"/", "/bin", "/boot", "/etc", "/home", "/lib", "/lib32", "/lib64", "/nix", "/nix/store", "/opt", "/root"}
    | {
        "/run",
        "/sbin",
        "/srv",
        "/usr",
        "/usr/bin",
        "/usr/lib",
        "/usr/lib64",
        "/usr/local",
        "/var",
        "/var/lib",
    }
)
_OF_PACKAGES = tuple(
    f"{above}/{name}/"
    for above in ("", "/usr")
    for name in ("bin", "lib", "lib32", "lib64", "libexec", "libx32", "sbin", "share")
)
"""below these everything is of the package manager, which /usr/local and /opt leave to the user (FHS 4.9)"""
_MARK = "EXTERNALLY-MANAGED"
_MARK_SIZE = 64 << 10
_OF_UV = b"managed by uv"  # the Pythons that uv downloads carry the mark, too, and are their user's own


def is_system_directory(path: str, home: str | None) -> bool:
    """Return whether a path is a top-level directory of the system, or a home directory."""
    real = os.path.realpath(path)
    return real in _SYSTEM or (bool(home) and real == os.path.realpath(str(home)))


def owned_by_system(tree: Tree, note: Callable[[str], None] = lambda _: None) -> str | None:
    """Return why a tree is not its user's; None if it is. A venv always is, whatever it was made from.

    ``note`` is called with each path that was looked at.
    """
    if tree.kind is TreeKind.VENV:
        return None
    mark = _external_manager(tree, note)
    if mark is not None:
        return f"a package manager owns this Python ({mark})"
    if f"{tree.part or tree.root}/".startswith(_OF_PACKAGES):
        return "a package manager owns the files here"
    return None


def _external_manager(tree: Tree, note: Callable[[str], None]) -> str | None:
    """Return the file by which the package manager of a system claims a Python (PEP 668); None without one.

    The file lies in the directory of the standard library. Debian's Pythons share ``python3/dist-packages``
    beside those directories.
    """
    places = {*map(os.path.dirname, site_directories(tree.prefix)), tree.root, os.path.dirname(tree.root)}
    for place in sorted(places):
        above, name = os.path.split(place)
        beside = (
            [other for other in listed(above) if is_python_name(other)] if is_python_name(name) else [name]
        )
        for other in sorted(beside):
            mark = os.path.join(above, other, _MARK)
            note(mark)
            try:
                if os.path.isfile(mark) and _OF_UV not in read_head(mark, _MARK_SIZE).lower():
                    return mark
            except OSError:
                continue
    return None
