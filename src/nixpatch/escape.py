"""How names and errors go into a sentence that must stay on one line.

Names from wheels on a terminal: nothing in a file name may move the cursor or pass for our own words.
"""

from __future__ import annotations

import errno
import os

# Trouble of the machine or the run, not of the file that was asked for: what a file holds is not known then,
# and whatever was decided without it would be wrong.
_MACHINE = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def shown(name: str) -> str:
    """Return a name, from the tree or anywhere, as one line of printable characters, whatever bytes it has.

    Nothing in it may move the cursor, turn the direction of writing, or pass for our own words.
    """
    if name.isprintable():
        return name
    return "".join(char if char.isprintable() else _escaped(char) for char in name)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def why(error: OSError | ValueError) -> str:
    """Return the reason alone, without errno and path, for a sentence that already names the file."""
    return getattr(error, "strerror", None) or str(error)


def of_the_machine(error: OSError | ValueError) -> bool:
    """Whether an error says nothing about the file: a disk that fails, no more descriptors, no memory."""
    return isinstance(error, OSError) and error.errno in _MACHINE


__all__ = ["below", "shown"]


def below(path: str, root: str) -> str:
    """Return a path relative to the tree where it lies inside, for reports that would repeat the root."""
    inside = path == root or path.startswith(root.rstrip("/") + "/")
    return shown(os.path.relpath(path, root) if inside else path)
