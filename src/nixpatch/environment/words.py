"""How names and errors go into a sentence that must stay on one line."""

from __future__ import annotations


def shown(name: str) -> str:
    """Return a name from the tree as one line, whatever bytes it has."""
    return name if name.isprintable() else ascii(name)[1:-1]


def why(error: OSError | ValueError) -> str:
    """Return the reason alone, without errno and path, for a sentence that already names the file."""
    return getattr(error, "strerror", None) or str(error)
