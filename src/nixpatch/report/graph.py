"""The drawing of dists, store paths and missing libraries: which dist takes which library from where."""

from __future__ import annotations

from typing import Any

from nixpatch.escape import shown
from nixpatch.model import Answer, Origin, Plan
from nixpatch.model.summary import UNOWNED, owner_names
from nixpatch.report.layered import layers
from nixpatch.store_paths import package_of_entry

_WIDTH, _HEIGHT = 250, 28
"""of a node, in CSS pixels"""
_STEP, _MAX_SPREAD = 36, 2.0
"""CSS pixels from one node of a column to the next, and the factor by which a short column may be spread"""


class NodeFinder:
    """Finds the node of the drawing that an answer of a plan belongs to."""

    def __init__(self, plan: Plan) -> None:
        """Index the plan's tree."""
        self._owners = owner_names(plan.tree)
        self._store = plan.store_dir.rstrip("/") + "/"
        self._prefix = plan.tree.prefix.rstrip("/") + "/"

    def owner(self, path: str) -> str:
        """Return ``name version`` of the dist of a file."""
        return self._owners.get(path, UNOWNED)

    def node(self, path: str, answer: Answer) -> tuple[str, str] | None:
        """Return sort and name of the node that serves a need of the file at ``path``.

        None for libc, for the file's own dist and for ignored needs: those are not drawn.
        """
        match answer.origin:
            case Origin.MISSING:
                return "missing", answer.need
            case Origin.DRIVER:
                return "driver", "drivers of the machine"
            case Origin.LIBC | Origin.IGNORED | Origin.OWN_DIST:
                return None
            case _:
                return self._library_node(path, answer.path or "")

    def _library_node(self, path: str, library: str) -> tuple[str, str] | None:
        if library.startswith(self._store) and not library.startswith(self._prefix):
            entry = library.removeprefix(self._store).partition("/")[0]
            return "store", package_of_entry(entry) or entry
        if library.startswith(self._prefix):
            owner = self.owner(library)
            return ("dist", owner) if owner not in {self.owner(path), UNOWNED} else None
        return "elsewhere", library.rpartition("/")[0]


def graph(plan: Plan) -> dict[str, Any]:
    """Return nodes with their positions and edges with their sonames.

    Heights are CSS pixels; the script of the page spaces the columns, as it knows the width.
    """
    finder = NodeFinder(plan)
    links: dict[tuple[str, str], dict[str, int]] = {}
    users: dict[tuple[str, str], set[str]] = {}
    sort: dict[str, str] = {}
    files: dict[str, int] = {}
    for file in plan.files:
        owner = finder.owner(file.file.path)
        files[owner] = files.get(owner, 0) + 1
        for answer in file.answers:
            if answer in file.dispensable:  # listed apart: nothing fails without it
                continue
            node = finder.node(file.file.path, answer)
            if node is not None:
                sort.setdefault(owner, "dist")
                sort.setdefault(node[1], node[0])
                sonames = links.setdefault((owner, node[1]), {})
                sonames[answer.need] = sonames.get(answer.need, 0) + 1
                users.setdefault((owner, node[1]), set()).add(file.file.path)
    names = sorted(sort)
    last = frozenset(name for name in names if sort[name] != "dist")
    columns = layers(names, sorted(links), last)
    height = max((len(column) - 1) * _STEP for column in columns) + _HEIGHT if columns else 0
    nodes = [
        {
            "id": shown(name),
            "sort": sort[name],
            "files": files.get(name, 0),
            "column": number,
            "y": y,
        }
        for number, column in enumerate(columns)
        for name, y in zip(column, _offsets(len(column), height), strict=True)
    ]
    return {
        "columns": len(columns),
        "height": height,
        "node": {"width": _WIDTH, "height": _HEIGHT},
        "nodes": nodes,
        "edges": [
            {
                "from": shown(start),
                "to": shown(end),
                "sort": sort[end],
                "files": len(users[start, end]),
                "sonames": [[shown(name), count] for name, count in sorted(sonames.items())],
            }
            for (start, end), sonames in sorted(links.items())
        ],
        "apart": len(files.keys() - sort.keys()),
    }


def _offsets(count: int, height: int) -> list[int]:
    """Return the vertical positions of the nodes of a column: centred, and spread a little."""
    step = min((height - _HEIGHT) / (count - 1), _STEP * _MAX_SPREAD) if count > 1 else 0
    top = (height - _HEIGHT - step * (count - 1)) / 2
    return [round(top + step * number) for number in range(count)]
