"""The storage graph as pictures show it: mounts gathered, parallel edges as one arrow, the idle left out."""

from collections import defaultdict
from dataclasses import dataclass
from enum import Enum

from ioflusher.kernel.coverage import Coverage
from ioflusher.machine.graph.nodes import Cycle, Edge, Graph, Need, Node, NodeKind, Reason
from ioflusher.machine.process import Process
from ioflusher.support.text import counted, printable

MOST_POINTS = 3
LONGEST_NAME = 48
LONGEST_EVIDENCE = 400
_MOUNTED = frozenset((Reason.MOUNT, Reason.BIND))


class State(Enum):
    """How much of a process carries the IO_FLUSHER state."""

    COVERED = "covered"
    PARTLY = "partly covered"
    BARE = "not covered"


@dataclass(frozen=True, slots=True)
class Box:
    """One node of the picture; all text is safe to print.

    Attributes:
        id: of the graph's node, of mounts gathered in one box the first one's.
        kind: as the node's.
        title, lines: what is written in it.
        state: of a process.
        cycle: the number of the cycle that it is part of, 0 for none.
    """

    id: str
    kind: NodeKind
    title: str
    lines: tuple[str, ...]
    state: State | None = None
    cycle: int = 0


@dataclass(frozen=True, slots=True)
class Arrow:
    """All edges from one box to another; text is safe to print.

    Attributes:
        source, target: boxes.
        reasons: of the edges, each once.
        evidence: of the edges.
        need: the soonest of the edges'.
        certain: whether one of those is certain.
        cycle: the number of the cycle that both ends are part of, where it waits; 0 for none.
        witness: whether the way round that is printed goes here.
    """

    source: str
    target: str
    reasons: tuple[Reason, ...]
    evidence: tuple[str, ...]
    need: Need
    certain: bool
    cycle: int = 0
    witness: bool = False

    @property
    def label(self) -> str:
        """Why, in a few words."""
        words = ", ".join(reason.value for reason in self.reasons)
        return words + {Need.WORK: "", Need.RECOVERY: " (in recovery)", Need.START: " (at start)"}[self.need]


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn.

    Attributes:
        boxes, arrows: in the graph's order.
        cycles: the graph's.
        left_out: mounts, file systems and devices that are not drawn, because nothing stands behind them
            and nothing waits for them.
    """

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    cycles: tuple[Cycle, ...]
    left_out: int


def picture(graph: Graph, *, everything: bool = False) -> Picture:
    """The picture of a graph; `everything` leaves nothing out."""
    cycle_of = {node: number for number, cycle in enumerate(graph.cycles, 1) for node in cycle.nodes}
    idle = frozenset() if everything else _idle(graph)
    kept = [node for node in graph.nodes if node.id not in idle]
    gathered = _gathered(graph, kept)
    boxes = tuple(
        _box(node, gathered[node.id], cycle_of.get(node.id, 0)) for node in kept if node.id in gathered
    )
    drawn = frozenset(box.id for box in boxes)
    edges = [edge for edge in graph.edges if edge.source in drawn and edge.target in drawn]
    return Picture(boxes, _arrows(edges, graph.cycles, cycle_of), graph.cycles, len(idle - {"swapped"}))


def _idle(graph: Graph) -> frozenset[str]:
    """Nodes without anything behind them that nothing but a mount waits for: proc, tmpfs, unused devices."""
    busy: set[str] = set()
    mounts: defaultdict[str, list[str]] = defaultdict(list)
    for edge in graph.edges:
        if edge.reason in _MOUNTED:
            mounts[edge.target].append(edge.source)
            continue
        busy.add(edge.target)
        if edge.target != "swapped":
            busy.add(edge.source)
    idle: set[str] = set()
    for node in graph.nodes:
        if node.kind in (NodeKind.FILE_SYSTEM, NodeKind.DEVICE) and node.id not in busy:
            idle.update((node.id, *mounts[node.id]))
    if all(edge.source in idle for edge in graph.edges if edge.target == "swapped"):
        idle.add("swapped")
    return frozenset(idle)


def _gathered(graph: Graph, kept: list[Node]) -> dict[str, list[Node]]:
    """What each box stands for: one node, or all mounts of a file system under the first one."""
    file_system = {edge.source: edge.target for edge in graph.edges if edge.reason in _MOUNTED}
    first: dict[str, str] = {}
    gathered: dict[str, list[Node]] = {}
    for node in kept:
        home = node.id
        if node.kind is NodeKind.MOUNT:
            home = first.setdefault(file_system.get(node.id, node.id), node.id)
        gathered.setdefault(home, []).append(node)
    return gathered


def _box(node: Node, nodes: list[Node], cycle: int) -> Box:
    title, lines = short(node.name) or "(no name)", [short(node.detail)] if node.detail else []
    if node.kind is NodeKind.MOUNT:
        points = list(dict.fromkeys(each.name for each in nodes))
        more = f" and {len(points) - MOST_POINTS} more" if len(points) > MOST_POINTS else ""
        title, lines = ", ".join(short(point) for point in points[:MOST_POINTS]) + more, []
        if all("read-only" in each.detail for each in nodes):
            lines = ["read-only"]
    elif node.kind is NodeKind.PROCESS:
        title = f"{title} ({node.pid})"
    if any(each.hypothetical for each in nodes):
        lines.append("would be new")
    if node.process is None:
        return Box(node.id, node.kind, title, tuple(lines), cycle=cycle)
    lines += process_words(node.process)
    return Box(node.id, node.kind, title, tuple(lines), state_of(node.process.coverage), cycle)


def state_of(coverage: Coverage) -> State:
    """The state in one word."""
    if coverage.complete:
        return State.COVERED
    return State.PARTLY if coverage.covered or coverage.half_set else State.BARE


def process_words(process: Process) -> list[str]:
    """What a process carries, and where its memory is."""
    coverage = process.coverage
    half = f", {coverage.half_set} half set" if coverage.half_set else ""
    locked = {True: "memory locked", False: "memory not locked", None: "locked memory unknown"}
    swapped = f", {process.swapped_kib} KiB in swap" if process.swapped_kib else ""
    return [
        f"{coverage.covered} of {counted(len(coverage.threads), 'thread')} covered{half}",
        locked[process.memory_locked] + swapped,
    ]


def short(text: str) -> str:
    """The machine's text, safe to print, cut in the middle where it is long."""
    safe = printable(text[: LONGEST_NAME * 8])
    if len(safe) <= LONGEST_NAME and len(text) <= LONGEST_NAME * 8:
        return safe
    half = LONGEST_NAME // 2 - 2
    return f"{safe[:half]}...{printable(text[-half:])[-half:]}"


def _arrows(edges: list[Edge], cycles: tuple[Cycle, ...], cycle_of: dict[str, int]) -> tuple[Arrow, ...]:
    between: dict[tuple[str, str], list[Edge]] = {}
    for edge in edges:
        between.setdefault((edge.source, edge.target), []).append(edge)
    witness = {(edge.source, edge.target) for cycle in cycles for edge in cycle.witness}
    return tuple(
        _arrow(parallel, cycle_of.get(source, 0), cycle_of.get(target, 0), (source, target) in witness)
        for (source, target), parallel in between.items()
    )


def _arrow(edges: list[Edge], source_cycle: int, target_cycle: int, witness: bool) -> Arrow:
    need = min((edge.need for edge in edges), key=list(Need).index)
    first = [edge for edge in edges if edge.need is need]
    waits = any(edge.waits for edge in edges)
    return Arrow(
        source=edges[0].source,
        target=edges[0].target,
        reasons=tuple(dict.fromkeys(edge.reason for edge in edges)),
        evidence=tuple(printable(edge.evidence[:LONGEST_EVIDENCE]) for edge in edges),
        need=need,
        certain=any(edge.certain for edge in first),
        cycle=source_cycle if waits and source_cycle == target_cycle else 0,
        witness=witness,
    )
