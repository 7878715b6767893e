"""Which writer makes an edit, and the rule that nothing unchecked gets out."""

from __future__ import annotations

from dataclasses import dataclass

from nixpatch.elf.check_inplace import check, check_seen
from nixpatch.elf.digests import Digests
from nixpatch.elf.inplace_writer import EditResult, write_seen
from nixpatch.elf.undo import look
from nixpatch.elf.unfit import Unfit
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, Writer


@dataclass(frozen=True, slots=True)
class Written:
    """A checked file and who wrote it."""

    result: EditResult
    writer: Writer
    declined: str | None = None
    """why the in-place edit would not, where LIEF wrote in its stead"""


def write_checked(
    source: int,
    temp_fd: int,
    edit: ElfEdit,
    original_sha256: bytes | None = None,
    writer: Writer = Writer.INPLACE,
    digests: Digests | None = None,
) -> Written:
    """Write ``source`` with the wished linkage into ``temp_fd`` and hold the result against the original.

    Where the in-place edit declines a file because of its layout, LIEF is tried. The arguments are those of
    :func:`nixpatch.elf.write_edited`.

    Raises ``FileRefused`` if the edit is declined, by LIEF too, or if its outcome fails a check; ``OSError``
    for trouble with reading or writing. What is in ``temp_fd`` then is to be thrown away.
    """
    if writer is Writer.LIEF:
        return _by_lief(source, temp_fd, edit, original_sha256)
    seen = look(source)  # raises where it is no file that anybody could edit
    try:
        result = write_seen(seen, temp_fd, edit, original_sha256, digests)
    except Unfit:
        raise  # the same
    except FileRefused as refused:
        try:
            written = _by_lief(source, temp_fd, edit, original_sha256)
        except FileRefused as too:
            raise FileRefused(f"{refused}; {too}") from None
        return Written(written.result, written.writer, str(refused))
    _must_pass(check_seen(seen, temp_fd, edit))
    return Written(result, Writer.INPLACE)


def _by_lief(source: int, temp_fd: int, edit: ElfEdit, original_sha256: bytes | None) -> Written:
    # Late: hardly any run needs it.
    from nixpatch.elf.check_rewritten import check_rewritten  # noqa: PLC0415
    from nixpatch.elf.lief.writer import write_lief  # noqa: PLC0415

    result = write_lief(source, temp_fd, edit, original_sha256)
    if not result.changed:
        _must_pass(check(source, temp_fd, edit))
        return Written(result, Writer.INPLACE)
    _must_pass(check_rewritten(source, temp_fd, edit), "LIEF's output")
    return Written(result, Writer.LIEF)


def _must_pass(violations: tuple[str, ...], what: str = "the edited file") -> None:
    if violations:
        raise FileRefused(f"{what} failed its checks and was thrown away: {violations[0]}")
