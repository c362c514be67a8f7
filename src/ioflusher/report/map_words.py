"""Cycles in words."""

from collections.abc import Iterable, Iterator, Sequence

from ioflusher.machine.graph.cycles import cycle_through
from ioflusher.machine.graph.nodes import Cycle, Edge, Graph, Node, NodeKind, Reason
from ioflusher.machine.serving.service import Confidence
from ioflusher.machine.snapshot import Snapshot
from ioflusher.report.map_view import short
from ioflusher.support.text import counted, printable

MOST_DAEMONS = 12
MOST_UNREAD = 4

# What a step of the way round is, as "nbd0 {is served by} nbd-server (812)".
_VERBS = {
    Reason.MOUNT: "is a mount of",
    Reason.BIND: "is a mount of a part of",
    Reason.SWAP: "lies on",
    Reason.LIES_ON: "lies on",
    Reason.MEMBER: "has among its devices",
    Reason.PARTITION: "is a partition of",
    Reason.DM: "is mapped to",
    Reason.RAID: "is an array with",
    Reason.BCACHE: "caches or stores on",
    Reason.SLAVE: "stands on",
    Reason.LOOP: "has its backing file on",
    Reason.ZRAM: "writes back to",
    Reason.UPPER: "has its upper or work directory on",
    Reason.LOWER: "has a lower directory on",
    Reason.SERVED: "is served by",
    Reason.CANDIDATE: "may be",
    Reason.EXECUTABLE: "has its program on",
    Reason.LIBRARY: "has a library on",
    Reason.MAPPED: "has mapped a file on",
    Reason.LOG: "has its log on",
    Reason.WRITTEN: "has a file open for writing on",
    Reason.READ: "has a file open for reading on",
    Reason.OPEN_DEVICE: "has opened",
    Reason.PEER: "waits for its peer",
    Reason.LOGGER: "logs to",
    Reason.REMOTE: "waits for",
    Reason.RECLAIM: "may, to get memory, start",
    Reason.SWAPPED: "may have to read back",
}
# How a daemon gets rid of what makes it wait.
_REMEDIES = {
    Reason.RECLAIM: "put the state on all its threads: ioflusher set {pid}",
    Reason.SWAPPED: "have it lock its memory (mlockall)",
    Reason.EXECUTABLE: "move its program, or have it lock its memory",
    Reason.LIBRARY: "move the library, or have it lock its memory",
    Reason.MAPPED: "move the mapped file, or have it lock its memory",
    Reason.LOG: "move its log",
    Reason.WRITTEN: "move the file that it writes",
    Reason.READ: "move the file that it reads",
    Reason.OPEN_DEVICE: "have it use another device",
}


def name_of(node: Node) -> str:
    """A node as sentences name it; safe to print."""
    name = short(node.name) or "(no name)"
    match node.kind:
        case NodeKind.PROCESS:
            return f"{name} ({node.pid})"
        case NodeKind.SWAP:
            return f"swap {name}"
        case NodeKind.MOUNT:
            return f"the mount {name}"
    return name


def verb(edge: Edge, nodes: dict[str, Node]) -> str:
    """What an edge says, to stand between the names of its ends."""
    if edge.source == "reclaim":
        return "may write to"
    if edge.source == "swapped":
        return "is read from"
    if edge.reason is Reason.SWAPPED and nodes[edge.source].kind is NodeKind.FILE_SYSTEM:
        return "has pages in"
    return _VERBS[edge.reason]


def headline(graph: Graph) -> str:
    """The answer in one sentence."""
    daemons = sum(node.kind is NodeKind.PROCESS for node in graph.nodes)
    caught = sum(len(cycle.daemons) for cycle in graph.cycles)
    if not daemons:
        return "no process of this machine is seen to serve storage to it"
    people = f"{counted(daemons, 'process', 'processes')} in the I/O path"
    if not caught:
        return f"{people}, no cycle"
    cycles = counted(len(graph.cycles), "cycle")
    who = "it" if caught == daemons == 1 else f"{caught} of them"
    return f"{people}, {cycles}: {who} can wait for {'themselves' if caught > 1 else 'itself'}"


