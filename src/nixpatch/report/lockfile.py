"""What ``nixpatch lock`` tells: pure renderers of a lock."""

from __future__ import annotations

from typing import Any

from nixpatch.escape import shown
from nixpatch.store.lockfile import Lockfile, entry


def text(lockfile: Lockfile, path: str, *, changed: bool) -> str:
    """Render for people: one line for each library with what chose it, and one for the whole."""
    rows = [
        (soname, library.package, library.source, library.attribute or "")
        for soname, library in lockfile.libraries.items()
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    lines = [
        "  ".join(
            (*(shown(cell).ljust(width) for cell, width in zip(row, widths, strict=False)), row[3])
        ).rstrip()
        for row in rows
    ]
    store_paths = len({library.store_path for library in lockfile.libraries.values()})
    lines.append(
        f"{'Locked' if changed else 'Unchanged:'} {len(rows)} {'library' if len(rows) == 1 else 'libraries'} "
        f"of {store_paths} store {'path' if store_paths == 1 else 'paths'} in {shown(path)}."
    )
    return "\n".join(lines) + "\n"


def json(lockfile: Lockfile, path: str, *, changed: bool) -> dict[str, Any]:
    """Render the part of the document that tells of the lock."""
    return {
        "path": path,
        "changed": changed,
        "machine": lockfile.machine,
        "loader": lockfile.loader,
        "libc": {"name": lockfile.libc.value, "version": list(lockfile.libc_version)},
        "libraries": [{"soname": soname, **entry(library)} for soname, library in lockfile.libraries.items()],
    }
