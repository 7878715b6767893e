"""The directories of a Python prefix: site-packages (sysconfig schemes) and ``pyvenv.cfg`` (PEP 405)."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping

from nixpatch.fs import read_regular

NAME = "pyvenv.cfg"
_MAX_SIZE = 1 << 20
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})(?![0-9])")
LIB = frozenset({"lib", "lib64", "lib32"})
_SITE = frozenset({"site-packages", "dist-packages"})
_PACKAGES = "__pypackages__"
"""directory of PEP 582, as pdm makes it: ``__pypackages__/X.Y/lib`` is a site directory"""
# "python3" without a minor version is Debian's; "t" marks the free-threaded build (PEP 703).
_PYTHON = re.compile(r"(?:python|pypy)(\d+)(?:\.(\d+))?t?")


def site_directories(prefix: str, *, with_links: bool = False) -> tuple[str, ...]:
    """Return the real paths of the site directories below a prefix, sorted.

    In most venvs ``lib64`` is a link to ``lib``: each directory is returned once. One that a link leads to
    outside the prefix is left out, unless ``with_links``.
    """
    sites = set()
    for lib in sorted(LIB):
        for python in listed(os.path.join(prefix, lib)):
            if _PYTHON.fullmatch(python):
                sites |= {
                    os.path.realpath(path)
                    for path in (os.path.join(prefix, lib, python, site) for site in _SITE)
                    if os.path.isdir(path)
                }
    if os.path.basename(os.path.dirname(prefix)) == _PACKAGES:
        sites |= {path for path in [os.path.join(prefix, "lib")] if has_dist_info(path)}
    return tuple(sorted(path for path in sites if with_links or path.startswith(prefix.rstrip("/") + "/")))


def prefix_of_site(site: str) -> str | None:
    """Return PREFIX of ``PREFIX/lib*/pythonX.Y/site-packages``; None for a path of another form."""
    above, name = os.path.split(site)
    if name == "lib" and os.path.basename(os.path.dirname(above)) == _PACKAGES:
        return above
    above, python = os.path.split(above)
    prefix, lib = os.path.split(above)
    return prefix if name in _SITE and _PYTHON.fullmatch(python) and lib in LIB else None


def version_in_path(path: str) -> tuple[int, int] | None:
    """Return the version of the last ``lib*/pythonX.Y`` in the path."""
    parts = path.split("/")
    for lib, python in reversed(list(itertools.pairwise(parts))):
        version = version_in_name(f"python{python}" if lib == _PACKAGES else python)
        if (lib in LIB or lib == _PACKAGES) and version is not None:
            return version
    return None


def version_in_name(name: str) -> tuple[int, int] | None:
    """Return the version of ``python3.11``; None for ``python3`` and other names."""
    match = _PYTHON.fullmatch(name)
    return (int(match[1]), int(match[2])) if match and match[2] else None


def is_python_name(name: str) -> bool:
    """Return whether an interpreter or its library directory may have a name: ``python``, ``python3.11``."""
    return name in {"python", "pypy"} or _PYTHON.fullmatch(name) is not None


def only_version(prefix: str) -> tuple[int, int] | None:
    """Return the version of the only ``lib/pythonX.Y`` of a prefix; None if there are several, or none."""
    versions = {version_in_name(name) for name in listed(os.path.join(prefix, "lib"))} - {None}
    return versions.pop() if len(versions) == 1 else None


def has_dist_info(directory: str) -> bool:
    """Return whether a directory holds dists itself, whatever its name (``pip install --target``)."""
    return any(name.endswith(".dist-info") for name in listed(directory))


def listed(directory: str) -> list[str]:
    """Return the names in a directory; none if it cannot be listed."""
    try:
        return os.listdir(directory)
    except OSError:
        return []


def read_config(prefix: str) -> Mapping[str, str] | None:
    """Return the lower-case keys and the values of ``pyvenv.cfg``; None if ``prefix`` is not a venv."""
    try:
        return parse_config(read_regular(os.path.realpath(os.path.join(prefix, NAME)), _MAX_SIZE))
    except OSError:
        return None


def parse_config(data: bytes) -> Mapping[str, str]:
    """Return the lower-case keys and the values in the bytes of the file."""
    lines = (line.partition("=") for line in os.fsdecode(data).splitlines())
    return {key.strip().lower(): value.strip() for key, equals, value in lines if equals}


def config_version(config: Mapping[str, str]) -> tuple[int, int] | None:
    """Return the Python version: ``version`` (venv) or ``version_info`` (virtualenv, uv)."""
    match = _VERSION.match(config.get("version") or config.get("version_info") or "")
    return (int(match[1]), int(match[2])) if match else None
