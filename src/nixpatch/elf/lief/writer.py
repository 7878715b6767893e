"""The second writer: LIEF lays the file out anew, in a child process.

LIEF logs errors instead of raising them, ends the process on some input (``std::abort``), needs several times
the file's size in memory, and corrupts files that it has written before. Therefore it gets one original,
once, in a child with limits, and does as little as possible: it adds one segment at free addresses. It must
not rebuild string table, symbols and versions, because it sorts symbols to which relocations refer by index.
Its output is not trusted: :mod:`nixpatch.elf.check_rewritten` decides. There is no undo record.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any, Final

from nixpatch.elf import structs as elf
from nixpatch.elf.dynamic import linkage
from nixpatch.elf.errors import SkippedFile
from nixpatch.elf.headers import Headers, refuse_machine
from nixpatch.elf.inplace_writer import EditResult, write_edited_views, write_original
from nixpatch.elf.lief.tables import SegmentContents, apply_contents, plan_contents
from nixpatch.elf.resolved_edit import resolve_edit
from nixpatch.elf.undo import UndoState, open_views
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit

_CHILD: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")
_MIB: Final = 1 << 20
# Measured over 57 wheels: Python and LIEF map 90 MiB, and for a file at most 5.3 times its size (3,913 MiB
# for the 752 MiB of libtensorflow_cc.so).
_MEMORY_BASE: Final = 512 * _MIB
_MEMORY_FACTOR: Final = 6
SECONDS = 60
"""time limit for a small file"""
_BYTES_PER_SECOND: Final = _MIB  # measured: 100 MiB a second and more
_OUTPUT_LIMIT: Final = 256 << 10  # bytes; an answer has some twenty, an error is a line
_PIPE: Final = 64 << 10
_OUTPUT_FACTOR: Final = 2  # LIEF can enlarge a file by hundreds of megabytes

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
        resolved = resolve_edit(headers, linkage(views.original), edit)
        if resolved.is_noop:
            return write_edited_views(views, temp_fd, edit, original_sha256)
        if views.state is UndoState.STALE:
            raise FileRefused("its undo record is stale, and LIEF may only edit an original")
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
    seconds = SECONDS + size // _BYTES_PER_SECOND
    request = {
        "lief": lief_directory(),
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
    spec = importlib.util.find_spec("lief")
    locations = list(spec.submodule_search_locations or ()) if spec else []
    if not locations:
        raise FileRefused("LIEF is not installed")
    return os.path.dirname(locations[0])


def limits(size: int, seconds: int) -> dict[str, int]:
    """Return the child's limits for a file of ``size`` bytes, by their names in setrlimit(2)."""
    return {
        "RLIMIT_AS": _MEMORY_BASE + _MEMORY_FACTOR * size,
        "RLIMIT_CPU": seconds,
        "RLIMIT_FSIZE": _OUTPUT_FACTOR * size + 64 * _MIB,
        "RLIMIT_CORE": 0,
    }


def _ask(request: Mapping[str, Any], seconds: float, descriptors: tuple[int, ...]) -> int:
    # A new session: Ctrl-C in the terminal must not interrupt the current file. -I and -S: PYTHON*
    # variables, .pth files and modules of the current directory have no effect. The request is a file, not a
    # pipe, because writing to a pipe while the child writes could deadlock.
    with tempfile.TemporaryFile() as request_file:
        request_file.write(json.dumps(request).encode("ascii"))
        request_file.seek(0)
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", _CHILD],
            stdin=request_file,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            start_new_session=True,
            env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
        ) as child:
            try:
                output, log = _read_output(child, time.monotonic() + seconds)
                child.wait(seconds)
            except (TimeoutError, subprocess.TimeoutExpired):
                raise FileRefused(f"LIEF was not done after {seconds} seconds") from None
            finally:
                if child.poll() is None:
                    child.kill()
    return parse_answer(child.returncode, output, log)


def _read_output(child: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes]:
    """Read the child's standard output and standard error until it closes both.

    Args:
        child: the running process.
        deadline: seconds of the monotonic clock.

    Raises:
        FileRefused: it prints too much.
        TimeoutError: the deadline has passed.

    """
    assert child.stdout is not None
    assert child.stderr is not None
    outputs = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as open_pipes:
        for pipe in outputs:
            open_pipes.register(pipe, selectors.EVENT_READ)
        while open_pipes.get_map():
            ready = open_pipes.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                data = os.read(key.fd, _PIPE)
                if not data:
                    open_pipes.unregister(key.fd)
                outputs[key.fd] += data
                if len(outputs[key.fd]) > _OUTPUT_LIMIT:
                    raise FileRefused(f"LIEF prints more than {_OUTPUT_LIMIT >> 10} KiB and was stopped")
    output, log = outputs.values()
    return bytes(output), bytes(log)


def parse_answer(returncode: int, output: bytes, log: bytes) -> int:
    """Return the address in the child's output, which may be anything if LIEF corrupted its memory.

    Raises:
        FileRefused: the child refused the file, died, logged an error or printed no answer.

    """
    if returncode < 0:
        raise FileRefused(f"LIEF died of {_signal(-returncode)}{_last_line(log)}")
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
        raise FileRefused(f"LIEF ended without an answer{_last_line(log)}")
    if log.strip():
        raise FileRefused(f"LIEF reports an error{_last_line(log)}")
    return address


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(log: bytes) -> str:
    lines = log.decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1]}" if lines else ""
