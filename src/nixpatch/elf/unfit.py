"""The one exception that the reader and the editor use among themselves."""

from __future__ import annotations

from nixpatch.errors import FileRefused
from nixpatch.model import SkipReason


class Unfit(FileRefused):
    """A file that cannot be read or edited as dynamic ELF, with the category people see.

    :func:`nixpatch.elf.facts` turns it into a ``Skip``; out of the writer it is a plain ``FileRefused``.
    """

    def __init__(self, reason: SkipReason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


def malformed(detail: str) -> Unfit:
    """Make the common case: something in the headers contradicts the file or itself."""
    return Unfit(SkipReason.MALFORMED, detail)
