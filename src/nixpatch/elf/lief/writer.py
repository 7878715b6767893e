"""The second writer: LIEF lays the file out, in a process that may die.

LIEF logs errors instead of raising them, ends the process on some input (``std::abort``), takes several times
the file in memory, and corrupts what it has written before. So it gets one file, once, in a child with
limits, starting from the original, and is asked for as little as can be: one more segment, at addresses that
are free. Letting it build string table, symbols and versions anew was tried: it sorts symbols that
relocations refer to by index. Nothing of what it leaves is believed: :mod:`nixpatch.elf.check_rewritten`
decides. There is no undo record.
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
from nixpatch.elf.headers import Headers, refuse_machine
from nixpatch.elf.inplace_writer import EditResult, write_edited, write_original
from nixpatch.elf.lief.tables import Contents, contents_for, point_at
from nixpatch.elf.resolved_edit import wish_of
from nixpatch.elf.source import opened
from nixpatch.elf.undo import State, look
from nixpatch.elf.unfit import Unfit
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit

_CHILD: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")
_MIB: Final = 1 << 20
# Measured over 57 wheels: Python and LIEF map 90 MiB, and for a file at most 5.3 times its size (3,913 MiB
# for the 752 MiB of libtensorflow_cc.so).
_MEMORY_BASE: Final = 512 * _MIB
_MEMORY_FACTOR: Final = 6
SECONDS = 60
"""for a small file"""
_BYTES_PER_SECOND: Final = _MIB  # measured: 100 MiB a second and more
_MOST_SAID: Final = 256 << 10  # bytes; an answer has some twenty, an error a line
_PIPE: Final = 64 << 10
_OUTPUT_FACTOR: Final = 2  # LIEF can blow a file up by hundreds of megabytes

# What LIEF leaves away without a word (its ELF/Parser.hpp and ELF/Section.hpp).
_SECTION: Final = 2 << 30
_SEGMENT: Final = 3 << 30


def write_lief(
    source: str | int, temp_fd: int, edit: ElfEdit, original_sha256: bytes | None = None
) -> EditResult:
    """Let LIEF write ``source`` with the wished linkage into ``temp_fd``; as :func:`write_edited` otherwise.

    A wish that equals the original's linkage gives the original, without LIEF. The result is not yet checked:
    hold it against the original with :func:`nixpatch.elf.check_rewritten`.

    Raises ``FileRefused`` if LIEF cannot be imported, dies, takes too long or too much, or cannot express the
    edit; ``OSError`` for trouble with reading or writing.
    """
    with opened(source) as fd:
        seen = look(fd)
        image, headers = seen.original_image, seen.original
        if edit.renames:
            raise FileRefused("only the in-place edit can rename a needed library")
        wish = wish_of(headers, linkage(image, headers), edit)
        if wish.nothing:
            return write_edited(fd, temp_fd, edit, original_sha256)
        if seen.state is State.STALE:
            raise FileRefused("its undo record is stale, and LIEF may only edit an original")
        _must_suit_lief(headers, image.size)
        contents = contents_for(image, headers, wish)
        if seen.state is State.INTACT:
            with tempfile.TemporaryFile() as scratch:
                digest = write_original(fd, scratch.fileno())
                address = _run(scratch.fileno(), temp_fd, headers, image.size, contents)
        else:
            digest = original_sha256 or image.sha256()
            address = _run(fd, temp_fd, headers, image.size, contents)
        try:
            point_at(headers, temp_fd, wish, contents, address)
        except Unfit as unfit:
            raise FileRefused(f"LIEF's output cannot be read: {unfit}") from None
        size = os.fstat(temp_fd).st_size
        return EditResult(size, image.size, True, digest, ("written by LIEF: cannot be undone",))


def _must_suit_lief(headers: Headers, size: int) -> None:
    refuse_machine(headers)
    if any(s.size >= _SECTION and s.type != elf.SHT_NOBITS for s in headers.shdrs):
        raise FileRefused("LIEF reads only the first 2 GiB of a section")
    if size >= _SEGMENT:
        raise FileRefused("LIEF reads only the first 3 GiB of a segment")


def _run(source: int, output: int, headers: Headers, size: int, contents: Contents) -> int:
    """Return the address of the segment that LIEF added."""
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
    """Find where LIEF is installed, without importing it. Raises ``FileRefused`` where it is not."""
    spec = importlib.util.find_spec("lief")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise FileRefused("LIEF is not installed")
    return os.path.dirname(places[0])


def limits(size: int, seconds: int) -> dict[str, int]:
    """Give the child's limits, by their names in setrlimit(2), for a file of ``size`` bytes."""
    return {
        "RLIMIT_AS": _MEMORY_BASE + _MEMORY_FACTOR * size,
        "RLIMIT_CPU": seconds,
        "RLIMIT_FSIZE": _OUTPUT_FACTOR * size + 64 * _MIB,
        "RLIMIT_CORE": 0,
    }


def _ask(request: Mapping[str, Any], seconds: float, descriptors: tuple[int, ...]) -> int:
    # A session of its own: Ctrl-C in the terminal must not end the file in hand. -I and -S: no PYTHON*
    # variable, no .pth file and no module of the current directory has a say. The request waits in a file, so
    # that nobody waits for anybody: all that is left to do is to listen.
    with tempfile.TemporaryFile() as asked:
        asked.write(json.dumps(request).encode("ascii"))
        asked.seek(0)
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", _CHILD],
            stdin=asked,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            start_new_session=True,
            env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
        ) as child:
            try:
                said, logged = _hear(child, time.monotonic() + seconds)
                child.wait(seconds)
            except (TimeoutError, subprocess.TimeoutExpired):
                raise FileRefused(f"LIEF was not done after {seconds} seconds") from None
            finally:
                if child.poll() is None:
                    child.kill()
    return answer_of(child.returncode, said, logged)


def _hear(child: subprocess.Popen[bytes], until: float) -> tuple[bytes, bytes]:
    """Return what the child prints to standard output and standard error, until it closes both.

    Raises ``FileRefused`` if that is more than anybody would read, ``TimeoutError`` at ``until`` (seconds of
    the monotonic clock).
    """
    assert child.stdout is not None
    assert child.stderr is not None
    heard = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as open_pipes:
        for pipe in heard:
            open_pipes.register(pipe, selectors.EVENT_READ)
        while open_pipes.get_map():
            ready = open_pipes.select(max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                data = os.read(key.fd, _PIPE)
                if not data:
                    open_pipes.unregister(key.fd)
                heard[key.fd] += data
                if len(heard[key.fd]) > _MOST_SAID:
                    raise FileRefused(f"LIEF prints more than {_MOST_SAID >> 10} KiB and was stopped")
    said, logged = heard.values()
    return bytes(said), bytes(logged)


def answer_of(returncode: int, said: bytes, logged: bytes) -> int:
    """Return the address in what the child said; nobody knows whether it still was itself when it spoke.

    Raises ``FileRefused`` for a refusal and for anything that is no answer.
    """
    if returncode < 0:
        raise FileRefused(f"LIEF died of {_signal(-returncode)}{_last(logged)}")
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    if "refused" in answer:
        raise FileRefused(str(answer["refused"]))
    address = answer.get("address")
    if type(address) is not int or address < 0:
        raise FileRefused(f"LIEF ended without an answer{_last(logged)}")
    if logged.strip():
        raise FileRefused(f"LIEF reports an error{_last(logged)}")
    return address


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last(logged: bytes) -> str:
    lines = logged.decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1]}" if lines else ""
