"""What Python code opens by bare name: pure renderers."""

from __future__ import annotations

import os

from nixpatch.escape import below, shown
from nixpatch.operations.dlopen_names import Fate, Opened, Opening

_SHOWN_SITES = 3

WARNING = (
    "LD_LIBRARY_PATH goes before the RUNPATH of every file, and every child process inherits it, "
    "programs of other packages too: a last resort"
)


def lines(opening: Opening) -> list[str]:
    """Return a line for each name that is opened: what becomes of it, and where it is opened."""
    return [_line(one, opening) for one in opening.opened]


def missing(opening: Opening) -> list[str]:
    """Return the lines of what nothing provides."""
    return [_line(one, opening) for one in opening.opened if one.fate is Fate.MISSING]


def _line(one: Opened, opening: Opening) -> str:
    call = f'find_library("{one.name}")' if one.finds else one.name
    what = one.fate.value
    if one.provider is not None:
        what = os.path.join(one.provider.directory, one.provider.name)
    sites = [f"{below(site.path, opening.tree.root)}:{site.line}" for site in one.sites[:_SHOWN_SITES]]
    more = f" and {len(one.sites) - _SHOWN_SITES} more" if len(one.sites) > _SHOWN_SITES else ""
    return f"{shown(call)}: {shown(what)}, opened by {', '.join(sites)}{more}"
