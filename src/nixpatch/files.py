"""Replacing files so that at every moment the name leads to the old file or to the whole new one.

A file that is written into its own inode would change under every other name of it: uv links wheels into
its cache by default, and an edit in place would poison every other environment.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator

from nixpatch.errors import MachineError

TEMP_PREFIX = ".nixpatch-"
TEMP_SUFFIX = ".tmp"


@contextlib.contextmanager
def replacement(path: str, *, durable: bool = False) -> Iterator[int]:
    """Yield a descriptor of a new, empty file that takes the place of ``path`` when the block ends well.

    The new file gets mode (less setuid and setgid: the contents are not the ones those were granted to),
    owner, times and extended attributes of the old one, and vanishes if the block raises. A killed process
    leaves the old file or the new one. For a power failure, too, ``durable`` puts the contents on the disk
    before the name (fsync(2)); that costs several times the work itself, and installers do without.

    Raises:
        OSError: the directory cannot be written, the disk is full, or ``path`` changed meanwhile (EBUSY).

    """
    before = os.lstat(path) if os.path.lexists(path) else None
    directory, name = os.path.split(path)
    temp = os.path.join(directory, f"{TEMP_PREFIX}{os.getpid()}-{_short(name)}{TEMP_SUFFIX}")
    descriptor = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield descriptor
        if before is None:
            os.fchmod(descriptor, 0o644)
        else:
            _copy_attributes(path, descriptor, before)
        if durable:
            os.fsync(descriptor)
        if _identity(before) != _identity(os.lstat(path) if os.path.lexists(path) else None):
            raise OSError(errno.EBUSY, "changed while nixpatch worked on it", path)
        os.replace(temp, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temp)
        raise
    finally:
        os.close(descriptor)


def replace_bytes(path: str, data: bytes, *, durable: bool = False) -> None:
    """Write a whole small file atomically; nothing happens if it holds these bytes already.

    Raises:
        OSError: it cannot be written; the old file is as it was.

    """
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if os.path.isfile(path) and file.read(len(data) + 1) == data:
            return
    with replacement(path, durable=durable) as descriptor:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]


def _short(name: str) -> str:
    """Keep the temp name within NAME_MAX (255 bytes) whatever the file is called."""
    return os.fsdecode(os.fsencode(name)[:200])


def _identity(status: os.stat_result | None) -> tuple[int, ...] | None:
    if status is None:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, stat.S_IFMT(status.st_mode))


def _copy_attributes(path: str, descriptor: int, old: os.stat_result) -> None:
    new = os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        # Only root can give a file away; anyone else keeps working with a file of their own.
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode) & ~(stat.S_ISUID | stat.S_ISGID))
    with contextlib.suppress(OSError):  # a file system without attributes has none to lose
        for name in os.listxattr(path, follow_symlinks=False):
            with contextlib.suppress(OSError):
                os.setxattr(descriptor, name, os.getxattr(path, name, follow_symlinks=False))
    os.utime(descriptor, ns=(old.st_atime_ns, old.st_mtime_ns))


def can_be_path(text: str) -> bool:
    """Whether a text can name a file: not so with a NUL, or with a surrogate that stands for no byte.

    JSON can write both, and every call of the system with such a path raises ``ValueError``.
    """
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def is_temporary(name: str) -> bool:
    """Whether a file name is one that :func:`replacement` makes."""
    return name.startswith(TEMP_PREFIX) and name.endswith(TEMP_SUFFIX)


@contextlib.contextmanager
def lock(directory: str, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the tree for this run: flock(2) on the directory itself, so that no lock file stays behind.

    ``waiting`` is called once if another run holds it.

    Raises:
        MachineError: the directory cannot be opened or locked.

    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise MachineError(f"{directory}: cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(f"{directory}: another nixpatch is at work here, waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    except OSError as error:
        if error.errno in {errno.ENOLCK, errno.EOPNOTSUPP}:
            raise MachineError(f"{directory}: the file system cannot lock ({error.strerror})") from error
        raise
    finally:
        os.close(descriptor)
