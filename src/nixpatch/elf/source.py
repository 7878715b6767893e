"""Opening what may be anything: only regular files are read, and never through a link."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from nixpatch.elf.unfit import Unfit
from nixpatch.model import SkipReason

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # NONBLOCK: a FIFO must not hang us


@contextlib.contextmanager
def opened(source: str | int) -> Iterator[int]:
    """Give a descriptor for a path, closed afterwards, or the caller's own descriptor, left open.

    Raises ``Unfit`` (not ELF) for a symbolic link and for anything but a regular file, else ``OSError``.
    """
    if isinstance(source, int):
        _must_be_regular(source)
        yield source
        return
    try:
        fd = os.open(source, _FLAGS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Unfit(SkipReason.NOT_ELF, "a symbolic link") from None
        if error.errno == errno.ENXIO:
            raise Unfit(SkipReason.NOT_ELF, "not a regular file") from None
        raise
    try:
        _must_be_regular(fd)
        yield fd
    finally:
        os.close(fd)


def _must_be_regular(fd: int) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise Unfit(SkipReason.NOT_ELF, "not a regular file")
