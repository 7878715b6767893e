"""The facts of one ELF file on which the rest of nixpatch decides."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import replace

from nixpatch.elf import dynamic
from nixpatch.elf import structs as elf
from nixpatch.elf.dlopen_notes import dlopen_needs
from nixpatch.elf.errors import SkippedFile, malformed
from nixpatch.elf.headers import ident_error, library_machine
from nixpatch.elf.image import Image
from nixpatch.elf.manual_edit import renames_and_manual_edit
from nixpatch.elf.payload import payload
from nixpatch.elf.resolution_cache import obstacle
from nixpatch.elf.segment_growth import plan_growth
from nixpatch.elf.undo import ElfViews, UndoState, open_source, open_views
from nixpatch.errors import FileRefused
from nixpatch.model import ElfFacts, Machine, ManualEdit, SearchStop, Skip, SkipReason
from nixpatch.model.elf import ELF_MAGIC

_LOOKUPS = 1 << 17
"""bound on needs times search path entries, which every simulation of a loader visits"""


def read(
    source: str | int, *, payload_ok: bool = False, foreign: bool = False, any_os: bool = False
) -> ElfFacts | Skip:
    """Read the headers of one file, or return why nixpatch leaves it alone.

    Reads only headers, the dynamic section, its strings, version records and notes: well below a millisecond.
    Any malformed file is a ``Skip``.

    Args:
        source: a path, or a descriptor, which stays open.
        payload_ok: accept executables with appended data.
        foreign: ignore the undo record: the file as it is counts as its original.
        any_os: accept files for other operating systems, whatever ``e_ident`` says.

    Raises:
        OSError: it cannot be read.

    """
    try:
        with open_views(source) as views:
            osabi = views.current.headers.ident[elf.EI_OSABI]
            if osabi not in elf.LINUX_OSABIS and not any_os:
                return Skip(SkipReason.OTHER_OSABI, f"OSABI {osabi}")
            considered = views.without_record() if foreign else views
            facts = _facts(considered, payload_ok=payload_ok, any_os=any_os)
            return replace(facts, foreign_undo=foreign) if isinstance(facts, ElfFacts) else facts
    except SkippedFile as skipped:
        return skipped.skip


def search_stop(path: str, machine: Machine) -> SearchStop | None:
    """Return why ld.so ends a search at a path; None if it opens the file, or passes by.

    It passes by what does not exist or cannot be read, and by files of another class or machine. Everything
    else is an error, though another directory of the search path may have the library (open_verify, open_path
    and _dl_map_object_from_fd in elf/dl-load.c of glibc).

    Args:
        path: a file of the needed name in a directory of a search path; links are followed.
        machine: of the process.

    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kind = next((text for is_kind, text in _KINDS if is_kind(mode)), "a device")
            return SearchStop(f"is {kind}", is_fatal=not stat.S_ISSOCK(mode))
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            return _stop_in(file.fileno(), machine)
    except OSError as error:
        is_passed = error.errno in {errno.ENOENT, errno.EACCES} or not os.path.isdir(os.path.dirname(path))
        return None if is_passed else SearchStop(f"cannot be opened ({error.strerror})", is_fatal=False)


_KINDS = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))


def _stop_in(fd: int, machine: Machine) -> SearchStop | None:
    layout = next(
        layout
        for layout in elf.LAYOUTS.values()
        if (layout.bits, layout.byteorder) == (machine.bits, machine.byteorder)
    )
    head = os.pread(fd, layout.ehdr.size, 0)
    if not head.startswith(ELF_MAGIC) or len(head) < layout.ehdr.size:
        return SearchStop(f"is no ELF file ({os.fstat(fd).st_size} bytes)")
    if head[elf.EI_CLASS] * 32 != machine.bits:
        return None
    ehdr = layout.ehdr_of(head)  # in the byte order of the process, as ld.so reads it
    is_same_order = elf.LAYOUTS.get((head[elf.EI_CLASS], head[elf.EI_DATA])) is layout
    if ehdr.machine != machine.number:
        # ld.so looks at the version before it looks at the machine, unless e_ident is odd as well.
        is_odd = not is_same_order or ident_error(head[: elf.EI_NIDENT]) is not None
        is_passed = is_odd or ehdr.version == elf.EV_CURRENT
        return None if is_passed else SearchStop(f"is an ELF file of version {ehdr.version}")
    if not is_same_order:
        return SearchStop("is an ELF file of another byte order")
    result = read(fd, payload_ok=True)
    if isinstance(result, Skip):
        return SearchStop(f"is no library that can be loaded ({result.text})")
    return SearchStop("is a program") if result.executable else None


