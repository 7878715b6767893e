"""The second writer: LIEF lays the file out anew, in a child process.

LIEF logs errors instead of raising them, ends the process on some input (``std::abort``), needs several times
the file's size in memory, and corrupts files that it has written before. Therefore it gets one original,
once, in a child with limits, and does as little as possible: it adds one segment at free addresses. It must
not rebuild string table, symbols and versions, because it sorts symbols to which relocations refer by index.
Its output is not trusted: :mod:`nixpatch.elf.check_rewritten` decides. There is no undo record.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Mapping
from typing import Any, Final

from nixpatch.elf import structs as elf
from nixpatch.elf.child_process import ChildProcess, died, last_line, limits, package_directory, seconds_for
from nixpatch.elf.edit_subject import read_subject
from nixpatch.elf.errors import SkippedFile
from nixpatch.elf.headers import Headers, refuse_machine
from nixpatch.elf.inplace_writer import EditResult, write_edited_views, write_original
from nixpatch.elf.lief.tables import SegmentContents, apply_contents, plan_contents
from nixpatch.elf.resolved_edit import resolve_edit
from nixpatch.elf.undo import UndoState, open_views
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, ManualEdit

# LIEF silently ignores the bytes beyond these limits (its ELF/Parser.hpp and ELF/Section.hpp).
_SECTION: Final = 2 << 30
_SEGMENT: Final = 3 << 30


def write_lief(
    source: str | int, temp_fd: int, edit: ElfEdit, original_sha256: bytes | None = None
) -> EditResult:
    """Let LIEF write ``source`` with an edited linkage into ``temp_fd``.

    The arguments are those of :func:`nixpatch.elf.inplace_writer.write_edited`. An edit to the original's own
    linkage gives the original, without LIEF. The caller checks the result
    (:func:`nixpatch.elf.check_rewritten.check_rewritten`).

    Raises:
        FileRefused: LIEF cannot be imported, dies, exceeds a limit, or cannot make this edit.
        OSError: reading or writing failed.

    """
    with open_views(source) as views:
        image, headers = views.original.image, views.original.headers
        if edit.renames:
            raise FileRefused("only the in-place edit can rename a needed library")
        if edit.manual != ManualEdit():
            raise FileRefused("only the in-place edit changes more than the search path and the interpreter")
        subject = read_subject(views.original, edit)
        resolved = resolve_edit(headers, subject, edit)
        if resolved.is_noop:
            return write_edited_views(views, temp_fd, edit, original_sha256)
        if views.state is UndoState.STALE:
            raise FileRefused("its undo record is stale, and LIEF may only edit an original")
        if resolved.resolution_cache is not None and subject.linkage.resolution_cache:
            raise FileRefused("only the in-place edit can drop or change its resolution cache")
        if resolved.resolution_cache:
            raise FileRefused("only the in-place edit can write a resolution cache")
        _refuse_unsuitable(headers, image.size)
        contents = plan_contents(views.original, resolved)
        if views.state is UndoState.INTACT:
            with tempfile.TemporaryFile() as scratch:
                digest = write_original(image.fd, scratch.fileno())
                address = _run(scratch.fileno(), temp_fd, headers, image.size, contents)
        else:
            digest = original_sha256 or image.sha256()
            address = _run(image.fd, temp_fd, headers, image.size, contents)
        try:
            apply_contents(headers, temp_fd, resolved, contents, address)
        except SkippedFile as error:
            raise FileRefused(f"LIEF's output cannot be read: {error}") from None
        size = os.fstat(temp_fd).st_size
        return EditResult(size, True, digest, ("written by LIEF: cannot be undone",))


def _refuse_unsuitable(headers: Headers, size: int) -> None:
    refuse_machine(headers)
    if any(s.size >= _SECTION and s.type != elf.SHT_NOBITS for s in headers.shdrs):
        raise FileRefused("LIEF reads only the first 2 GiB of a section")
    if size >= _SEGMENT:
        raise FileRefused("LIEF reads only the first 3 GiB of a segment")


def _run(source: int, output: int, headers: Headers, size: int, contents: SegmentContents) -> int:
    """Run LIEF. Return the address of the segment that it added."""
    os.ftruncate(output, 0)
    seconds = seconds_for(size)
    request = {
        "source": source,
        "output": output,
        "limits": limits(size, seconds),
        "program": headers.interp_segment is not None,
        "flags": contents.flags,
        "alignment": headers.machine.arch.max_page,
        "content": base64.b64encode(contents.data).decode("ascii"),
    }
    address = _ask(request, seconds, (source, output))
    if os.fstat(output).st_size < size:
        raise FileRefused("LIEF wrote less than the file it was given")
    return address


def lief_directory() -> str:
    """Find the directory of LIEF without importing it.

    Raises:
        FileRefused: it is not installed.

    """
    return package_directory("lief", "LIEF")


def _ask(request: Mapping[str, Any], seconds: float, descriptors: tuple[int, ...]) -> int:
    with ChildProcess("LIEF", "nixpatch.elf.lief.child", lief_directory(), request, descriptors) as child:
        output = child.answer(seconds)
        returncode, log = child.end(seconds)
    return parse_answer(returncode, output, log)


def parse_answer(returncode: int, output: bytes, log: bytes) -> int:
    """Return the address in the child's output, which may be anything if LIEF corrupted its memory.

    Raises:
        FileRefused: the child refused the file, died, logged an error or printed no answer.

    """
    if returncode < 0:
        raise died("LIEF", returncode, log)
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    if "refused" in answer:
        raise FileRefused(str(answer["refused"]))
    address = answer.get("address")
    if type(address) is not int or address < 0:
        raise died("LIEF", returncode, log)
    if log.strip():
        raise FileRefused(f"LIEF reports an error{last_line(log)}")
    return address
