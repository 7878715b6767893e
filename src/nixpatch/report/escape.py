"""Names from wheels on a terminal: nothing in a file name may move the cursor or pass for our own words."""

from __future__ import annotations

import os

from nixpatch.escape import shown

__all__ = ["below", "shown"]


def below(path: str, root: str) -> str:
    """Return a path relative to the tree where it lies inside, for reports that would repeat the root."""
    inside = path == root or path.startswith(root.rstrip("/") + "/")
    return shown(os.path.relpath(path, root) if inside else path)
