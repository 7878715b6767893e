"""Carrying an edit out: copy what stays, write what is new, into a temp file that the caller owns."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nixpatch.elf.digests import Digests, digest_rest, digest_source
from nixpatch.elf.dynamic import linkage, namings
from nixpatch.elf.edit_plan import EditPlan, plan_edit
from nixpatch.elf.image import Image
from nixpatch.elf.source import opened
from nixpatch.elf.undo import Opened, State, guard, look
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit

_CHUNK = 1 << 20
_KERNEL_CHUNK = 1 << 30
# What copy_file_range(2) says where a kernel, a file system or a sandbox cannot do it.
_NO_COPY = {errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EBADF}


@dataclass(frozen=True, slots=True)
class EditResult:
    """What came of one edit."""

    size: int
    """bytes of the new file"""
    original_size: int
    changed: bool
    """False: the wish was the original's own linkage, and the temp file holds the original"""
    original_sha256: bytes
    notes: tuple[str, ...] = ()
    digested: bool = False
    """the digests that were handed in have had all bytes of both files; if not, they are of no use"""


def write_edited(
    source: str | int,
    temp_fd: int,
    edit: ElfEdit,
    original_sha256: bytes | None = None,
    digests: Digests | None = None,
) -> EditResult:
    """Write ``source`` with the wished linkage into ``temp_fd``.

    The edit always starts from the original, seen through the undo record of an earlier edit, so ten edits
    give the bytes of the last one alone. A wish that equals the original's linkage gives the original.

    ``source``: a path, or a descriptor that stays open, its position anywhere afterwards. ``temp_fd``: an
    empty regular file, open for reading and writing; the caller owns it, its mode, fsync and rename, and
    throws it away on any exception.
    ``original_sha256``: digest of the original if the caller knows it (it is believed); None computes it. For
    a file that is already patched the one in its record is kept. ``edit.tag`` counts only with a search path.
    ``digests``: get the bytes of ``source`` and those of the edited file, where that takes only one reading
    (not for a file that is already patched); the result tells. Their SHA-256 is then the original's, too.

    Raises ``FileRefused`` if the file cannot be edited safely, ``OSError`` for trouble with reading or
    writing.
    """
    with opened(source) as fd:
        return write_seen(look(fd), temp_fd, edit, original_sha256, digests)


def write_seen(
    seen: Opened,
    temp_fd: int,
    edit: ElfEdit,
    original_sha256: bytes | None = None,
    digests: Digests | None = None,
) -> EditResult:
    """Do what :func:`write_edited` does for a file that was looked at and is still open."""
    image, headers = seen.original_image, seen.original
    if seen.state is State.INTACT:
        digests = None
        original_sha256 = seen.footer.sha256 if seen.footer else original_sha256
    stale = seen.footer if seen.state is State.STALE else None
    named = namings(image, headers) if edit.renames else ()
    plan = plan_edit(headers, image.size, linkage(image, headers), edit, stale=stale, namings=named)
    if plan is None:
        digest = original_sha256 or image.sha256()
        _write_whole(image, temp_fd)
        return EditResult(image.size, image.size, changed=False, original_sha256=digest)
    if digests is not None:
        digest_source(image.fd, image.size, plan, digests)
    digest = original_sha256 or (digests.before.sha256() if digests is not None else image.sha256())
    _write_plan(image, temp_fd, plan, digest)
    if digests is not None:
        digest_rest(temp_fd, plan, digests.after)
    return EditResult(plan.size, image.size, True, digest, plan.notes, digests is not None)


def write_original(source: str | int, temp_fd: int) -> bytes:
    """Write the original of a patched file into ``temp_fd``; returns its SHA-256, checked against the record.

    Raises ``FileRefused`` where there is no undo record, where another tool changed the file since, or where
    the result is not the file that was patched; ``OSError`` for trouble with reading or writing.
    """
    with opened(source) as fd:
        seen = look(fd)
        if seen.state is State.NONE:
            raise FileRefused("it holds no undo record: nixpatch has not patched it")
        if seen.state is State.STALE or seen.footer is None:
            raise FileRefused(
                "its undo record is stale: another tool (such as strip) changed the file after the patch; "
                "install the package again to get the original"
            )
        _write_whole(seen.original_image, temp_fd)
        found = Image.of(temp_fd).sha256()
        if found != seen.footer.sha256:
            raise FileRefused(
                "what its undo record gives is not the original (SHA-256 differs): another tool changed the "
                "file after the patch; install the package again to get the original"
            )
        return found


def _write_whole(image: Image, to: int) -> None:
    os.ftruncate(to, 0)
    os.ftruncate(to, image.size)
    _copy(image, 0, image.size, to, 0)


def _write_plan(image: Image, to: int, plan: EditPlan, sha256: bytes) -> None:
    os.ftruncate(to, 0)
    os.ftruncate(to, plan.size)  # a hole: .bss costs no disk
    for copy in plan.copies:
        _copy(image, copy.offset, copy.length, to, copy.to)
    for offset, content in plan.writes:
        _write(to, content, offset)
    # The checksum is over what really stands in the file.
    footer = replace(plan.footer, sha256=sha256) if plan.record else plan.footer
    _write(to, footer.pack(), plan.footer_at)
    written = Image.of(to)
    tables = (written.read(offset, length) for offset, length in plan.tables)
    checksum = guard(written, tables, plan.record, footer, plan.left)
    _write(to, replace(footer, guard=checksum).pack(), plan.footer_at)


def _copy(image: Image, offset: int, length: int, to: int, at: int) -> None:
    for start, count, file_offset in image.ranges(offset, length):
        for data, size in _data(image.fd, file_offset, count):
            _copy_range(image.fd, data, size, to, at + start - offset + data - file_offset)
    for patch in image.patches_in(offset, length):
        _write(to, patch.data, at + patch.offset - offset)


def _data(fd: int, offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of a range that are no holes: a hole stays one in the new file, which begins as one."""
    end = offset + length
    if os.fstat(fd).st_size < end:
        raise FileRefused("it became shorter while it was copied")
    while offset < end:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
            stop = min(os.lseek(fd, start, os.SEEK_HOLE), end)
        except OSError as error:
            if error.errno != errno.ENXIO:  # a file system that cannot tell
                yield offset, end - offset
            return  # nothing but a hole up to the end of the file
        if start < end:
            yield start, stop - start
        offset = max(stop, start)


def _copy_range(source: int, offset: int, length: int, to: int, at: int) -> None:
    while length:
        try:
            done = os.copy_file_range(source, to, min(length, _KERNEL_CHUNK), offset, at)
        except OSError as error:
            if error.errno not in _NO_COPY:
                raise
            done = 0
        if done == 0:  # also what some file systems say instead of an error
            data = os.pread(source, min(length, _CHUNK), offset)
            if not data:
                raise FileRefused("it became shorter while it was copied")
            _write(to, data, at)
            done = len(data)
        offset += done
        at += done
        length -= done


def _write(to: int, content: bytes, at: int) -> None:
    view = memoryview(content)
    while view:
        done = os.pwrite(to, view, at)
        view = view[done:]
        at += done
