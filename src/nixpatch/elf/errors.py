"""The exception of the ELF reader."""

from __future__ import annotations

from nixpatch.errors import FileRefused
from nixpatch.model import Skip, SkipReason


class SkippedFile(FileRefused):
    """A file that is not a well-formed dynamic ELF file.

    :func:`nixpatch.elf.facts.read` returns ``skip`` instead. Callers of writers treat it as ``FileRefused``.
    """

    def __init__(self, reason: SkipReason, detail: str = "") -> None:
        self.skip = Skip(reason, detail)
        super().__init__(self.skip.text)


def malformed(detail: str) -> SkippedFile:
    """Make the exception for headers that contradict the file or each other."""
    return SkippedFile(SkipReason.MALFORMED, detail)
