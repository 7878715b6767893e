"""Reads and edits dynamic ELF files. Knows neither Python packages nor Nix.

An edit changes the search path, the interpreter, the names of needed libraries and the resolution cache, and
for ``nixpatch elf`` all else that patchelf edits (``ManualEdit``). It grows the last PT_LOAD over its .bss
and puts there a copy of the string table with the new strings, an interpreter that is too long for its old
place, notes with a cache, and an undo record. No program header is added or moved, and no address changes.
``undo`` parses a file and its original; ``resolved_edit``, ``symbol_edit``, ``segment_growth``,
``header_tables`` and ``edit_plan`` are pure and plan the edit; ``inplace_writer`` writes it;
``check_inplace`` compares the result with the original, ``check_symbols`` the tables of symbols.

The second writer is LIEF, in a child process (``lief``), with its own checks (``check_rewritten``).
``writer`` chooses between the two. ``readers`` compares nixpatch's reader with pyelftools and LIEF.

This module exports the reading half. Import editing functions from their modules, so that runs that only
read, such as ``nixpatch plan``, do not load them.
"""

from nixpatch.elf.byte_search import mentions
from nixpatch.elf.facts import (
    cache_obstacle,
    feed_original,
    machine_of_library,
    original_sha256,
    read,
    search_stop,
    undo_is_plausible,
)
from nixpatch.elf.symbols import read_symbols

__all__ = [
    "cache_obstacle",
    "feed_original",
    "machine_of_library",
    "mentions",
    "original_sha256",
    "read",
    "read_symbols",
    "search_stop",
    "undo_is_plausible",
]
