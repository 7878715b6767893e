"""From a file to the facts that the rest of nixpatch decides on."""

from __future__ import annotations

from dataclasses import replace

from nixpatch.elf import dynamic
from nixpatch.elf import structs as elf
from nixpatch.elf.dlopen_notes import dlopen_needs
from nixpatch.elf.payload import payload
from nixpatch.elf.segment_growth import room_for
from nixpatch.elf.source import opened
from nixpatch.elf.undo import Opened, State, look
from nixpatch.elf.unfit import Unfit, malformed
from nixpatch.errors import FileRefused
from nixpatch.model import ElfFacts, Skip, SkipReason

_LOOKUPS = 1 << 17
"""needs times search path entries; everybody who asks what a file loads goes through all of them"""


def read(source: str | int, *, payload_ok: bool = False) -> ElfFacts | Skip:
    """Tell what the headers of one file say, or why nixpatch leaves it alone.

    ``source`` is a path, or a descriptor that stays open. ``payload_ok`` lets executables through that carry
    appended data. Reads headers, the dynamic section, its strings and version records, nothing else: well
    below a millisecond. Any malformed input is a ``Skip``; raises only ``OSError``, for trouble with reading.
    """
    try:
        with opened(source) as fd:
            seen = look(fd)
            return _facts(seen, payload_ok=payload_ok)
    except Unfit as unfit:
        return Skip(unfit.reason, unfit.detail)


def original_sha256(source: str | int) -> bytes:
    """Digest the file as it was before nixpatch, computed from its bytes, not believed from its record.

    Reads the whole file once. For a file without an intact undo record it is the digest of the file as it is.
    Raises ``FileRefused`` for anything that :func:`read` skips as unreadable, and ``OSError``.
    """
    with opened(source) as fd:
        return look(fd).original_image.sha256()


def _facts(seen: Opened, *, payload_ok: bool) -> ElfFacts | Skip:
    image, headers = seen.current_image, seen.current
    if not payload_ok:
        appended = payload(seen.original_image, seen.original)
        if appended:
            return Skip(SkipReason.PAYLOAD, appended)
    flags = headers.values.get(elf.DT_FLAGS_1, 0)
    current = dynamic.linkage(image, headers)
    needed, opened_later = dynamic.needed(image, headers), dlopen_needs(image, headers)
    names = len(needed) + sum(len(need.sonames) for need in opened_later)
    entries = (current.search_path or "").count(":") + 1
    if names * entries > _LOOKUPS:
        raise malformed(f"{names} needs, to be looked for in {entries} directories")
    intact = seen.state is State.INTACT
    if intact:
        before = dynamic.needed(seen.original_image, seen.original)
        if len(before) == len(needed):
            pairs = {(old, new) for old, new in zip(before, needed, strict=True) if old != new}
            current = replace(current, renamed=tuple(sorted(pairs)))
    return ElfFacts(
        machine=headers.machine,
        executable=headers.ehdr.type == elf.ET_EXEC or bool(flags & elf.DF_1_PIE),
        soname=dynamic.soname(image, headers),
        needed=needed,
        current=current,
        original=dynamic.linkage(seen.original_image, seen.original) if intact else current,
        original_sha256=seen.footer.sha256 if intact and seen.footer else None,
        stale_undo=seen.state is State.STALE,
        no_default_lib=bool(flags & elf.DF_1_NODEFLIB),
        both_tags={elf.DT_RPATH, elf.DT_RUNPATH} <= headers.values.keys(),
        version_needs=dynamic.version_needs(image, headers),
        version_defs=dynamic.version_defs(image, headers),
        dlopen_needs=opened_later,
        obstacle=_obstacle(seen),
    )


def _obstacle(seen: Opened) -> str | None:
    """Tell beforehand what the writer would refuse. An edit of a full dynamic section it may refuse still."""
    try:
        room_for(seen.original, seen.original_image.size, None)
    except FileRefused as refused:
        return str(refused)
    return None
