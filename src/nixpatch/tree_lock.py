"""Hold a tree from the first look at it to the last word written down: no plan outlives another's run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from nixpatch.fs import lock


@contextlib.contextmanager
def held(path: str, waiting: Callable[[str], None]) -> Iterator[None]:
    """Keep other runs of nixpatch away from a tree, named as for ``scan``; ``waiting`` hears if one is there.

    A path that is no tree is for ``scan`` to complain of.

    Raises:
        MachineError: the file system cannot lock.

    """
    real = os.path.realpath(path) if "\0" not in path else ""
    directory = real if os.path.isdir(real) else os.path.dirname(real)
    if os.access(directory, os.R_OK):
        with lock(directory, waiting):
            yield
    else:
        yield
