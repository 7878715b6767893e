"""Libraries that the Python code of a tree opens by bare name."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nixpatch.model.installed import Tree
from nixpatch.model.provider import Provider

FIND_LIBRARY = "find_library"
"""the function whose argument is a name without ``lib`` and ``.so``"""


@dataclass(frozen=True, slots=True, order=True)
class CallSite:
    """A line of a source that opens a library."""

    name: str
    """``libz.so.1``; ``z`` for ``find_library``"""
    path: str
    line: int
    call: str
    """the called function, such as ``CDLL``"""

    @property
    def finds(self) -> bool:
        """Whether the function is ``find_library``."""
        return self.call == FIND_LIBRARY


class DlopenStatus(enum.Enum):
    """How a name is served. The value is the text of the report."""

    SERVED = "served"
    TREE = "in the tree"
    LIBC = "libc"
    DRIVER = "driver"
    IGNORED = "ignored"
    MISSING = "not found"


@dataclass(frozen=True, slots=True)
class DlopenName:
    """A name that code opens."""

    name: str
    finds: bool
    """the name is an argument of ``find_library``"""
    sites: tuple[CallSite, ...]
    status: DlopenStatus
    provider: Provider | None = None
    needs_siblings: bool = False
    """the library looks for others by $ORIGIN, so a link to it from another directory does not work"""


@dataclass(frozen=True, slots=True)
class DlopenNames:
    """All names that the code of a tree opens."""

    tree: Tree
    driver_directory: str
    opened: tuple[DlopenName, ...]

    @property
    def missing(self) -> tuple[DlopenName, ...]:
        """The names that nothing provides."""
        return tuple(name for name in self.opened if name.status is DlopenStatus.MISSING)
