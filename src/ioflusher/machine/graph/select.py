"""A part of the storage graph: what has to do with one device, mount or process, or with the cycles alone."""

from collections.abc import Iterable
from dataclasses import replace

from ioflusher.errors import IoflusherError
from ioflusher.machine.graph.cycles import cycle_through
from ioflusher.machine.graph.layers import Layers
from ioflusher.machine.graph.nodes import Cycle, Graph, NodeKind

# Everything meets in these: what lies behind them is followed only along a cycle.
_HUBS = frozenset((NodeKind.RECLAIM, NodeKind.SWAPPED))


def select(graph: Graph, layers: Layers, what: str) -> Graph:
    """The part around a device ("/dev/nbd0", "nbd0"), a mount point, a swap file or a process number.

    It holds all that waits for it and all that it waits for, and the way round each cycle that it is part of.

    Raises:
        IoflusherError: where nothing of that name is in the graph.
    """
    found = _find(graph, layers, what)
    if not found:
        raise IoflusherError(
            f"expected a block device, mount point, swap area or PID of the graph, found {what!r}",
            hint="`ioflusher map --all` shows what there is; processes that serve no storage are not in it",
        )
    kept = _around(graph, found)
    hubs = frozenset(node.id for node in graph.nodes if node.kind in _HUBS)
    cycles = []
    for cycle in graph.cycles:
        mine = [node for node in found if node in cycle.nodes]
        if mine:
            cycle = cycle_through(cycle, graph.edges, mine[0])
        elif (kept - hubs).isdisjoint(cycle.nodes):
            continue
        cycles.append(cycle)
        kept |= {edge.source for edge in cycle.witness}
    return _part(graph, kept, cycles)


def only_cycles(graph: Graph) -> Graph:
    """The members of cycles and what is between them."""
    return _part(graph, {node for cycle in graph.cycles for node in cycle.nodes}, graph.cycles)


def _find(graph: Graph, layers: Layers, what: str) -> list[str]:
    """Nodes of that name."""
    nodes = {node.id for node in graph.nodes}
    device = layers.device_of_path(what if what.startswith("/") else f"/dev/{what}")
    wanted = [f"pid:{int(what)}"] if what.isdecimal() and len(what) < 20 else [f"swap:{what}", what]
    if device is not None:
        wanted.insert(0, f"dev:{device.name}")
    points = [node.id for node in graph.nodes if node.kind is NodeKind.MOUNT and node.name == what]
    return [node for node in (*wanted, *points) if node in nodes]


def _around(graph: Graph, start: list[str]) -> set[str]:
    """What the nodes wait for, and what waits for them."""
    hubs = frozenset(node.id for node in graph.nodes if node.kind in _HUBS)
    down: dict[str, list[str]] = {}
    up: dict[str, list[str]] = {}
    for edge in graph.edges:
        if edge.source not in hubs:
            down.setdefault(edge.source, []).append(edge.target)
            up.setdefault(edge.target, []).append(edge.source)
    return _reached(start, down) | _reached(start, up)


def _reached(start: Iterable[str], steps: dict[str, list[str]]) -> set[str]:
    seen = set(start)
    waiting = list(seen)
    while waiting:
        for node in steps.get(waiting.pop(), ()):
            if node not in seen:
                seen.add(node)
                waiting.append(node)
    return seen


def _part(graph: Graph, kept: set[str], cycles: Iterable[Cycle]) -> Graph:
    return Graph(
        tuple(node for node in graph.nodes if node.id in kept),
        tuple(edge for edge in graph.edges if edge.source in kept and edge.target in kept),
        tuple(
            replace(
                cycle,
                nodes=tuple(node for node in cycle.nodes if node in kept),
                daemons=tuple(node for node in cycle.daemons if node in kept),
            )
            for cycle in cycles
        ),
    )
