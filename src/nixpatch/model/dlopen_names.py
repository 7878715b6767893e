"""Libraries that the Python code of a tree opens by bare name."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from nixpatch.model.dlopen import OpenedName
from nixpatch.model.installed import Tree
from nixpatch.model.provider import Provider


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
    sites: tuple[OpenedName, ...]
    """the lines of code; paths are relative to the tree"""
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
    computed: tuple[OpenedName, ...] = ()
    """lines of code that compute the name"""
    given: Mapping[str, str] = field(default_factory=dict)
    """the libraries in the directories that the user named: they may be what a computed name means"""

    @property
    def missing(self) -> tuple[DlopenName, ...]:
        """The names that nothing provides."""
        return tuple(name for name in self.opened if name.status is DlopenStatus.MISSING)
