"""Phrases that several reports share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from nixpatch.escape import below, shown
from nixpatch.model import Target, Tree, TreeKind
from nixpatch.resolve.provider_choice import version_text
from nixpatch.store_paths import is_store_entry, package_of_entry

_LISTED = 3


def count_text(number: int, singular: str, plural: str = "") -> str:
    """Return ``1 file``, ``2 files``; ``plural`` is for words that do not take an s."""
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"


def first_few(names: Sequence[str]) -> str:
    """List three names, escaped, and the number of the others."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(shown, names[:_LISTED])) + more


def from_here(path: str) -> str:
    """Return a path relative to the current directory if it is inside, to be pasted into a command."""
    with contextlib.suppress(OSError):  # the current directory may be gone
        return below(path, os.path.realpath(os.getcwd()))
    return shown(path)


def command_for(tree: Tree) -> str:
    """Return the command that links a tree, without its path: ``nixpatch``, of a wheel ``nixpatch wheel``."""
    return "nixpatch wheel" if tree.kind is TreeKind.WHEEL else "nixpatch"


def package_of(path: str | None) -> str | None:
    """Return the name of the store path that has a library, without its hash; None outside a store."""
    entry = next((part for part in (path or "").split(os.sep) if is_store_entry(part)), None)
    return package_of_entry(entry) if entry is not None else None


def size_text(number: int) -> str:
    """Return a number of bytes in B, kB, MB or GB."""
    size = float(number)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def target_text(target: Target) -> str:
    """Describe the Python that will load the tree, in one line."""
    version = f" {version_text(target.version)}" if target.version else ""
    libc_version = f" {version_text(target.libc_version)}" if target.libc_version else ""
    started = f"Python{version}" if target.has_python else "programs of the loader"
    return (
        f"Target: {started} {shown(target.python)} (found by {target.found_by}), "
        f"{target.machine.name}, {target.libc.value}{libc_version}"
    )
