"""Write to a tree, and read files that may be hostile. No other module writes to a tree.

A file is replaced, never edited: the name leads to the old file or to the whole new one. An edit in place
would change every other name of the inode, and uv links wheels into its cache by default.

Another user who can write to the tree may swap a directory for a link during a run. So each directory is
opened component by component, through no link, and everything is made, renamed or removed relative to its
descriptor (openat(2)), never by a long path.

Reading follows no link, opens no device and stops at a limit.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

TEMP_PREFIX = ".nixpatch-"
TEMP_SUFFIX = ".tmp"

# File capabilities (capabilities(7)); digest and signature of the kernel's integrity subsystem
# (https://docs.kernel.org/security/IMA-templates.html).
_OF_CONTENTS = frozenset({"security.capability", "security.ima", "security.evm"})

Identity = tuple[int, ...]
"""differs for another file of the same name, and for other contents"""

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
# O_NONBLOCK: where the name turned into a FIFO since it was listed, open(2) would wait for a writer for ever.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_NOT_REMOVED = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST})
"""errors of rmdir(2) for a directory that is gone, or is not empty"""


def identity(status: os.stat_result) -> Identity:
    """Return device, inode number, size, time of the last change and kind of a file.

    st_ctime is left out: it changes when another name is linked to the same bytes.
    """
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, stat.S_IFMT(status.st_mode))


@contextlib.contextmanager
def replacement(
    path: str,
    *,
    durable: bool = False,
    expected: Identity | None = None,
    like: os.stat_result | None = None,
    mode: int | None = None,
    keep_times: bool = True,
) -> Iterator[int]:
    """Yield a descriptor of a new, empty file that replaces ``path`` unless the block raises.

    The new file gets owner, mode, times and extended attributes of the old one, but not what was granted to
    other contents (:func:`granted_to_contents`). Where there is no old one and root writes, it belongs to the
    owner of its directory. A killed process leaves the old file or the new one.

    Args:
        path: the file; its directory has to be a real path.
        durable: fsync(2) the contents before the rename, against power failures. Installers do without; it
            takes several times as long as all the rest.
        expected: the identity of the file that the caller has read and wants to replace.
        like: where ``path`` does not exist, take permission bits and times from this.
        mode: permission bits that go before those of the old file.
        keep_times: False gives the new file the present time.

    Raises:
        OSError: the directory cannot be written or is reached through a link, the disk is full, or ``path``
            is not ``expected`` or changed meanwhile (EBUSY).

    """
    directory, name = os.path.split(path)
    with _open_directory(directory) as dir_fd:
        before = _status(name, dir_fd)
        if expected is not None and (before is None or identity(before) != expected):
            raise _changed(path)
        temp = _temporary_name(name)
        descriptor = None
        try:
            # Inside: an interrupt may come between the call and its result.
            descriptor = os.open(temp, _NEW, 0o600, dir_fd=dir_fd)
            while not _is_kept_from_sweep(descriptor):
                os.close(descriptor)
                descriptor, temp = None, _temporary_name(name)
                descriptor = os.open(temp, _NEW, 0o600, dir_fd=dir_fd)
            if before is not None:
                _give(descriptor, before)
            else:
                _give_to_owner_of(dir_fd, descriptor)
            yield descriptor
            model = before or like
            bits = stat.S_IMODE(model.st_mode) & ~(stat.S_ISUID | stat.S_ISGID) if model else 0o644
            os.fchmod(descriptor, bits if mode is None else mode)
            if before is not None and stat.S_ISREG(before.st_mode):
                with contextlib.suppress(OSError):  # a file system without attributes has none to lose
                    _copy_extended_attributes(name, dir_fd, descriptor)
            if model is not None and keep_times:
                os.utime(descriptor, ns=(model.st_atime_ns, model.st_mtime_ns))
            if durable:
                os.fsync(descriptor)
            now = _status(name, dir_fd)
            if (before and identity(before)) != (now and identity(now)):
                raise _changed(path)
            os.replace(temp, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.unlink(temp, dir_fd=dir_fd)
            if isinstance(error, OSError) and error.filename == temp:
                error.filename = path  # the name that the caller knows
            raise
        finally:
            if descriptor is not None:
                os.close(descriptor)


def is_stream(path: str) -> bool:
    """Whether there is a pipe, device or the like at a path: to be written in place, never replaced.

    Links are followed, also those to what has no name, as /dev/stdout in a pipeline.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextlib.contextmanager
