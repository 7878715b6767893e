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
        is_listed: whether an absolute directory can be searched now, and has no ``glibc-hwcaps``.
        is_readable: whether there is a file that can be read at a path.

    """
    directories = (search_path or "").split(":") if search_path else []
    listed = [_is_fixed(entry) and is_listed(entry) for entry in directories]
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


def _is_fixed(entry: str) -> bool:
    return entry.startswith("/") and "$" not in entry


def useful_entries(entries: ResolutionCache) -> ResolutionCache:
    """Return the entries that spare a search: of the others, the loader would search all places twice."""
    return tuple(entry for entry in entries if any(place.startswith("=") for place in entry[1].split(":")))


def untrue_entries(
    cache: ResolutionCache,
    search_path: str | None,
    *,
    is_listed: Callable[[str], bool],
    is_readable: Callable[[str], bool],
) -> tuple[str, ...]:
    """Return the names for which a cache leads elsewhere than a search path.

    Each directory has to be left to the loader, or to have no file of the name, or to stand for its file, in
    the order of the search path. The arguments are those of :func:`cache_entries`.
    """
    directories = search_path.split(":") if search_path else []

    def is_true(name: str, places: list[str]) -> bool:
        for directory in directories:
            path = f"{directory}/{name}"
            if places[:1] == [f"?{directory}"]:
                places = places[1:]
            elif not (_is_fixed(directory) and is_listed(directory)) or (
                is_readable(path) and places[:1] != [f"={path}"]
            ):
                return False
            elif is_readable(path):
                places = places[1:]
        return not places

    return tuple(name for name, places in cache if not is_true(name, places.split(":")))