def machine_of_library(source: str | int) -> Machine | None:
    """Return the machine of a shared library, by its ELF header alone; None for any other file.

    Raises:
        OSError: it cannot be read.

    """
    try:
        with open_source(source) as fd:
            return library_machine(Image.of(fd))
    except SkippedFile:
        return None


def undo_is_plausible(source: str | int) -> bool:
    """Whether an undo record gives what its digest says, and nothing that an edit of this file cannot change.

    Reads the whole file once. Any file may bring such a record: it shows that an edit by nixpatch may have
    made the file, not that one did.

    Raises:
        FileRefused: :func:`read` skips it as unreadable.
        OSError: it cannot be read.

    """
    from nixpatch.elf.check_inplace import undo_violations  # noqa: PLC0415 - most runs need no checks

    with open_views(source) as views:
        digest = views.footer.sha256 if views.state is UndoState.INTACT and views.footer else None
        return digest == views.original.image.sha256() and not undo_violations(views, strict=True)


def original_sha256(source: str | int) -> bytes:
    """Digest a file as it was before nixpatch, from its bytes, without trust in its undo record.

    Reads the whole file once. Without an intact undo record, this is the digest of the file as it is.

    Raises:
        FileRefused: :func:`read` skips it as unreadable.
        OSError: it cannot be read.

    """
    with open_views(source) as views:
        return views.original.image.sha256()


def feed_original(source: str | int, update: Callable[[bytes], object]) -> None:
    """Hand the bytes of a file as it was before nixpatch to ``update``, from front to back.

    Raises:
        FileRefused: :func:`read` skips it as unreadable.
        OSError: it cannot be read.

    """
    with open_views(source) as views:
        views.original.image.feed(update)


def cache_obstacle(source: str | int) -> str | None:
    """Return why the in-place writer cannot give a file a resolution cache; None if it can.

    Raises:
        FileRefused: :func:`read` skips it as unreadable.
        OSError: it cannot be read.

    """
    with open_views(source) as views:
        return _obstacle(views) or obstacle(views.original)


def _facts(views: ElfViews, *, payload_ok: bool, any_os: bool) -> ElfFacts | Skip:
    file, headers = views.current, views.current.headers
    appended = None if payload_ok else payload(views.original)
    if appended:
        return Skip(SkipReason.PAYLOAD, appended)
    error = headers.load_error if any_os else headers.mapping_error
    if error is not None:
        return Skip(SkipReason.UNMAPPABLE, error)
    flags = headers.values.get(elf.DT_FLAGS_1, 0)
    current, needed, dlopened = dynamic.linkage(file), dynamic.needed(file), dlopen_needs(file)
    names = len(needed) + sum(len(need.sonames) for need in dlopened)
    entries = (current.search_path or "").count(":") + 1
    if names * entries > _LOOKUPS:
        raise malformed(f"{names} needs, to be looked for in {entries} directories")
    intact = views.state is UndoState.INTACT
    manual = ManualEdit()
    if intact:
        renames, manual = renames_and_manual_edit(views)
        current = replace(current, renamed=renames)
    return ElfFacts(
        machine=headers.machine,
        executable=headers.ehdr.type == elf.ET_EXEC or bool(flags & elf.DF_1_PIE),
        soname=dynamic.soname(file),
        needed=needed,
        current=current,
        original=dynamic.linkage(views.original) if intact else current,
        original_sha256=views.footer.sha256 if intact and views.footer else None,
        stale_undo=views.state is UndoState.STALE,
        no_default_lib=bool(flags & elf.DF_1_NODEFLIB),
        debug_tag=elf.DT_DEBUG in headers.values,
        both_tags={elf.DT_RPATH, elf.DT_RUNPATH} <= headers.values.keys(),
        version_needs=dynamic.version_needs(file),
        version_defs=dynamic.version_defs(file),
        dlopen_needs=dlopened,
        original_needed=dynamic.needed(views.original) if intact else (),
        manual=manual,
        obstacle=_obstacle(views),
        os_abi=headers.ident[elf.EI_OSABI],
        executable_stack=headers.stack_segment and bool(headers.stack_segment.flags & elf.PF_X),
    )


def _obstacle(views: ElfViews) -> str | None:
    """Return why the in-place writer would refuse any edit. It may refuse a full dynamic section besides."""
    try:
        plan_growth(views.original.headers, views.original.image.size, None)
    except FileRefused as refused:
        return str(refused)
    return None