def streamed(output: str | BinaryIO) -> Iterator[int]:
    """Yield a descriptor of an empty file that is copied to a pipe or device unless the block raises.

    Raises:
        OSError: it cannot be written.

    """
    with tempfile.TemporaryFile() as file:
        yield file.fileno()
        file.seek(0)
        with open(output, "wb") if isinstance(output, str) else contextlib.nullcontext(output) as stream:
            shutil.copyfileobj(file, stream)
            stream.flush()


def granted_to_contents(descriptor: int) -> tuple[str, ...]:
    """Return what a file has that :func:`replacement` does not pass on, because it is about these bytes."""
    mode = os.fstat(descriptor).st_mode
    granted = [name for bit, name in ((stat.S_ISUID, "setuid"), (stat.S_ISGID, "setgid")) if mode & bit]
    with contextlib.suppress(OSError):  # a file system without attributes
        granted += sorted(_OF_CONTENTS.intersection(os.listxattr(descriptor)))
    return tuple(granted)


def replace_bytes(
    path: str,
    data: bytes,
    *,
    durable: bool = False,
    expected: Identity | None = None,
    keep_times: bool = True,
) -> None:
    """Write a whole small file atomically; do nothing if it holds these bytes already.

    Args:
        path: as for :func:`replacement`, and so the others.
        data: the new contents.
        durable: survive a power failure.
        expected: the identity of the file to replace.
        keep_times: False gives the new file the present time.

    Raises:
        OSError: as :func:`replacement` does; the old file is unchanged.

    """
    with contextlib.suppress(OSError):
        if read_regular(path, len(data)) == data:
            return
    with replacement(path, durable=durable, expected=expected, keep_times=keep_times) as descriptor:
        write_all(descriptor, data)


