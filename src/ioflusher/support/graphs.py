"""Directed graphs, as mappings from each node to those that its edges lead to: who can reach one another, and
the way from a node back to itself.

Both are text-book algorithms of a few lines. networkx has them, too, and to load it takes 130 ms and 24 MiB:
more than most of what asks here takes itself.
"""

from __future__ import annotations

import sys
from heapq import heappop, heappush
from itertools import count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping
    from typing import TypeVar

    Node = TypeVar("Node", bound=Hashable)

_DONE = sys.maxsize  # the place of a node whose component is complete: behind all that are open


def strong_components(ways: Mapping[Node, Iterable[Node]]) -> Iterator[list[Node]]:
    """The sets of nodes that can reach one another; a node that is in no cycle is a set of its own.

    Takes time linear in the edges, and no recursion. Every component comes after those that it leads to.

    Gabow, Path-based depth-first search for strong and biconnected components (2000): nodes that are seen and
    whose component is not known lie on one stack, and a second one says where in it each component may begin.
    An edge that leads back joins all that begin behind its end.
    """
    place: dict[Node, int] = {}  # on the stack
    stack: list[Node] = []
    begins: list[int] = []
    # from a root to where the search is, each with the edges that are left to try
    path: list[tuple[Node, Iterator[Node]]] = []

    def enter(node: Node) -> None:
        place[node] = len(stack)
        begins.append(len(stack))
        stack.append(node)
        path.append((node, iter(ways.get(node, ()))))

    for root in ways:
        if root not in place:
            enter(root)
        while path:
            node, others = path[-1]
            for other in others:
                if other not in place:
                    enter(other)
                    break
                while place[other] < begins[-1]:
                    begins.pop()
            else:
                path.pop()
                if place[node] == begins[-1]:
                    component = stack[begins.pop() :]
                    del stack[-len(component) :]
                    place.update(dict.fromkeys(component, _DONE))
                    yield component


def way_back(ways: Mapping[Node, Mapping[Node, int]], start: Node) -> tuple[Node, ...]:
    """The cheapest way from a node back to itself: its nodes, `start` first; empty where there is none.

    Args:
        ways: for each node those that its edges lead to, each with what the edge costs, 0 or more.
        start: where the way begins and ends.

    Dijkstra's; of ways that cost the same it is the one that was found first: where all edges cost the same,
    this is a search in breadth.
    """
    came_from: dict[Node, Node] = {}
    found = count()
    reached: list[tuple[int, int, Node, Node]] = []
    node, so_far = start, 0
    while start not in came_from:
        for other, cost in ways.get(node, {}).items():
            if other not in came_from:
                heappush(reached, (so_far + cost, next(found), other, node))
        while reached and reached[0][2] in came_from:
            heappop(reached)
        if not reached:
            return ()
        so_far, _, node, before = heappop(reached)
        came_from[node] = before
    way = [came_from[start]]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return tuple(reversed(way))
