"""Where Python keeps what is installed: ``PREFIX/lib/pythonX.Y/site-packages`` (sysconfig schemes)."""

from __future__ import annotations

import itertools
import os
import re

_LIB = frozenset({"lib", "lib64", "lib32"})
_SITE = frozenset({"site-packages", "dist-packages"})
# "python3" alone is Debian's, a "t" marks the free-threaded build (PEP 703).
_PYTHON = re.compile(r"(?:python|pypy)(\d+)(?:\.(\d+))?t?")


def site_directories(prefix: str) -> tuple[str, ...]:
    """Return the real paths of the site directories below a prefix, sorted.

    ``lib64`` is a link to ``lib`` in most venvs: each directory comes once.
    """
    found = set()
    for lib in sorted(_LIB):
        for python in _listed(os.path.join(prefix, lib)):
            if _PYTHON.fullmatch(python):
                found |= {
                    os.path.realpath(path)
                    for path in (os.path.join(prefix, lib, python, site) for site in _SITE)
                    if os.path.isdir(path)
                }
    return tuple(sorted(path for path in found if path.startswith(prefix.rstrip("/") + "/")))


def prefix_of_site(site: str) -> str | None:
    """Return PREFIX of ``PREFIX/lib*/pythonX.Y/site-packages``, None for a path of another form."""
    above, name = os.path.split(site)
    above, python = os.path.split(above)
    prefix, lib = os.path.split(above)
    return prefix if name in _SITE and _PYTHON.fullmatch(python) and lib in _LIB else None


def version_in_path(path: str) -> tuple[int, int] | None:
    """Return the version of the last ``lib*/pythonX.Y`` in the path."""
    parts = path.split("/")
    for lib, python in reversed(list(itertools.pairwise(parts))):
        version = version_in_name(python)
        if lib in _LIB and version is not None:
            return version
    return None


def version_in_name(name: str) -> tuple[int, int] | None:
    """Return the version of ``python3.11``, None for ``python3`` and for other names."""
    found = _PYTHON.fullmatch(name)
    return (int(found[1]), int(found[2])) if found and found[2] else None


def only_version(prefix: str) -> tuple[int, int] | None:
    """Return the version of the one ``lib/pythonX.Y`` of a prefix; None where there are more, or none."""
    versions = {version_in_name(name) for name in _listed(os.path.join(prefix, "lib"))} - {None}
    return versions.pop() if len(versions) == 1 else None


def has_dist_info(directory: str) -> bool:
    """Tell whether a directory holds dists itself, whatever its name (``pip install --target``)."""
    return any(name.endswith(".dist-info") for name in _listed(directory))


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
