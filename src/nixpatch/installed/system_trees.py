"""Directories that are hardly ever meant: the system's, homes, externally managed Pythons (PEP 668)."""

from __future__ import annotations

import os

from nixpatch.fs import read_head
from nixpatch.installed.python_layout import site_directories
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
_MARK = "EXTERNALLY-MANAGED"
_MARK_SIZE = 64 << 10
_OF_UV = b"managed by uv"  # the Pythons that uv downloads carry the mark, too, and are their user's own


def is_system_directory(path: str, home: str | None) -> bool:
    """Return whether a path is a top-level directory of the system, or a home directory."""
    real = os.path.realpath(path)
    return real in _SYSTEM or (bool(home) and real == os.path.realpath(str(home)))


def external_manager(tree: Tree) -> str | None:
    """Return the file by which the package manager of a system claims a Python (PEP 668); None without one.

    The file lies in the directory of the standard library. A venv is its user's, whatever it was made from.
    """
    if tree.kind is TreeKind.VENV:
        return None
    for site in {
        *site_directories(tree.prefix),
        *([tree.root] if tree.kind is TreeKind.SITE_PACKAGES else []),
    }:
        mark = os.path.join(os.path.dirname(site), _MARK)
        try:
            if os.path.isfile(mark) and _OF_UV not in read_head(mark, _MARK_SIZE).lower():
                return mark
        except OSError:
            continue
    return None
