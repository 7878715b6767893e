"""Replacing files so that at every moment the name leads to the old file or to the whole new one.

A file that is written into its own inode would change under every other name of it: uv links wheels into
its cache by default, and an edit in place would poison every other environment.

Whoever may write to a tree may swap a directory of it for a link while a run is at work. So nothing is made,
renamed or removed by a long path: the directory is opened component by component, through no link, and what
happens happens in that directory (openat(2)).

Opening files of a tree that nobody vouches for: never a link, never a device, never more than agreed.
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

Identity = tuple[int, ...]
"""what tells a file from another one of its name, and from itself with other contents"""

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STAYS = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST})
"""what rmdir(2) says of a directory that is gone, or is not empty (yet)"""
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def identity(status: os.stat_result) -> Identity:
    """Return what a file is told by: device, inode number, size, time of the last change, kind.

    The change stamp (st_ctime) does not count: it moves when another name is linked to the same bytes.
    """
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, stat.S_IFMT(status.st_mode))


@contextlib.contextmanager
def replacement(
    path: str, *, durable: bool = False, expected: Identity | None = None, like: os.stat_result | None = None
) -> Iterator[int]:
    """Yield a descriptor of a new, empty file that takes the place of ``path`` when the block ends well.

    The new file gets mode (less setuid and setgid: the contents are not the ones those were granted to),
    owner, times and extended attributes of the old one, and vanishes if the block raises. A killed process
    leaves the old file or the new one. For a power failure, too, ``durable`` puts the contents on the disk
    before the name (fsync(2)); that costs several times the work itself, and installers do without.

    The directory of ``path`` has to be a real path. ``expected`` is what the caller has read and wants to
    replace. A file that is not there yet gets the permission bits and times of ``like``.

    Raises:
        OSError: the directory cannot be written or is reached through a link, the disk is full, or ``path``
            is not ``expected`` or changed meanwhile (EBUSY).

    """
    directory, name = os.path.split(path)
    with _directory(directory) as at:
        before = _status(name, at)
        if expected is not None and (before is None or identity(before) != expected):
            raise _changed(path)
        temp = f"{TEMP_PREFIX}{os.urandom(6).hex()}-{_short(name)}{TEMP_SUFFIX}"
        descriptor = None
        try:
            # Inside: an interrupt may come between the call and its result.
            descriptor = os.open(temp, _NEW, 0o600, dir_fd=at)
            with contextlib.suppress(OSError):  # a file system that cannot lock: nobody will sweep, either
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield descriptor
            if before is None and like is None:
                os.fchmod(descriptor, 0o644)
            elif before is None and like is not None:
                os.fchmod(descriptor, like.st_mode & 0o777)
                os.utime(descriptor, ns=(like.st_atime_ns, like.st_mtime_ns))
            elif before is not None:
                _copy_attributes(name, at, descriptor, before)
            if durable:
                os.fsync(descriptor)
            now = _status(name, at)
            if (before and identity(before)) != (now and identity(now)):
                raise _changed(path)
            os.replace(temp, name, src_dir_fd=at, dst_dir_fd=at)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.unlink(temp, dir_fd=at)
            if isinstance(error, OSError) and error.filename == temp:
                error.filename = path  # what the caller knows it by
            raise
        finally:
            if descriptor is not None:
                os.close(descriptor)


def replace_bytes(path: str, data: bytes, *, durable: bool = False, expected: Identity | None = None) -> None:
    """Write a whole small file atomically; nothing happens if it holds these bytes already.

    Raises:
        OSError: as :func:`replacement` does; the old file is as it was.

    """
    with contextlib.suppress(OSError):
        if stat.S_ISREG(os.lstat(path).st_mode):  # a pipe would be waited for
            with open(path, "rb") as file:
                if file.read(len(data) + 1) == data:
                    return
    with replacement(path, durable=durable, expected=expected) as descriptor:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]


def remove(path: str) -> None:
    """Remove a file; nothing happens if it is gone already. Its directory has to be a real path.

    Raises:
        OSError: it cannot be removed, or its directory is reached through a link.

    """
    directory, name = os.path.split(path)
    with contextlib.suppress(FileNotFoundError), _directory(directory) as at:
        os.unlink(name, dir_fd=at)


def make_directory(path: str) -> None:
    """Make a directory in one that is there; nothing happens if it is one already.

    Raises:
        OSError: it cannot be made, or a component of the path, the last one too, is a link (ELOOP).

    """
    parent, name = os.path.split(path)
    with _directory(parent) as at, contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=at)
    with _directory(path):
        pass


def remove_directory(path: str) -> None:
    """Remove a directory if it is empty; one that is not, or that is gone, is no error.

    Raises:
        OSError: it cannot be removed, or is reached through a link.

    """
    parent, name = os.path.split(path)
    try:
        with _directory(parent) as at:
            os.rmdir(name, dir_fd=at)
    except OSError as error:
        if error.errno not in _STAYS:
            raise


def move(source: str, target: str, *, overwrite: bool) -> None:
    """Give a file another name on the same file system; without ``overwrite`` a target that is there stays.

    Raises:
        OSError: it cannot be moved, one of the directories is reached through a link, or the target is there.

    """
    from_directory, old = os.path.split(source)
    to_directory, new = os.path.split(target)
    with _directory(from_directory) as here, _directory(to_directory) as there:
        if not overwrite and _status(new, there) is not None:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        os.replace(old, new, src_dir_fd=here, dst_dir_fd=there)


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


def sweep(path: str) -> None:
    """Remove what killed runs left of their attempts to replace ``path``: where no scan of a tree does.

    What a living process is at work on is locked by it, and stays.
    """
    directory, name = os.path.split(path)
    ending = f"-{_short(name)}{TEMP_SUFFIX}"
    with contextlib.suppress(OSError), _directory(directory) as at:
        for left in os.listdir(directory):
            if is_temporary(left) and left.endswith(ending):
                with contextlib.suppress(OSError), open(left, "r+b", opener=_opener(at)) as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(left, dir_fd=at)


def _opener(at: int) -> Callable[[str, int], int]:
    return lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)


@contextlib.contextmanager
def _directory(path: str) -> Iterator[int]:
    """Open a directory for what is done in it, following no link on the way (as RESOLVE_NO_SYMLINKS would).

    Raises:
        OSError: it is not there, or a component is a link (ELOOP).

    """
    here = os.open("/" if path.startswith("/") else ".", _STEP)
    try:
        for part in path.split("/"):
            if part in {"", "."}:
                continue
            try:
                below = os.open(part, _STEP, dir_fd=here)
            except NotADirectoryError as error:
                raise OSError(errno.ELOOP, "a link has taken the place of a directory", path) from error
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from error
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _status(name: str, at: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _changed(path: str) -> OSError:
    return OSError(errno.EBUSY, "changed while nixpatch worked on it", path)


def _short(name: str) -> str:
    """Keep the temp name within NAME_MAX (255 bytes) whatever the file is called."""
    return os.fsdecode(os.fsencode(name)[:200])


def _copy_attributes(name: str, at: int, descriptor: int, old: os.stat_result) -> None:
    new = os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        # Only root can give a file away; anyone else keeps working with a file of their own.
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode) & ~(stat.S_ISUID | stat.S_ISGID))
    if stat.S_ISREG(old.st_mode):
        with contextlib.suppress(OSError):  # a file system without attributes has none to lose
            _copy_extended(name, at, descriptor)
    os.utime(descriptor, ns=(old.st_atime_ns, old.st_mtime_ns))


def _copy_extended(name: str, at: int, descriptor: int) -> None:
    source = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    try:
        for attribute in os.listxattr(source):
            with contextlib.suppress(OSError):
                os.setxattr(descriptor, attribute, os.getxattr(source, attribute))
    finally:
        os.close(source)


_held: set[tuple[int, int]] = set()


@contextlib.contextmanager
def lock(directory: str, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold a tree for this run: flock(2) on the directory itself, so that no lock file stays behind.

    Every directory above is held too, shared: runs on a venv and on its site-packages exclude each other,
    runs on two venvs do not. Taken from the top down, so that no two runs wait for each other. Within a
    process, a tree that is held already is not waited for. ``waiting`` is called once if another run is
    there.

    Raises:
        MachineError: the directory cannot be opened or locked.

    """
    directory = os.path.realpath(directory)
    with contextlib.ExitStack() as stack:
        tree = _take(directory, waiting, stack)
        if tree in _held:
            yield
            return
        _held.add(tree)
        try:
            yield
        finally:
            _held.discard(tree)


