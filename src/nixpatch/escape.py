"""Names and errors as parts of a one-line message; names from wheels are escaped for the terminal."""

from __future__ import annotations

import errno
import os

_MACHINE = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""errors of the machine or the process: the contents of the file are unknown then, and to go on without them
could be wrong"""


def shown(name: str) -> str:
    """Return a name as one line of printable characters, whatever bytes it has.

    No file name can move the cursor, change the direction of writing, or look like text of nixpatch.
    """
    if name.isprintable():
        return name
    return "".join(char if char.isprintable() else _escaped(char) for char in name)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def reason(error: Exception) -> str:
    """Return the text of an error without errno and path, for a message that names the file already."""
    return getattr(error, "strerror", None) or str(error)


def is_machine_error(error: Exception) -> bool:
    """Return whether an error is not about the file: a failing disk, no more descriptors or memory."""
    return isinstance(error, OSError) and error.errno in _MACHINE


def below(path: str, root: str) -> str:
    """Return a path for display, relative to the root of the tree if it is inside."""
    is_inside = path == root or path.startswith(root.rstrip("/") + "/")
    return shown(os.path.relpath(path, root) if is_inside else path)
