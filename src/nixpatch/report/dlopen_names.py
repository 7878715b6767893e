"""Libraries that Python code opens by bare name, as text."""

from __future__ import annotations

import os

from nixpatch.escape import shown
from nixpatch.model.dlopen_names import DlopenName, DlopenNames
from nixpatch.report.phrases import first_few

WARNING = (
    "LD_LIBRARY_PATH comes before the RUNPATH of every file, and every child process inherits it, "
    "programs of other packages too: use it as a last resort"
)


def lines(names: DlopenNames) -> list[str]:
    """Return a line for each name: the library that serves it, and the lines that open it."""
    computed = [f"{shown(site.path)}:{site.line}" for site in names.computed]
    text = "names that the code computes: name their directories by --lib; opened by"
    return [*(_line(name) for name in names.opened), *([f"{text} {first_few(computed)}"] if computed else [])]


def missing(names: DlopenNames) -> list[str]:
    """Return the lines of the names that nothing provides."""
    return [_line(name) for name in names.missing]


def _line(name: DlopenName) -> str:
    call = f'find_library("{name.name}")' if name.finds else name.name
    result = name.status.value
    if name.provider is not None:
        result = os.path.join(name.provider.directory, name.provider.name)
    sites = first_few([f"{site.path}:{site.line}" for site in name.sites])
    return f"{shown(call)}: {shown(result)}, opened by {sites}"
