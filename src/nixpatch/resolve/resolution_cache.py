"""The contents of a file's resolution cache: where its search path leads for each needed library.

The rules are those of ``patchelf --build-resolution-cache`` (0.19), so that a loader that honours its cache
finds what a search of DT_RUNPATH would find. A directory is left to the loader (``?``) if it depends on the
process (``$ORIGIN``, relative, empty), cannot be searched now, or has subdirectories for processors. Of all
others the files with the needed name are listed (``=``), in the order of the search path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nixpatch.model import ResolutionCache


def cache_entries(
    needed: Iterable[str],
    search_path: str | None,
    *,
    is_listed: Callable[[str], bool],
    is_readable: Callable[[str], bool],
) -> ResolutionCache:
    """Return the places for all needs, sorted by name as patchelf does.

    Args:
        needed: DT_NEEDED. Names with a slash are not searched.
        search_path: of the file.
        is_listed: whether a directory can be searched now, and has no ``glibc-hwcaps``.
        is_readable: whether there is a file that can be read at a path.

    """
    directories = (search_path or "").split(":") if search_path else []
    listed = [entry.startswith("/") and "$" not in entry and is_listed(entry) for entry in directories]
    cache: dict[str, str] = {}
    for need in needed:
        if not need or "/" in need:
            continue
        places = [
            f"={entry}/{need}" if is_file else f"?{entry}"
            for entry, is_file in zip(directories, listed, strict=True)
            if not is_file or is_readable(f"{entry}/{need}")
        ]
        if places:
            cache[need] = ":".join(places)
    return tuple(sorted(cache.items(), key=lambda pair: pair[0].encode("utf-8", "surrogateescape")))


def useful_entries(entries: ResolutionCache) -> ResolutionCache:
    """Return the entries that spare a search: of the others, the loader would search all places twice."""
    return tuple(entry for entry in entries if any(place.startswith("=") for place in entry[1].split(":")))


def untrue_entries(cache: ResolutionCache, entries: ResolutionCache) -> tuple[str, ...]:
    """Return the names in a cache whose places are not those of the search path."""
    places = dict(entries)
    return tuple(name for name, listed in cache if places.get(name) != listed)
