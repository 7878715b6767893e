"""Columns and their order for a drawing."""

from hypothesis import given
from hypothesis import strategies as st

from nixpatch.report.layered import crossings, layers

NODES = [f"n{number}" for number in range(8)]
edges = st.sets(st.tuples(st.sampled_from(NODES), st.sampled_from(NODES)).filter(lambda e: e[0] != e[1])).map(
    sorted
)


def test_a_chain_goes_to_the_right_and_what_is_last_stands_last() -> None:
    columns = layers(
        ["a", "b", "c", "gcc", "zlib"], [("a", "b"), ("b", "c"), ("a", "zlib")], frozenset({"gcc", "zlib"})
    )
    assert columns == [["a"], ["b"], ["c"], ["gcc", "zlib"]]


def test_lines_that_need_not_cross_do_not() -> None:
    chosen = [("a", "z"), ("b", "y"), ("c", "x")]
    columns = layers(["a", "b", "c", "x", "y", "z"], chosen)
    assert crossings([["a", "b", "c"], ["x", "y", "z"]], chosen) == 3
    assert crossings(columns, chosen) == 0


def test_nothing_has_no_columns() -> None:
    assert layers([], []) == []


@given(edges, st.sets(st.sampled_from(NODES)).map(frozenset))
def test_every_node_stands_once_and_no_line_but_of_a_cycle_leads_back(
    chosen: list[tuple[str, str]], last: frozenset[str]
) -> None:
    columns = layers(NODES, chosen, last)
    assert sorted(node for column in columns for node in column) == NODES
    if last:
        assert last <= set(columns[-1])
    column = {node: number for number, some in enumerate(columns) for node in some}
    back = [(start, end) for start, end in chosen if column[start] >= column[end] and not {start, end} & last]
    for start, end in back:  # then there is a way from its end to its start
        seen, queue = {end}, [end]
        for node in queue:
            for one, other in chosen:
                if one == node and other not in seen:
                    seen.add(other)
                    queue.append(other)
        assert start in seen
    assert layers(NODES, chosen, last) == columns