def not_read(snapshot: Snapshot) -> list[str]:
    """What the graph may lack because it could not be read, in a few lines."""
    entries = snapshot.unreadable
    lines = [printable(f"{entry.what[:200]}: {entry.why[:200]}") for entry in entries[:MOST_UNREAD]]
    if len(entries) > MOST_UNREAD:
        lines.append(f"and {len(entries) - MOST_UNREAD} more, which --json lists")
    return lines


def title(cycle: Cycle, number: int, nodes: dict[str, Node]) -> str:
    """One cycle in a line."""
    round_it = [edge.target for edge in cycle.witness if edge.target in cycle.daemons]
    names = ", ".join(name_of(nodes[daemon]) for daemon in round_it[:3])
    names += f" and {len(round_it) - 3} more" if len(round_it) > 3 else ""
    each = "for itself" if len(round_it) == 1 else "for one another"
    caught = len(cycle.daemons) - len(round_it)
    also = f"; {caught} more {'is' if caught == 1 else 'are'} caught with it" if caught else ""
    doubt = "" if cycle.certain else ", if what is not certain holds"
    when = " while it recovers a lost path or connection" if cycle.recovery else ""
    new = " (would be new)" if cycle.hypothetical else ""
    return f"cycle {number}{new}: {names} can wait {each}{when}{doubt}{also}"


def steps(cycle: Cycle, nodes: dict[str, Node]) -> Iterator[tuple[str, str]]:
    """The way round, a sentence a step, each with its evidence."""
    for edge in cycle.witness:
        source, target = name_of(nodes[edge.source]), name_of(nodes[edge.target])
        yield f"{source} {verb(edge, nodes)} {target}", printable(edge.evidence)


def others(cycle: Cycle, graph: Graph, nodes: dict[str, Node], arrow: str) -> Iterator[str]:
    """The shortest way round through each further daemon of the cycle, for the first few of them."""
    shown = {edge.source for edge in cycle.witness}
    left = [daemon for daemon in cycle.daemons if daemon not in shown]
    members = frozenset(cycle.nodes)
    within = [edge for edge in graph.edges if edge.source in members and edge.target in members]
    for daemon in left[:MOST_DAEMONS]:
        way = cycle_through(cycle, within, daemon).witness
        yield arrow.join(name_of(nodes[edge.source]) for edge in (*way, way[0]))
    if len(left) > MOST_DAEMONS:
        yield f"and ways of {len(left) - MOST_DAEMONS} more processes"


def _possible_candidates(edges: Iterable[Edge]) -> frozenset[str]:
    """Processes that are candidates alone, and not known to speak the protocol."""
    judged: dict[str, bool] = {}
    for edge in edges:
        if edge.reason in (Reason.SERVED, Reason.CANDIDATE):
            possible = edge.candidate is not None and edge.candidate.confidence is Confidence.POSSIBLE
            judged[edge.target] = judged.get(edge.target, True) and possible
    return frozenset(node for node, possible in judged.items() if possible)


def remedies(cycle: Cycle, edges: Sequence[Edge], nodes: dict[str, Node]) -> Iterator[str]:
    """For each daemon of the cycle, all that makes it wait for another member, as what would end that."""
    members = frozenset(cycle.nodes)
    ways: dict[str, list[Edge]] = {}
    for edge in edges:
        inside = edge.waits and edge.source in members and edge.target in members
        if inside and edge.reason in _REMEDIES and nodes[edge.source].kind is NodeKind.PROCESS:
            ways.setdefault(edge.source, []).append(edge)
    possible = _possible_candidates(edges)
    for process, found in list(ways.items())[:MOST_DAEMONS]:
        words = dict.fromkeys(_REMEDIES[edge.reason].format(pid=nodes[process].pid) for edge in found)
        if process in possible:
            words = {"find out first whether it serves one of them: nothing says so": None}
        yield f"{name_of(nodes[process])}: {'; '.join(words)}"
    if len(ways) > MOST_DAEMONS:
        yield f"and {len(ways) - MOST_DAEMONS} more processes"
