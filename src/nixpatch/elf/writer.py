"""The choice of a writer, and the rule that no unchecked file leaves this package."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nixpatch.elf.check_inplace import check, check_views
from nixpatch.elf.errors import SkippedFile
from nixpatch.elf.inplace_writer import Digests, EditResult, write_edited_views
from nixpatch.elf.undo import views_of
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, Writer


@dataclass(frozen=True, slots=True)
class CheckedEdit:
    """An edit that passed its checks."""

    result: EditResult
    writer: Writer
    declined: str | None = None
    """why the in-place writer declined, if LIEF wrote the file instead"""


def write_checked(
    source: int,
    temp_fd: int,
    edit: ElfEdit,
    original_sha256: bytes | None = None,
    writer: Writer = Writer.INPLACE,
    digests: Digests | None = None,
    *,
    foreign: bool = False,
) -> CheckedEdit:
    """Write ``source`` with an edited linkage into ``temp_fd`` and check the result against the original.

    If the in-place writer declines the layout of the file, LIEF is tried. The arguments are those of
    :func:`nixpatch.elf.inplace_writer.write_edited`; ``foreign`` ignores the undo record of ``source``, so
    that the file as it is becomes the original of the new one.

    Raises:
        FileRefused: every writer declined, or the result failed a check. The caller discards ``temp_fd``.
        OSError: reading or writing failed. The caller discards ``temp_fd``.

    """
    if writer is Writer.LIEF and not foreign:
        return _write_by_lief(source, temp_fd, edit, original_sha256)
    views = views_of(source)  # raises SkippedFile for a file that no writer can edit
    if foreign:
        views = views.without_record()
    try:
        result = write_edited_views(views, temp_fd, edit, original_sha256, digests)
    except SkippedFile:
        raise
    except FileRefused as declined:
        if foreign:  # LIEF would be given the original of the record
            raise
        if edit.resolution_cache:  # never a reason to refuse the rest
            rest = replace(edit, resolution_cache=None)
            checked = write_checked(source, temp_fd, rest, original_sha256, writer, digests, foreign=foreign)
            notes = (*checked.result.notes, f"no resolution cache: {declined}")
            return replace(checked, result=replace(checked.result, notes=notes))
        try:
            written = _write_by_lief(source, temp_fd, edit, original_sha256)
        except FileRefused as refused:
            both = (str(declined), str(refused))
            raise FileRefused("; ".join(dict.fromkeys(both))) from None
        return CheckedEdit(written.result, written.writer, str(declined))
    must_pass(check_views(views, temp_fd, edit))
    return CheckedEdit(result, Writer.INPLACE)


def _write_by_lief(source: int, temp_fd: int, edit: ElfEdit, original_sha256: bytes | None) -> CheckedEdit:
    # Imported here, because few runs need it.
    from nixpatch.elf.check_rewritten import check_rewritten  # noqa: PLC0415
    from nixpatch.elf.lief.writer import write_lief  # noqa: PLC0415

    result = write_lief(source, temp_fd, edit, original_sha256)
    if not result.changed:
        must_pass(check(source, temp_fd, edit))
        return CheckedEdit(result, Writer.INPLACE)
    must_pass(check_rewritten(source, temp_fd, edit), "LIEF's output")
    return CheckedEdit(result, Writer.LIEF)


def must_pass(violations: tuple[str, ...], subject: str = "the edited file") -> None:
    """Refuse an edited file that violates a check.

    Raises:
        FileRefused: there are violations; the message has the first.

    """
    if violations:
        raise FileRefused(f"{subject} failed its checks and was thrown away: {violations[0]}")
