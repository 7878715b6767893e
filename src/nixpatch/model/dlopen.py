"""Libraries that code opens by name: dlopen(3), ``ctypes``, cffi. No ELF header names them."""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DlopenStrings:
    """The sonames that stand as strings in a file that opens libraries by name."""

    symbols: tuple[str, ...]
    """the imported functions that open a library, sorted: ``dlopen``, ``_ZN8QLibrary4loadEv``"""
    names: tuple[str, ...]
    """whole NUL-terminated strings, in file order, each once"""
    in_text: tuple[str, ...] = ()
    """versioned names inside longer text of a Rust file, whose strings do not end in NUL; the name may have
    letters of the text before it in front (``fooliblibz.so.1``)"""


@dataclass(frozen=True, slots=True)
class OpenedNeed:
    """A library that is opened by name, as a need of the file in whose search path ld.so looks for it."""

    sonames: tuple[str, ...]
    """alternatives, the best first: the first that anything provides serves"""
    opener: str
    """the file whose code opens it, or a source with its line"""
    reason: str = ""
    """of the row in the tables, for a name that does not stand in the file"""


class Opener(enum.Enum):
    """The Python function that opens a library. The value is the text people read."""

    CTYPES = "ctypes"
    FIND_LIBRARY = "find_library"
    CFFI = "ffi.dlopen"


@dataclass(frozen=True, slots=True)
class OpenedName:
    """One library that one line of Python source opens by name."""

    name: str
    """as the code spells it: ``libz.so.1``, or ``z`` where it goes to ``find_library``; ``*`` stands for what
    the code computes, ``*`` alone for a name of which nothing is known"""
    opener: Opener
    path: str
    line: int
    traced: bool = True
    """False: it stands in a dist that computes the names it opens, and may be one of them. It is served where
    a library is at hand, and not missed where none is"""
