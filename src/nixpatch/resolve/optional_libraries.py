"""The libraries that code opens by name and nothing provides. Pure.

Code may do without such a library, so it is optional: listed, and no error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from nixpatch.model import FilePlan, OpenedUnmet, Tree
from nixpatch.policy import Policy
from nixpatch.resolve.opened_libraries import alternatives
from nixpatch.resolve.python_libraries import PythonLibraries


def optional_libraries(
    tree: Tree, files: Sequence[FilePlan], python: Mapping[str, PythonLibraries], policy: Policy
) -> tuple[OpenedUnmet, ...]:
    """Return the libraries that are opened by name and not there, sorted by soname.

    A dist that opens several versions of a library takes the first that it gets: those count as one library,
    which is there if one of them is.

    Args:
        tree: the tree.
        files: the plans of its ELF files.
        python: what the Python code of each dist opens, by ``.dist-info``.
        policy: its rules may ignore a library.

    """
    owners = {file.path: next(iter(file.owners), "") for file in tree.files}
    served: dict[str, set[str]] = {}
    openers: dict[str, dict[str, set[tuple[str, str]]]] = {}
    for file in files:
        for answer in file.answers:
            opener = answer.opener
            if opener is None or opener not in owners:  # sources are in ``python``
                continue
            info = owners[opener]
            if answer.is_optional:
                openers.setdefault(info, {}).setdefault(answer.need, set()).add((opener, info))
            else:
                served.setdefault(info, set()).add(answer.need)
    for info, libraries in python.items():
        served.setdefault(info, set()).update(_served(libraries))
        for soname, source in libraries.unmet:
            opener = os.path.join(os.path.dirname(info), source)
            if policy.ignored(opener.rpartition(":")[0], soname) is None:
                openers.setdefault(info, {}).setdefault(soname, set()).add((opener, info))
    unmet: dict[str, set[tuple[str, str]]] = {}
    for info, by_soname in openers.items():
        for group in alternatives((*by_soname, *served.get(info, ()))):
            if by_soname.keys() >= set(group):
                unmet.setdefault(group[0], set()).update(*(by_soname[name] for name in group))
    return tuple(OpenedUnmet(soname, tuple(sorted(users))) for soname, users in sorted(unmet.items()))


def _served(libraries: PythonLibraries) -> Iterator[str]:
    """Yield the sonames of the libraries that Python code gets."""
    yield from map(os.path.basename, (*libraries.libraries.values(), *libraries.answers.values()))
    for need in libraries.cffi:
        yield from need.sonames
