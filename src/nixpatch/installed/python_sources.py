"""The Python sources of a tree, within bounds that no honest one reaches."""

from __future__ import annotations

import os
from collections.abc import Iterator

from nixpatch.fs import read_regular

_MAX_SIZE = 4 << 20  # bytes of one file; the largest that people write have a tenth
_MAX_FILES = 500_000


def sources(root: str) -> Iterator[tuple[str, bytes]]:
    """Yield path and contents of each ``.py`` below ``root``, sorted by directory; links are not followed."""
    left = _MAX_FILES
    for directory, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            if name.endswith(".py"):
                left -= 1
                if left < 0:
                    return
                try:
                    yield (
                        os.path.join(directory, name),
                        read_regular(os.path.join(directory, name), _MAX_SIZE),
                    )
                except OSError:
                    continue
