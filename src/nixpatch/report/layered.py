"""A layered drawing of a directed graph: the column of each node, and its position in the column.

The three steps of Sugiyama, Tagawa and Toda ("Methods for Visual Understanding of Hierarchical System
Structures", 1981): remove the edges that close a cycle, put each node into a column right of all that point
to it, then sort each column by the mean position of its neighbours, as long as fewer edges cross.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_SWEEPS = 12
_MAX_COUNTED = 600
"""edges; the crossings of more are not counted, and the last order is taken"""

Edge = tuple[str, str]


def layers(
    nodes: Sequence[str], edges: Sequence[Edge], last: frozenset[str] = frozenset()
) -> list[list[str]]:
    """Return the columns from left to right; the nodes of ``last`` share the last one.

    The same input gives the same columns.
    """
    forward = _without_cycles(nodes, edges)
    column = _columns(nodes, forward, last)
    columns: list[list[str]] = [[] for _ in range(max(column.values(), default=-1) + 1)]
    for node in nodes:
        columns[column[node]].append(node)
    return _sorted([members for members in columns if members], forward)


def _without_cycles(nodes: Sequence[str], edges: Sequence[Edge]) -> list[Edge]:
    """Return the edges without those that lead back to a node on the current path (depth-first search)."""
    after: dict[str, list[str]] = {node: [] for node in nodes}
    for start, end in edges:
        after[start].append(end)
    done: set[str] = set()
    kept: list[Edge] = []
    for root in nodes:
        path = [(root, iter(after[root]))] if root not in done else []
        on_path = {root}
        while path:
            node, rest = path[-1]
            following = next(rest, None)
            if following is None:
                path.pop()
                on_path.discard(node)
                done.add(node)
            elif following not in on_path:
                kept.append((node, following))
                if following not in done:
                    on_path.add(following)
                    path.append((following, iter(after[following])))
    return kept


def _columns(nodes: Sequence[str], edges: Sequence[Edge], last: frozenset[str]) -> dict[str, int]:
    """Return the first column for each node that is right of all nodes that point to it."""
    column = dict.fromkeys(nodes, 0)
    for _ in nodes:  # at most as many rounds as the longest path has nodes
        before = dict(column)
        for start, end in edges:
            column[end] = max(column[end], column[start] + 1)
        if column == before:
            break
    rightmost = max((number + (node not in last) for node, number in column.items()), default=0)
    return {node: rightmost if node in last else number for node, number in column.items()}


def _sorted(columns: list[list[str]], edges: Sequence[Edge]) -> list[list[str]]:
    neighbours: dict[str, list[str]] = {node: [] for column in columns for node in column}
    for start, end in edges:
        neighbours[start].append(end)
        neighbours[end].append(start)
    best, fewest = columns, crossings(columns, edges)
    for sweep in range(_SWEEPS):
        if fewest == 0:
            break
        position = _positions(columns)
        order = range(len(columns)) if sweep % 2 == 0 else range(len(columns) - 1, -1, -1)
        columns = list(columns)
        for number in order:
            columns[number] = sorted(
                columns[number], key=lambda node: (_mean([position[near] for near in neighbours[node]]), node)
            )
            position |= _positions([columns[number]])
        now = crossings(columns, edges)
        if now < fewest or len(edges) > _MAX_COUNTED:
            best, fewest = columns, now
    return best


def _positions(columns: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return the position of each node in its column, from 0 to 1, as columns differ in length."""
    return {node: (row + 0.5) / len(column) for column in columns for row, node in enumerate(column)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.5


def crossings(columns: Sequence[Sequence[str]], edges: Sequence[Edge]) -> int:
    """Count the pairs of edges between the same two columns that cross."""
    if len(edges) > _MAX_COUNTED:
        return len(edges)
    column: Mapping[str, int] = {node: number for number, members in enumerate(columns) for node in members}
    row = {node: number for members in columns for number, node in enumerate(members)}
    count = 0
    for number, (start, end) in enumerate(edges):
        for other_start, other_end in edges[:number]:
            if column[start] == column[other_start] and column[end] == column[other_end]:
                count += (row[start] - row[other_start]) * (row[end] - row[other_end]) < 0
    return count
