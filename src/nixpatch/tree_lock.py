"""The lock of a run: flock(2) on the directory of the tree, so that no lock file stays behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator

from nixpatch.errors import MachineError


@contextlib.contextmanager
def hold_tree(path: str, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Keep other runs of nixpatch away from a tree, from its scan to the last file that is written.

    Every directory above is locked too, shared: runs on a venv and on its site-packages exclude each other,
    runs on two venvs do not. All are locked from the top down, so that no two runs wait for each other. A
    second hold of the same tree waits for the first one, in the same process as well: a caller that plans
    and applies holds the tree once around both.

    Args:
        path: the tree, as ``scan`` takes it. One that does not exist or cannot be read is for ``scan`` to
            complain of.
        on_wait: called once with a sentence if another run is at work.

    Raises:
        MachineError: the file system cannot lock.

    """
    real = os.path.realpath(path) if "\0" not in path else ""
    directory = real if os.path.isdir(real) else os.path.dirname(real)
    with contextlib.ExitStack() as stack:
        if os.path.exists(real) and os.access(directory, os.R_OK):
            _lock(directory, on_wait, stack)
        yield


def _lock(directory: str, on_wait: Callable[[str], None], stack: contextlib.ExitStack) -> None:
    """Lock a directory and those above it until ``stack`` is closed."""
    has_waited = False

    def lock(descriptor: int, operation: int) -> None:
        nonlocal has_waited
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if not has_waited:
                on_wait(f"{directory}: another nixpatch is at work here, waiting for it")
            has_waited = True
            fcntl.flock(descriptor, operation)

    parts = directory.rstrip("/").split("/")
    for count in range(1, len(parts)):
        # A directory that we may not read, or a file system that cannot lock, must not keep us from our tree.
        with contextlib.suppress(OSError):
            lock(stack.enter_context(_opened("/".join(parts[:count]) or "/")), fcntl.LOCK_SH)
    while True:
        try:
            descriptor = stack.enter_context(_opened(directory))
            lock(descriptor, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(descriptor), os.stat(directory)):
                return  # otherwise the tree was made anew while we waited
        except OSError as error:
            text = f"cannot be locked: {error.strerror}; nothing was changed; mend it and run nixpatch again"
            raise MachineError(f"{directory}: {text}") from error


@contextlib.contextmanager
def _opened(directory: str) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
