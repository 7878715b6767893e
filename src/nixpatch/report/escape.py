"""Names from wheels on a terminal: nothing in a file name may move the cursor or pass for our own words."""

from __future__ import annotations

import os


def shown(text: str) -> str:
    """Return text on one line of printable characters, whatever bytes it came from."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def below(path: str, root: str) -> str:
    """Return a path relative to the tree where it lies inside, for reports that would repeat the root."""
    inside = path == root or path.startswith(root.rstrip("/") + "/")
    return shown(os.path.relpath(path, root) if inside else path)
