"""Cycles in the storage graph: daemons that can wait for themselves, directly or through others."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ioflusher.machine.graph.nodes import Cycle, Edge, Need, Node, NodeKind, Reason
from ioflusher.support.graphs import strong_components

# Edges that may be looked at for all witnesses of a graph together: the shortest way round cannot be found
# in linear time, so a huge component gets a short one.
BUDGET = 2_000_000


def find_cycles(nodes: Sequence[Node], edges: Sequence[Edge], budget: int = BUDGET) -> tuple[Cycle, ...]:
    """Every set of nodes that can wait for one another and among which a process serves another node.

    Takes time linear in the edges, and `budget` for the witnesses.
    """
    waiting = [edge for edge in edges if edge.waits]
    ways: dict[str, list[str]] = {node.id: [] for node in nodes}
    for edge in waiting:
        ways.setdefault(edge.source, []).append(edge.target)
    component: dict[str, int] = {}
    for number, members in enumerate(strong_components(ways)):
        component.update(dict.fromkeys(members, number))
    processes = frozenset(node.id for node in nodes if node.kind is NodeKind.PROCESS)
    inside: dict[int, list[Edge]] = {}
    for edge in waiting:
        if component.get(edge.source) == component.get(edge.target):
            inside.setdefault(component[edge.source], []).append(edge)
    members_of: dict[int, list[str]] = {}
    for node in nodes:
        members_of.setdefault(component[node.id], []).append(node.id)
    spend = _Budget(budget)
    found = (_cycle(tuple(members_of[number]), within, processes, spend) for number, within in inside.items())
    return tuple(sorted((cycle for cycle in found if cycle), key=lambda c: (-len(c.daemons), c.nodes)))


def cycle_through(cycle: Cycle, edges: Iterable[Edge], node: str) -> Cycle:
    """The cycle with the shortest way round through one of its nodes, which may serve nothing itself."""
    members = frozenset(cycle.nodes)
    within = [e for e in edges if e.waits and e.source in members and e.target in members]
    for wanted in _PREFERENCES:
        ways = _outgoing(edge for edge in within if wanted(edge))
        way = _round(ways, node, node, len(members) + 1, _Budget(BUDGET))
        if way:
            return replace(cycle, witness=tuple(way), shortest=True)
    return cycle


# Edges from what a process serves, or may serve, to the process.
_SERVING = frozenset((Reason.SERVED, Reason.CANDIDATE))


class _Budget:
    """Edges that may still be looked at."""

    def __init__(self, left: int) -> None:
        self.left = left


# The ways round that say most come first.
_PREFERENCES: tuple[Callable[[Edge], bool], ...] = (
    lambda edge: edge.certain and edge.need is Need.WORK,
    lambda edge: edge.need is Need.WORK,
    lambda edge: edge.certain,
    lambda edge: True,
)


def _cycle(
    members: tuple[str, ...], within: list[Edge], processes: frozenset[str], budget: _Budget
) -> Cycle | None:
    """The cycle of one component; None where no process in it serves another member."""
    serving = [
        edge
        for edge in within
        if edge.reason in _SERVING and edge.target in processes and edge.target != edge.source
    ]
    if not serving:
        return None
    daemons = dict.fromkeys(edge.target for edge in serving)  # each once, in the graph's order
    for wanted in _PREFERENCES:
        ways = _outgoing(edge for edge in within if wanted(edge))
        best = _shortest([edge for edge in serving if wanted(edge)], ways, budget)
        if best:
            if best[0].reason is Reason.CANDIDATE:  # begin at what one of several serves
                best = [best[-1], *best[:-1]]
            return Cycle(members, tuple(best), budget.left > 0, tuple(daemons))
    raise AssertionError("an edge inside a strongly connected component lies on a way round")


def _shortest(serving: list[Edge], ways: dict[str, list[Edge]], budget: _Budget) -> list[Edge]:
    """The shortest way round that begins with one of the edges, as far as the budget goes."""
    best: list[Edge] = []
    for tried, edge in enumerate(serving):
        if len(best) == 2 or (tried and budget.left <= 0):
            break
        most = len(best) - 2 if best else len(ways)
        way = _round(ways, edge.target, edge.source, most, budget)
        if way:
            best = [edge, *way]
    return best


def _round(ways: dict[str, list[Edge]], start: str, end: str, most: int, budget: _Budget) -> list[Edge]:
    """The shortest path of one to `most` edges from start to end; empty where there is none."""
    came: dict[str, Edge] = {}
    reached = deque([(start, 0)])
    seen = {start}
    while reached:
        node, steps = reached.popleft()
        if steps >= most:
            break
        for edge in ways.get(node, ()):
            budget.left -= 1
            if edge.target == end:
                return _back(came, start, edge)
            if edge.target not in seen:
                seen.add(edge.target)
                came[edge.target] = edge
                reached.append((edge.target, steps + 1))
    return []


def _back(came: dict[str, Edge], start: str, last: Edge) -> list[Edge]:
    path = [last]
    while path[-1].source != start:
        path.append(came[path[-1].source])
    return path[::-1]


def _outgoing(edges: Iterable[Edge]) -> dict[str, list[Edge]]:
    ways: dict[str, list[Edge]] = {}
    for edge in edges:
        ways.setdefault(edge.source, []).append(edge)
    return ways
