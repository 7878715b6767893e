"""Make the resolution cache of a file from the directories of its search path, and compare it with them."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass

from nixpatch import elf
from nixpatch.errors import FileRefused
from nixpatch.model import ElfFacts, Linkage, ResolutionCache
from nixpatch.resolve.resolution_cache import cache_entries, unread_reason, untrue_entries, useful_entries


@dataclass(frozen=True, slots=True)
class CacheDecision:
    """The resolution cache that a file is to have."""

    cache: ResolutionCache
    reason: str | None = None
    """why it gets none although ld.so could use it"""


class DirectoryReader:
    """Looks at directories of search paths, once each."""

    def __init__(self) -> None:
        self.is_listed = functools.cache(_is_listed)
        self.is_readable = functools.cache(lambda path: os.access(path, os.R_OK))

    def entries(self, needed: Iterable[str], search_path: str | None) -> ResolutionCache:
        """Return where a search path leads, as :func:`cache_entries` does."""
        return cache_entries(needed, search_path, is_listed=self.is_listed, is_readable=self.is_readable)

    def decide(
        self, path: str, needed: tuple[str, ...], linkage: Linkage, *, is_asked: bool = False
    ) -> CacheDecision:
        """Return the cache for a file at ``path`` that is to have a linkage.

        Args:
            path: of the file.
            needed: the libraries that it will need.
            linkage: as it will be.
            is_asked: also give a reason where the file has no use for a cache.

        """
        unread = unread_reason(needed, linkage.search_path, linkage.tag)
        if unread is not None:
            return CacheDecision((), unread if is_asked else None)
        cache = useful_entries(self.entries(needed, linkage.search_path))
        if not cache:
            return CacheDecision(
                (), "its search path leads to no library by an absolute path" if is_asked else None
            )
        obstacle = _obstacle(path)
        return CacheDecision(() if obstacle else cache, obstacle)


def untrue(facts: ElfFacts, reader: DirectoryReader) -> tuple[str, ...]:
    """Return the names in the cache of a file whose places are no longer those of its search path."""
    cache = facts.current.resolution_cache
    if not cache:
        return ()
    return untrue_entries(cache, reader.entries(facts.needed, facts.current.search_path))


def _is_listed(directory: str) -> bool:
    return (
        os.path.isdir(directory)
        and os.access(directory, os.X_OK)
        and not os.path.lexists(f"{directory}/glibc-hwcaps")
    )


def _obstacle(path: str) -> str | None:
    try:
        return elf.cache_obstacle(os.path.realpath(path))
    except (FileRefused, OSError) as error:
        return str(error)
