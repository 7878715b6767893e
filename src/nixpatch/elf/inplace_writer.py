"""The in-place writer: copy what stays, write what is new, into a temporary file that the caller owns."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from nixpatch.elf.check_inplace import undo_violations
from nixpatch.elf.edit_plan import EditPlan, plan_edit
from nixpatch.elf.edit_subject import read_subject
from nixpatch.elf.errors import SkippedFile
from nixpatch.elf.headers import ElfFile
from nixpatch.elf.image import Image
from nixpatch.elf.resolution_cache import read_notes
from nixpatch.elf.symbol_tables import highest_string
from nixpatch.elf.undo import ElfViews, UndoState, guard, open_views
from nixpatch.elf.undo_record import UndoFooter
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit

_CHUNK = 1 << 20
_DIGEST_CHUNK = 1 << 18  # bytes; fits into a core's cache
_KERNEL_CHUNK = 1 << 30
_SHRUNK = "it became shorter while it was copied"
# Errors of copy_file_range(2) if the kernel, the file system or a sandbox does not support it.
_NO_COPY = {errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EBADF}


class Digest(Protocol):
    """Digests a file front to back."""

    def update(self, data: memoryview, /) -> None:
        """Add the next bytes."""

    def sha256(self) -> bytes:
        """Return the SHA-256 of all bytes so far."""


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of the file as it is and of the edited file, filled in one pass over the bytes they share.

    Digesting takes longer than copying, so bytes should come from memory once, not once a digest.
    """

    before: Digest
    after: Digest


@dataclass(frozen=True, slots=True)
class EditResult:
    """Result of one edit."""

    size: int
    """size of the new file in bytes"""
    changed: bool
    """False: the edit asks for the original's linkage, and the new file is the original"""
    original_sha256: bytes
    notes: tuple[str, ...] = ()
    digested: bool = False
    """the caller's :class:`Digests` cover both files completely; otherwise they are useless"""


def write_edited(
    source: str | int,
    temp_fd: int,
    edit: ElfEdit,
    original_sha256: bytes | None = None,
    digests: Digests | None = None,
) -> EditResult:
    """Write ``source`` with an edited linkage into ``temp_fd``.

    The edit starts from the original, which the undo record of an earlier edit gives, so ten edits give the
    bytes of the last one alone. An edit to the original's own linkage gives the original.

    Args:
        source: a path, or a descriptor, which stays open; its position is undefined afterwards.
        temp_fd: an empty regular file, open for reading and writing. The caller owns it, its mode, fsync and
            rename, and discards it on any exception.
        edit: the linkage that the file is to have. ``edit.tag`` counts only with a search path.
        original_sha256: digest of the original, trusted; None computes it. For a patched file, the one in its
            undo record is used instead.
        digests: filled with the bytes of both files if one pass over them is enough, which it is not for a
            patched file; see ``EditResult.digested``. Without ``original_sha256``, it comes from here.

    Raises:
        FileRefused: the file cannot be edited safely.
        OSError: reading or writing failed.

    """
    with open_views(source) as views:
        return write_edited_views(views, temp_fd, edit, original_sha256, digests)


def write_edited_views(
    views: ElfViews,
    temp_fd: int,
    edit: ElfEdit,
    original_sha256: bytes | None = None,
    digests: Digests | None = None,
) -> EditResult:
    """Do the work of :func:`write_edited` for a file that is parsed and still open."""
    original, image = views.original, views.original.image
    if views.state is UndoState.INTACT:
        _refuse_forged(views)
        digests = None
        original_sha256 = views.footer.sha256 if views.footer else original_sha256
    stale = views.footer if views.state is UndoState.STALE else None
    if stale and not _can_discard(original, stale):
        stale = replace(stale, string_size=0)  # keeps its area
    plan = plan_edit(
        original.headers,
        image.size,
        read_subject(original, edit),
        edit,
        stale=stale,
        notes=read_notes(original),
    )
    if plan is None:
        digest = original_sha256 or image.sha256()
        _write_whole(image, temp_fd)
        return EditResult(image.size, changed=False, original_sha256=digest)
    if digests is not None:
        _digest_source(image, plan, digests)
    digest = original_sha256 or (digests.before.sha256() if digests is not None else image.sha256())
    _write_plan(image, temp_fd, plan, digest)
    if digests is not None:
        _digest_rest(temp_fd, plan, digests.after)
    return EditResult(plan.size, True, digest, plan.notes, digests is not None)


def _can_discard(file: ElfFile, stale: UndoFooter) -> bool:
    """Whether no symbol and no version has its name in the area of a stale edit."""
    try:
        return highest_string(file) < stale.string_size
    except SkippedFile:  # such as too many symbols
        return False


