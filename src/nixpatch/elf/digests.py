"""Digesting a file and what an edit makes of it in one reading of what the two share.

To digest takes longer than to copy, so a file should come from memory once, not once for each digest.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nixpatch.errors import FileRefused

if TYPE_CHECKING:
    from nixpatch.elf.edit_plan import EditPlan

_CHUNK = 1 << 18  # bytes; stays in the cache of a core


class Digest(Protocol):
    """Takes the bytes of a file from front to back."""

    def update(self, data: memoryview, /) -> None:
        """Take what comes next."""

    def sha256(self) -> bytes:
        """Return the SHA-256 of what has come so far."""


@dataclass(frozen=True, slots=True)
class Digests:
    """One for the file as it is, one for the edited file."""

    before: Digest
    after: Digest


def digest_source(source: int, size: int, plan: EditPlan, digests: Digests) -> None:
    """Give ``before`` a file of ``size`` bytes, and ``after`` what of the edited one keeps its place.

    Raises ``FileRefused`` if the file has become shorter, and ``OSError``.
    """
    writes = [(at, content) for at, content in plan.writes if at < plan.head]
    buffer = bytearray(min(_CHUNK, size))
    view = memoryview(buffer)
    start = 0
    while start < size:
        count = min(os.preadv(source, [buffer], start), size - start)
        if count <= 0:
            raise FileRefused("it became shorter while it was read")
        digests.before.update(view[:count])
        inside = min(count, plan.head - start)
        if inside > 0:
            for at, content in writes:
                first, last = max(at, start), min(at + len(content), start + inside)
                if first < last:
                    view[first - start : last - start] = content[first - at : last - at]
            digests.after.update(view[:inside])
        start += count


def digest_rest(edited: int, plan: EditPlan, digest: Digest) -> None:
    """Give a digest what comes after the bytes that keep their place, as it stands in the edited file.

    Raises ``FileRefused`` if the file is not as long as planned, and ``OSError``.
    """
    buffer = bytearray(min(_CHUNK, plan.size - plan.head))
    view = memoryview(buffer)
    start = plan.head
    while start < plan.size:
        count = os.preadv(edited, [buffer], start)
        if count <= 0 or start + count > plan.size:
            raise FileRefused("what was written does not have the length that it should have")
        digest.update(view[:count])
        start += count
