"""Reading and editing dynamic ELF files. Knows neither Python packaging nor Nix.

An edit changes the search path and the interpreter, nothing else. It grows the last PT_LOAD over its own
.bss and puts a copy of the string table with the new strings, a longer interpreter, and an undo record behind
it; no program header is added or moved and no address changes. ``headers`` parses, ``undo`` sees through an
earlier edit to the original, ``wish``, ``room``, ``tables`` and ``planner`` decide as pure functions,
``write`` carries the decision out, and ``checks`` holds the result against the original.

The second writer is LIEF, in a child process (``lief_writer``, ``lief_child``) and under checks of its own
(``check_rewritten``); ``writers`` chooses.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nixpatch.elf.byte_search import mentions
from nixpatch.elf.facts import original_sha256, read
from nixpatch.elf.symbols import read_symbols

if TYPE_CHECKING:
    from nixpatch.elf.check_inplace import check
    from nixpatch.elf.digests import Digests
    from nixpatch.elf.inplace_writer import EditResult, write_edited, write_original
    from nixpatch.elf.writer import Written, write_checked

__all__ = [
    "Digests",
    "EditResult",
    "Written",
    "check",
    "mentions",
    "original_sha256",
    "read",
    "read_symbols",
    "write_checked",
    "write_edited",
    "write_original",
]

_LATE = {
    "Digests": "digests",
    "EditResult": "inplace_writer",
    "Written": "writer",
    "check": "check_inplace",
    "write_checked": "writer",
    "write_edited": "inplace_writer",
    "write_original": "inplace_writer",
}

if not TYPE_CHECKING:  # a type checker knows the names, and that there are no others

    def __getattr__(name: str) -> Any:
        """Import what edits when somebody edits (PEP 562): a plan only reads."""
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"nixpatch.elf.{_LATE[name]}"), name)