def write_original(source: str | int, temp_fd: int) -> bytes:
    """Write the original of a patched file into ``temp_fd``.

    Returns:
        the SHA-256 of the original, which agrees with the undo record.

    Raises:
        FileRefused: there is no undo record, another tool changed the file since, or the result is not the
            file that was patched.
        OSError: reading or writing failed.

    """
    with open_views(source) as views:
        if views.state is UndoState.NONE:
            raise FileRefused("it holds no undo record: nixpatch has not patched it")
        if views.state is UndoState.STALE or views.footer is None:
            raise FileRefused(
                "its undo record is stale: another tool (such as strip) changed the file after the patch; "
                "install the package again to get the original"
            )
        _refuse_forged(views)
        _write_whole(views.original.image, temp_fd)
        digest = Image.of(temp_fd).sha256()
        if digest != views.footer.sha256:
            raise FileRefused(
                "what its undo record gives is not the original (SHA-256 differs): another tool changed the "
                "file after the patch; install the package again to get the original"
            )
        return digest


def _refuse_forged(views: ElfViews) -> None:
    violations = undo_violations(views)
    if violations:
        raise FileRefused(f"its undo record is not from an edit of this file: {violations[0]}")


def _write_whole(image: Image, fd: int) -> None:
    os.ftruncate(fd, 0)
    os.ftruncate(fd, image.size)
    _copy(image, 0, image.size, fd, 0)


def _write_plan(image: Image, fd: int, plan: EditPlan, sha256: bytes) -> None:
    os.ftruncate(fd, 0)
    os.ftruncate(fd, plan.size)  # a hole: .bss takes no disk space
    for copy in plan.copies:
        _copy(image, copy.offset, copy.length, fd, copy.to)
    for offset, content in plan.writes:
        _write(fd, content, offset)
    footer = replace(plan.footer, sha256=sha256) if plan.record else plan.footer
    _write(fd, footer.pack(), plan.footer_offset)
    # The checksum covers the bytes that the file really holds.
    written = Image.of(fd)
    tables = (written.read(offset, length) for offset, length in plan.tables)
    checksum = guard(written, tables, plan.record, footer, plan.left)
    _write(fd, replace(footer, guard=checksum).pack(), plan.footer_offset)


def _digest_source(image: Image, plan: EditPlan, digests: Digests) -> None:
    """Digest the source, and those bytes of the edited file that keep their place."""
    writes = [(offset, content) for offset, content in plan.writes if offset < plan.head]
    buffer = bytearray(min(_DIGEST_CHUNK, image.size))
    view = memoryview(buffer)
    start = 0
    while start < image.size:
        count = min(os.preadv(image.fd, [buffer], start), image.size - start)
        if count <= 0:
            raise FileRefused("it became shorter while it was read")
        digests.before.update(view[:count])
        inside = min(count, plan.head - start)
        if inside > 0:
            for offset, content in writes:
                first, last = max(offset, start), min(offset + len(content), start + inside)
                if first < last:
                    view[first - start : last - start] = content[first - offset : last - offset]
            digests.after.update(view[:inside])
        start += count


def _digest_rest(fd: int, plan: EditPlan, digest: Digest) -> None:
    """Digest the bytes of the edited file that :func:`_digest_source` did not."""
    buffer = bytearray(min(_DIGEST_CHUNK, plan.size - plan.head))
    view = memoryview(buffer)
    start = plan.head
    while start < plan.size:
        count = os.preadv(fd, [buffer], start)
        if count <= 0 or start + count > plan.size:
            raise FileRefused("what was written does not have the length that it should have")
        digest.update(view[:count])
        start += count


def _copy(image: Image, offset: int, length: int, fd: int, to: int) -> None:
    for start, count, file_offset in image.ranges(offset, length):
        for data, size in _data_ranges(image.fd, file_offset, count):
            _copy_range(image.fd, data, size, fd, to + start - offset + data - file_offset)
    for patch in image.patches_in(offset, length):
        _write(fd, patch.data, to + patch.offset - offset)


def _data_ranges(fd: int, offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield ``(offset, length)`` of the parts that are not holes, which are holes in the new file already."""
    end = offset + length
    if os.fstat(fd).st_size < end:
        raise FileRefused(_SHRUNK)
    while offset < end:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
            stop = min(os.lseek(fd, start, os.SEEK_HOLE), end)
        except OSError as error:
            if error.errno != errno.ENXIO:  # the file system does not support it
                yield offset, end - offset
            return  # only a hole up to the end of the file
        if start < end:
            yield start, stop - start
        offset = max(stop, start)


def _copy_range(source: int, offset: int, length: int, fd: int, to: int) -> None:
    while length:
        try:
            done = os.copy_file_range(source, fd, min(length, _KERNEL_CHUNK), offset, to)
        except OSError as error:
            if error.errno not in _NO_COPY:
                raise
            done = 0
        if done == 0:  # some file systems return this instead of an error
            data = os.pread(source, min(length, _CHUNK), offset)
            if not data:
                raise FileRefused(_SHRUNK)
            _write(fd, data, to)
            done = len(data)
        offset += done
        to += done
        length -= done


def _write(fd: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        done = os.pwrite(fd, view, offset)
        view = view[done:]
        offset += done
