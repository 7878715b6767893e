"""Opening files of a tree that nobody vouches for: never a link, never a device, never more than agreed."""

from __future__ import annotations

import errno
import os
import stat

from nixpatch.fs import Identity, identity

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def open_regular(path: str) -> int:
    """Open a regular file for reading and return the descriptor.

    The last component is not followed if it is a link. O_NONBLOCK matters where the name turned into a
    FIFO since it was listed: open() would wait for a writer for ever.

    Raises:
        OSError: it cannot be opened, or is no regular file.

    """
    descriptor = os.open(path, _FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def read_regular(path: str, limit: int) -> bytes:
    """Return all bytes of a regular file, which may have ``limit`` at the most.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger (EFBIG).

    """
    return read_identified(path, limit)[0]


def read_identified(path: str, limit: int) -> tuple[bytes, Identity]:
    """Return all bytes of a regular file and what tells it from whatever takes its place.

    Raises:
        OSError: as :func:`read_regular` does.

    """
    descriptor = open_regular(path)
    with open(descriptor, "rb", closefd=True) as file:
        # Before the contents: what is written in between is noticed.
        found = identity(os.fstat(descriptor))
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
    return data, found


def read_head(path: str, length: int) -> bytes:
    """Return the first ``length`` bytes, fewer where the file is shorter.

    Raises:
        OSError: it cannot be read or is no regular file.

    """
    descriptor = open_regular(path)
    try:
        return os.read(descriptor, length)
    finally:
        os.close(descriptor)
