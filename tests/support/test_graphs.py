"""Components and ways of directed graphs, as networkx finds them."""

import networkx
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.support.graphs import strong_components, way_back

NODES = st.integers(0, 7)
GRAPHS = st.dictionaries(NODES, st.dictionaries(NODES, st.integers(0, 3), max_size=4), max_size=8)


@given(GRAPHS)
def test_components_are_those_of_networkx(ways: dict[int, dict[int, int]]) -> None:
    """The same sets, nodes without edges of their own among them, and none before one that it leads to."""
    found = [frozenset(component) for component in strong_components(ways)]
    graph = networkx.DiGraph(ways)
    assert sorted(map(sorted, found)) == sorted(map(sorted, networkx.strongly_connected_components(graph)))
    place = {node: number for number, component in enumerate(found) for node in component}
    assert all(place[one] >= place[other] for one, others in ways.items() for other in others)


@given(GRAPHS, NODES)
def test_the_way_back_is_the_cheapest_of_all(ways: dict[int, dict[int, int]], start: int) -> None:
    """A way along edges, no node twice, and of all the simple cycles through the node none costs less."""

    def cost(way: tuple[int, ...] | list[int]) -> int:
        return sum(ways[one][other] for one, other in zip(way, (*way[1:], way[0]), strict=True))

    way = way_back(ways, start)
    cycles = [cycle for cycle in networkx.simple_cycles(networkx.DiGraph(ways)) if start in cycle]
    assert bool(way) == bool(cycles)
    if way:
        assert way[0] == start
        assert len(set(way)) == len(way)
        assert cost(way) == min(map(cost, cycles))


def test_of_ways_that_cost_the_same_the_first_found_counts() -> None:
    """Edges in their order: an answer is the same each time, and of the fewest edges where all cost one."""
    assert way_back({0: {1: 1, 2: 1}, 1: {0: 1}, 2: {0: 1}}, 0) == (0, 1)
    assert way_back({0: {2: 1, 1: 1}, 1: {0: 1}, 2: {0: 1}}, 0) == (0, 2)
    assert way_back({0: {1: 1, 2: 1}, 1: {3: 1}, 2: {0: 1}, 3: {0: 1}}, 0) == (0, 2)


def test_a_long_way_needs_no_recursion() -> None:
    """A circle of 50,000 nodes is one component, and the way round it is found."""
    many = 50_000
    circle = {node: {(node + 1) % many: 1} for node in range(many)}
    (component,) = strong_components(circle)
    assert sorted(component) == list(range(many))
    assert way_back(circle, 7) == (*range(7, many), *range(7))
