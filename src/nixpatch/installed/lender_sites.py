"""The libraries in site-packages outside the tree: those of dists that have a prefix of their own.

Each package of nixpkgs and of pyproject.nix is installed into a store path of its own, so a dist that needs a
library of another one finds it there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from nixpatch.errors import MachineError
from nixpatch.escape import is_machine_error, reason, shown
from nixpatch.installed import python_layout
from nixpatch.installed.dists import find_dists
from nixpatch.model import LenderSite

_MAX_DIRECTORIES = 100_000


def sites_of(path: str) -> tuple[str, ...]:
    """Return the site directories of a prefix, or the directory itself if it is one; real paths."""
    real = os.path.realpath(path)
    return python_layout.site_directories(real) or ((real,) if python_layout.has_dist_info(real) else ())


def read_lender_sites(paths: Iterable[str]) -> tuple[LenderSite, ...]:
    """Read the sites of prefixes that hold libraries, each once, in order.

    Raises:
        MachineError: the disk fails, or the run may open no more files.

    """
    sites = dict.fromkeys(site for path in paths for site in sites_of(path))
    return tuple(lender for lender in map(_read, sites) if lender.libraries)


def _read(site: str) -> LenderSite:
    try:
        dists, _ = find_dists(site, python_layout.prefix_of_site(site) or site)
        return LenderSite(site, dists, _libraries(site))
    except OSError as error:
        if is_machine_error(error):
            name = shown(str(getattr(error, "filename", None) or site))
            raise MachineError(f"{name}: {reason(error)}: mend this and run nixpatch again") from error
        return LenderSite(site, (), {})


def _libraries(site: str) -> dict[str, tuple[str, ...]]:
    """Return the paths of all files that may be shared libraries, by name.

    A linked directory counts where it really is (withPackages, nixpkgsPrebuilt): the package behind it gets
    into a closure, not the links.
    """
    libraries: dict[str, list[str]] = {}
    pending, seen = [site], {site}
    while pending and len(seen) < _MAX_DIRECTORIES:
        directory = pending.pop()
        try:
            with os.scandir(directory) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if is_machine_error(error):
                raise
            continue
        for entry in listed:
            if entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                if real not in seen and entry.name != "__pycache__":
                    seen.add(real)
                    pending.append(real)
            elif ".so" in entry.name and entry.is_file():
                libraries.setdefault(entry.name, []).append(_home_of(entry.path, entry.name))
    return {name: tuple(sorted(set(paths))) for name, paths in libraries.items()}


def _home_of(path: str, name: str) -> str:
    """Return the path of the file behind a link of the same name, else the path itself."""
    real = os.path.realpath(path)
    return real if os.path.basename(real) == name else path
