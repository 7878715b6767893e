"""The sonames that stand as strings in a file that calls dlopen(3), or a function of a library that does.

Compilers put string literals into read-only data, but old linkers put that into the segment of the code, and
arrays stand in writable data: so every PT_LOAD is searched, whatever its flags, but for the string tables of
dynamic linking, and for sections of code, where section headers tell which these are: strip removes them.

Measured on 3,819 ELF files (12.6 GB) of 250 dists: 345 import dlopen, 192 hold what looks like names, and the
rules of ``resolve/opened_libraries.py`` leave some in 144. 18 s for all of them, 0.7 s for cublasLt.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Collection, Iterator

from nixpatch.elf import structs as elf
from nixpatch.elf.headers import ElfFile, Headers
from nixpatch.elf.symbols import SymbolTable
from nixpatch.elf.undo import open_views
from nixpatch.model import DlopenStrings

DLOPEN = ("dlopen", "dlmopen")
"""dlopen(3); ld.so searches the RUNPATH of the object that calls it"""

_CHUNK = 4 << 20  # bytes
_LIMIT = 4 << 30  # bytes; cublasLt has 0.7 billion
_NAMES = 512  # of one file; bpy has 60
_STRING_TABLE = 64 << 20  # bytes; libtorch_cpu.so has five million
_LONGEST = 128  # bytes of a name
_SHORT = 3  # bytes of numbers that look like text, right before a string
_SUFFIX = re.compile(rb"\.so((?:\.[0-9]+[a-z]?)*)(\0?)")
_NAME_BYTES = string.ascii_letters.encode() + b"0123456789_+.-"
_TEXT_BYTES = b"\t\n" + bytes(range(0x20, 0x7F))
_RUST = b"/rustc/"  # of the paths in messages of panic; stripping keeps them
_SENTENCE = b" '\"`(=:/"
"""what stands before a name that a message quotes, or before the last part of a path"""


def dlopen_strings(source: str | int, symbols: Collection[str] = DLOPEN) -> DlopenStrings | None:
    """Return the names of libraries that a file holds; None for one that imports none of ``symbols``.

    ``source`` is a path, or a descriptor that stays open. A symbol that ends in ``*`` stands for all that
    begin so. Reads the string table of every file, and the rest, once, of one that imports such a symbol.

    Raises:
        FileRefused: it is no dynamic ELF file, or contradicts itself.
        OSError: it cannot be read.

    """
    with open_views(source) as views:
        imported = _imported(views.current, symbols)
        if not imported:
            return None
        # Offsets of the original are valid in the patched file: edits insert bytes only behind all segments.
        headers = (views.current.headers, views.original.headers)
        code = (s for s in headers[0].shdrs if s.flags & elf.SHF_EXECINSTR and s.in_file)
        skipped = sorted(
            (
                *((h.string_offset, h.string_offset + h.string_size) for h in headers),
                *((section.offset, section.offset + section.size) for section in code),
            )
        )
        names: dict[str, None] = {}
        in_text: dict[str, None] = {}
        fd = views.current.image.fd
        for data, begin, end in _windows(fd, headers[0], skipped):
            for name, whole in _names(data, begin, end):
                group = names if whole else in_text
                if len(group) < _NAMES:
                    group[name] = None
        is_rust = in_text and any(_RUST in data for data, _, _ in _windows(fd, headers[0], skipped))
        return DlopenStrings(imported, tuple(names), tuple(in_text) if is_rust else ())


def _imported(file: ElfFile, symbols: Collection[str]) -> tuple[str, ...]:
    """Return which of the symbols the file imports.

    Most files are done with a search in their string table. A hit is one only if an undefined symbol begins
    there: linkers let ``dlopen`` be the tail of ``my_dlopen``.
    """
    headers = file.headers
    if headers.string_size > _STRING_TABLE:
        return ()
    strings = file.image.read(headers.string_offset, headers.string_size)
    begins: dict[int, str] = {}
    for symbol in symbols:
        pattern = re.escape(symbol.removesuffix("*").encode())
        pattern += rb"[^\0]*\0" if symbol.endswith("*") else rb"\0"
        for match in re.finditer(pattern, strings):
            begins[match.start()] = match[0][:-1].decode("utf-8", "replace")
    undefined = SymbolTable(file).undefined(begins.keys()) if begins else ()
    return tuple(sorted({begins[offset] for offset in undefined}))


def _windows(fd: int, headers: Headers, skipped: list[tuple[int, int]]) -> Iterator[tuple[bytes, int, int]]:
    """Yield the contents of the segments piece by piece: bytes, and the range in them that is this piece's.

    What lies around that range are the neighbours' bytes. Read, not mapped: a file may shrink. Bytes that two
    segments share are read once.
    """
    left, reached = _LIMIT, 0
    for load in sorted(headers.loads, key=lambda load: load.offset):
        start = max(load.offset, reached)
        reached = max(reached, load.file_end)
        for begin, end in _without(start, load.file_end, skipped):
            for offset in range(begin, end, _CHUNK):
                size = min(_CHUNK, end - offset, left)
                first, last = max(offset - _LONGEST, begin), min(offset + size + _LONGEST, end)
                data = os.pread(fd, last - first, first)
                yield data, offset - first, offset - first + size
                left -= size
                if left == 0 or len(data) < last - first:
                    return


def _names(data: bytes, begin: int, end: int) -> Iterator[tuple[str, bool]]:
    """Yield the names that end in ``.so`` and a version, and whether each is a string of its own."""
    for match in _SUFFIX.finditer(data, begin):
        if match.start() >= end:
            return
        version, nul = match.groups()
        if not version and not nul:
            continue
        first = max(match.start() - _LONGEST, 0)
        stem = _last(_NAME_BYTES, data[first : match.start()])
        start = match.start() - len(stem)
        name = data[start : match.end(1)]
        if nul and stem.startswith(b"lib") and _begins(data, start):
            yield name.decode("ascii"), True
        elif version and b"lib" in stem:
            start += stem.index(b"lib")
            if start and data[start - 1] not in _SENTENCE:
                # The next string may begin with a letter: ``libEGL.so.1libEGL.so``.
                yield data[start : match.end(1)].decode("ascii").rstrip(string.ascii_lowercase), False


def _begins(data: bytes, start: int) -> bool:
    """Whether a string begins here: behind a NUL, or behind a number, whose bytes may look like text."""
    text = _last(_TEXT_BYTES, data[max(start - _SHORT - 1, 0) : start])
    before = start - len(text) - 1
    return not text if before < 0 or data[before] == 0 else len(text) <= _SHORT


def _last(characters: bytes, data: bytes) -> bytes:
    """Return the end of some bytes that consists of these characters alone."""
    return data[len(data.rstrip(characters)) :]


def _without(begin: int, end: int, holes: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, stop in holes:
        if start < end and stop > begin:
            if begin < start:
                yield begin, start
            begin = max(begin, stop)
    if begin < end:
        yield begin, end
