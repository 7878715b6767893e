"""Which dist takes its libraries from where: dists, store paths and what is missing as nodes of a drawing."""

from __future__ import annotations

from typing import Any

from nixpatch.escape import shown
from nixpatch.model import Answer, Origin, Plan
from nixpatch.report.layered import layers
from nixpatch.report.summary import UNOWNED
from nixpatch.store.store_paths import package_of_entry

_WIDTH, _HEIGHT = 250, 28
_STEP, _LOOSE = 36, 2.0
"""from one node of a column to the next, and how much wider a short column may be spread"""


class Sources:
    """Tells which node an answer of a plan comes from."""

    def __init__(self, plan: Plan) -> None:
        """Index the plan's tree."""
        names = {dist.info: f"{dist.name} {dist.version}" for dist in plan.tree.dists}
        self._owner = {file.path: names.get(next(iter(file.owners), ""), UNOWNED) for file in plan.tree.files}
        self._prefix = plan.store_dir.rstrip("/") + "/"
        self._own = plan.tree.prefix.rstrip("/") + "/"

    def owner(self, path: str) -> str:
        """Return ``name version`` of the dist that a file of the tree belongs to."""
        return self._owner.get(path, UNOWNED)

    def of(self, path: str, answer: Answer) -> tuple[str, str] | None:
        """Return sort and name of the node that serves a need of the file at a path.

        None for what no picture needs: libc, the dist itself, what may be missing.
        """
        match answer.origin:
            case Origin.MISSING:
                return "missing", answer.need
            case Origin.DRIVER:
                return "driver", "drivers of the machine"
            case Origin.LIBC | Origin.IGNORED | Origin.OWN_DIST:
                return None
            case _:
                return self._served(path, answer.path or "")

    def _served(self, path: str, library: str) -> tuple[str, str] | None:
        if library.startswith(self._prefix) and not library.startswith(self._own):
            entry = library.removeprefix(self._prefix).partition("/")[0]
            return "store", package_of_entry(entry) or entry
        if library.startswith(self._own):
            owner = self.owner(library)
            return ("dist", owner) if owner not in {self.owner(path), UNOWNED} else None
        return "elsewhere", library.rpartition("/")[0]


def graph(plan: Plan) -> dict[str, Any]:
    """Return the nodes with their places and the edges with their sonames.

    Heights are in CSS pixels; how far apart the columns stand is for the page, which knows its width.
    """
    sources = Sources(plan)
    links: dict[tuple[str, str], dict[str, int]] = {}
    users: dict[tuple[str, str], set[str]] = {}
    sort: dict[str, str] = {}
    files: dict[str, int] = {}
    for file in plan.files:
        owner = sources.owner(file.file.path)
        files[owner] = files.get(owner, 0) + 1
        for answer in file.answers:
            found = sources.of(file.file.path, answer)
            if found is not None:
                sort.setdefault(owner, "dist")
                sort.setdefault(found[1], found[0])
                sonames = links.setdefault((owner, found[1]), {})
                sonames[answer.need] = sonames.get(answer.need, 0) + 1
                users.setdefault((owner, found[1]), set()).add(file.file.path)
    nodes = sorted(sort)
    last = frozenset(node for node in nodes if sort[node] != "dist")
    columns = layers(nodes, sorted(links), last)
    height = max((len(column) - 1) * _STEP for column in columns) + _HEIGHT if columns else 0
    placed = [
        {
            "id": shown(node),
            "sort": sort[node],
            "files": files.get(node, 0),
            "column": number,
            "y": y,
        }
        for number, column in enumerate(columns)
        for node, y in zip(column, _down(len(column), height), strict=True)
    ]
    return {
        "columns": len(columns),
        "height": height,
        "node": {"width": _WIDTH, "height": _HEIGHT},
        "nodes": placed,
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


def _down(count: int, height: int) -> list[int]:
    """Return how far down the nodes of a column stand: in the middle of the height, spread a little."""
    step = min((height - _HEIGHT) / (count - 1), _STEP * _LOOSE) if count > 1 else 0
    top = (height - _HEIGHT - step * (count - 1)) / 2
    return [round(top + step * number) for number in range(count)]
