"""A lockfile as text."""

from __future__ import annotations

from nixpatch.escape import shown
from nixpatch.report.closing import lock_closing
from nixpatch.store.lockfile import Lockfile


def text(lock: Lockfile, path: str, *, changed: bool) -> str:
    """Render one line for each library: soname, package, source and nixpkgs attribute."""
    rows = [
        (soname, library.package, library.source, library.attribute or "")
        for soname, library in lock.libraries.items()
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    lines = [
        "  ".join(
            (*(shown(cell).ljust(width) for cell, width in zip(row, widths, strict=False)), row[3])
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, lock_closing(lock, path, changed=changed)]) + "\n"
