"""A layered drawing of a directed graph: which node stands in which column, and in which order there.

The usual three steps (Sugiyama, Tagawa, Toda 1981): leave out what closes a cycle, give each node a column
behind all that point to it, then sort each column by the mean place of its neighbours, for as long as fewer
lines cross.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_SWEEPS = 12
_COUNTED = 600
"""above so many edges the crossings are not counted, and the last order is as good as any"""

Edge = tuple[str, str]


def layers(
    nodes: Sequence[str], edges: Sequence[Edge], last: frozenset[str] = frozenset()
) -> list[list[str]]:
    """Return the columns from left to right. The nodes of ``last`` share the last one.

    ``edges`` name nodes, and no node twice; the same input gives the same columns.
    """
    forward = _without_cycles(nodes, edges)
    column = _columns(nodes, forward, last)
    found: list[list[str]] = [[] for _ in range(max(column.values(), default=-1) + 1)]
    for node in nodes:
        found[column[node]].append(node)
    return _sorted([some for some in found if some], forward)


def _without_cycles(nodes: Sequence[str], edges: Sequence[Edge]) -> list[Edge]:
    """Leave out the edges that lead back to a node on the way, depth first."""
    after: dict[str, list[str]] = {node: [] for node in nodes}
    for start, end in edges:
        after[start].append(end)
    done: set[str] = set()
    kept: list[Edge] = []
    for root in nodes:
        way = [(root, iter(after[root]))] if root not in done else []
        on_way = {root}
        while way:
            node, rest = way[-1]
            following = next(rest, None)
            if following is None:
                way.pop()
                on_way.discard(node)
                done.add(node)
            elif following not in on_way:
                kept.append((node, following))
                if following not in done:
                    on_way.add(following)
                    way.append((following, iter(after[following])))
    return kept


def _columns(nodes: Sequence[str], edges: Sequence[Edge], last: frozenset[str]) -> dict[str, int]:
    """Give each node the first column behind all that point to it."""
    column = dict.fromkeys(nodes, 0)
    for _ in nodes:  # at most as many rounds as the longest way has nodes
        before = dict(column)
        for start, end in edges:
            column[end] = max(column[end], column[start] + 1)
        if column == before:
            break
    utmost = max((place + (node not in last) for node, place in column.items()), default=0)
    return {node: utmost if node in last else place for node, place in column.items()}


def _sorted(columns: list[list[str]], edges: Sequence[Edge]) -> list[list[str]]:
    neighbours: dict[str, list[str]] = {node: [] for column in columns for node in column}
    for start, end in edges:
        neighbours[start].append(end)
        neighbours[end].append(start)
    best, fewest = columns, crossings(columns, edges)
    for sweep in range(_SWEEPS):
        if fewest == 0:
            break
        place = _places(columns)
        order = range(len(columns)) if sweep % 2 == 0 else range(len(columns) - 1, -1, -1)
        columns = list(columns)
        for number in order:
            columns[number] = sorted(
                columns[number], key=lambda node: (_mean([place[near] for near in neighbours[node]]), node)
            )
            place |= _places([columns[number]])
        now = crossings(columns, edges)
        if now < fewest or len(edges) > _COUNTED:
            best, fewest = columns, now
    return best


def _places(columns: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return how far down its column each node stands, from 0 to 1: columns differ in length."""
    return {node: (row + 0.5) / len(column) for column in columns for row, node in enumerate(column)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.5


def crossings(columns: Sequence[Sequence[str]], edges: Sequence[Edge]) -> int:
    """Count the pairs of edges between the same two columns that cross."""
    if len(edges) > _COUNTED:
        return len(edges)
    column: Mapping[str, int] = {node: number for number, some in enumerate(columns) for node in some}
    row = {node: number for some in columns for number, node in enumerate(some)}
    count = 0
    for number, (start, end) in enumerate(edges):
        for other, its_end in edges[:number]:
            if column[start] == column[other] and column[end] == column[its_end]:
                count += (row[start] - row[other]) * (row[end] - row[its_end]) < 0
    return count