def _take(directory: str, waiting: Callable[[str], None], stack: contextlib.ExitStack) -> tuple[int, int]:
    """Lock a directory for as long as ``stack`` lives; return what it is known by."""
    told = False
    for above in _above(directory):
        # What we may not read, or a file system that cannot lock, does not keep us from our own tree.
        with contextlib.suppress(OSError):
            told |= _flock(stack.enter_context(_opened(above)), fcntl.LOCK_SH, directory, waiting, told=told)
    while True:
        try:
            mine = stack.enter_context(_opened(directory))
            status = os.fstat(mine)
            tree = (status.st_dev, status.st_ino)
            if tree in _held:
                return tree
            told |= _flock(mine, fcntl.LOCK_EX, directory, waiting, told=told)
            now = os.stat(directory)
        except OSError as error:
            text = f"cannot be locked: {error.strerror}; nothing was changed; mend it and run nixpatch again"
            raise MachineError(f"{directory}: {text}") from error
        if (now.st_dev, now.st_ino) == tree:  # else somebody made the tree anew while we waited
            return tree


def _above(directory: str) -> list[str]:
    """Return the directories above one, from the top down."""
    parts = directory.split("/")[1:-1]
    return ["/", *("/" + "/".join(parts[: count + 1]) for count in range(len(parts)))]


@contextlib.contextmanager
def _opened(directory: str) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _flock(descriptor: int, how: int, tree: str, waiting: Callable[[str], None], *, told: bool) -> bool:
    """Lock; return whether another run had to be waited for."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        if not told:
            waiting(f"{tree}: another nixpatch is at work here, waiting for it")
        fcntl.flock(descriptor, how)
        return True
    return False


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