def write_all(descriptor: int, data: bytes) -> None:
    """Write bytes to a descriptor: write(2) may take fewer than it is given.

    Raises:
        OSError: the disk is full, or fails.

    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def replace_link(path: str, target: str) -> None:
    """Make ``path`` a symbolic link to ``target``, in the place of whatever file has that name.

    Raises:
        OSError: it cannot be made, or its directory is reached through a link.

    """
    directory, name = os.path.split(path)
    temp = _temporary_name(name)
    with _open_directory(directory) as dir_fd:
        try:
            os.symlink(target, temp, dir_fd=dir_fd)
            os.replace(temp, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temp, dir_fd=dir_fd)
            raise


def remove(path: str) -> None:
    """Remove a file; one that is gone already is no error. Its directory has to be a real path.

    Raises:
        OSError: it cannot be removed, or its directory is reached through a link.

    """
    directory, name = os.path.split(path)
    with contextlib.suppress(FileNotFoundError), _open_directory(directory) as dir_fd:
        os.unlink(name, dir_fd=dir_fd)


def make_directory(path: str, mode: int | None = None) -> None:
    """Make a directory in an existing one; do nothing if it exists.

    A directory that root makes belongs to the owner of the existing one. Only one that is empty is given
    away: another user may have put one of root's in its place.

    Args:
        path: the directory.
        mode: permission bits of a new one; None leaves them to the umask.

    Raises:
        OSError: it cannot be made, or a component of the path, the last one too, is a link (ELOOP).

    """
    parent, name = os.path.split(path)
    with _open_directory(parent) as dir_fd, contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=dir_fd)
        if mode is not None or os.geteuid() == 0:
            descriptor = os.open(name, _LISTED, dir_fd=dir_fd)
            try:
                if not os.listdir(descriptor):
                    _give_to_owner_of(dir_fd, descriptor)
                    os.fchmod(descriptor, os.fstat(descriptor).st_mode if mode is None else mode)
            finally:
                os.close(descriptor)
    with _open_directory(path):
        pass


def remove_directory(path: str) -> None:
    """Remove a directory if it is empty; one that is not, or that is gone, is no error.

    Raises:
        OSError: it cannot be removed, or is reached through a link.

    """
    parent, name = os.path.split(path)
    try:
        with _open_directory(parent) as dir_fd:
            os.rmdir(name, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in _NOT_REMOVED:
            raise


def move(source: str, target: str, *, overwrite: bool) -> None:
    """Give a file another name on the same file system; without ``overwrite`` an existing target stays.

    Raises:
        OSError: it cannot be moved, one of the directories is reached through a link, or the target exists.

    """
    old_directory, old_name = os.path.split(source)
    new_directory, new_name = os.path.split(target)
    with _open_directory(old_directory) as old_fd, _open_directory(new_directory) as new_fd:
        if not overwrite and _status(new_name, new_fd) is not None:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        os.replace(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd)


def sweep(path: str) -> None:
    """Remove the temp files that killed runs left beside ``path``, which no scan of a tree finds."""
    directory, name = os.path.split(path)
    ending = f"-{_short(name)}{TEMP_SUFFIX}"
    with contextlib.suppress(OSError):
        for entry in os.listdir(directory):
            if is_temporary(entry) and entry.endswith(ending):
                with contextlib.suppress(OSError):
                    remove_leftover(os.path.join(directory, entry))


def remove_leftover(path: str) -> bool:
    """Remove a temp file of a killed run; return False where a living process holds the lock on it.

    Raises:
        OSError: it cannot be opened or removed.

    """
    directory, name = os.path.split(path)
    with _open_directory(directory) as dir_fd, open(name, "r+b", opener=_opener(dir_fd)) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.unlink(name, dir_fd=dir_fd)
    return True


def is_temporary(name: str) -> bool:
    """Return whether a file name is one that :func:`replacement` makes."""
    return name.startswith(TEMP_PREFIX) and name.endswith(TEMP_SUFFIX)


def can_be_path(text: str) -> bool:
    """Return whether a text can name a file: not with a NUL, nor with a surrogate that stands for no byte.

    JSON can hold both, and every system call with such a path raises ``ValueError``.
    """
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def open_regular(path: str) -> int:
    """Open a regular file for reading and return the descriptor; a link is not followed.

    Raises:
        OSError: it cannot be opened, or is no regular file.

    """
    descriptor = os.open(path, _READ)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def read_regular(path: str, limit: int) -> bytes:
    """Return all bytes of a regular file that has ``limit`` at most.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger (EFBIG).

    """
    return read_identified(path, limit)[0]


def read_identified(path: str, limit: int) -> tuple[bytes, Identity]:
    """Return all bytes of a regular file and its identity.

    Raises:
        OSError: as :func:`read_regular` does.

    """
    descriptor = open_regular(path)
    with open(descriptor, "rb", closefd=True) as file:
        # Before the contents, so that a change in between is noticed.
        known = identity(os.fstat(descriptor))
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
    return data, known


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


@contextlib.contextmanager
def _open_directory(path: str) -> Iterator[int]:
    """Open a directory through no link (as openat2(2) does with RESOLVE_NO_SYMLINKS).

    Raises:
        OSError: it does not exist, or a component is a link (ELOOP).

    """
    dir_fd = os.open("/" if path.startswith("/") else ".", _STEP)
    try:
        for part in path.split("/"):
            if part in {"", "."}:
                continue
            try:
                child = os.open(part, _STEP, dir_fd=dir_fd)
            except NotADirectoryError as error:
                raise OSError(errno.ELOOP, "a link has taken the place of a directory", path) from error
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from error
            os.close(dir_fd)
            dir_fd = child
        yield dir_fd
    finally:
        os.close(dir_fd)


def _opener(dir_fd: int) -> Callable[[str, int], int]:
    return lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd)


def _status(name: str, dir_fd: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _changed(path: str) -> OSError:
    return OSError(errno.EBUSY, "changed while nixpatch worked on it", path)


def _short(name: str) -> str:
    """Keep the temp name within NAME_MAX (255 bytes) whatever the file is called."""
    return os.fsdecode(os.fsencode(name)[:200])


def _temporary_name(name: str) -> str:
    return f"{TEMP_PREFIX}{os.urandom(6).hex()}-{_short(name)}{TEMP_SUFFIX}"


def _is_kept_from_sweep(descriptor: int) -> bool:
    """Lock a new temp file; return False if :func:`remove_leftover` was quicker and has removed it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system that cannot lock: nothing is swept either
        return True
    return os.fstat(descriptor).st_nlink > 0


def _give(descriptor: int, model: os.stat_result) -> None:
    """Give a file to the owner and group of another."""
    new = os.fstat(descriptor)
    if (model.st_uid, model.st_gid) != (new.st_uid, new.st_gid):
        # Only root can give a file away; everyone else goes on with a file of their own.
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, model.st_uid, model.st_gid)


def _give_to_owner_of(dir_fd: int, descriptor: int) -> None:
    """Let the owner of a directory have what root made in it, so that they can change and remove it."""
    if os.geteuid() == 0:
        _give(descriptor, os.fstat(dir_fd))


def _copy_extended_attributes(name: str, dir_fd: int, descriptor: int) -> None:
    source = os.open(name, _READ, dir_fd=dir_fd)
    try:
        for attribute in os.listxattr(source):
            if attribute in _OF_CONTENTS:
                continue
            with contextlib.suppress(OSError):
                os.setxattr(descriptor, attribute, os.getxattr(source, attribute))
    finally:
        os.close(source)
