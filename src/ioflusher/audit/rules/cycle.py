"""The rule on circles: a daemon that waits for itself through other processes."""

from collections.abc import Iterator

from ioflusher.audit.finding import Evidence, Remedy, Severity, Subject, SubjectKind
from ioflusher.audit.rules.rule import MOST_NAMED, Found, more
from ioflusher.audit.rules.swap import lock_commands, lock_plan
from ioflusher.audit.thresholds import Thresholds
from ioflusher.audit.view import View
from ioflusher.machine.graph.cycles import cycle_through, find_cycles
from ioflusher.machine.graph.nodes import Cycle, Edge, Node, NodeKind, Reason
from ioflusher.machine.serving.service import Confidence

_MEMORY = frozenset({Reason.RECLAIM, Reason.SWAPPED})


def cycle(view: View, thresholds: Thresholds) -> Iterator[Found]:
    """Circles of the storage graph that pass through two processes or more."""
    if not view.daemons:
        return
    every, waits = view.analysis.parts
    nodes = {node.id: node for node in every}
    # a daemon's own memory has its own rules
    daemons = {f"pid:{daemon.process.pid}" for daemon in view.daemons}
    edges = [
        edge
        for edge in waits
        if not (edge.reason in _MEMORY and edge.source in daemons)
        # no advice about a process that may be a stranger
        and not (edge.candidate is not None and edge.candidate.confidence is Confidence.POSSIBLE)
    ]
    for circle in find_cycles(every, edges):
        way = _through_others(circle, edges, nodes)
        if way is not None:
            yield _finding(view, way, nodes)


def _processes(names: Iterator[str], nodes: dict[str, Node]) -> list[str]:
    return [name for name in names if nodes[name].kind is NodeKind.PROCESS]


def _through_others(circle: Cycle, edges: list[Edge], nodes: dict[str, Node]) -> Cycle | None:
    """The circle with a way round through two processes or more, None where there is none."""
    on_way = _processes((edge.source for edge in circle.witness), nodes)
    if len(on_way) > 1:
        return circle
    for name in _processes(iter(circle.nodes), nodes):
        if name not in on_way:
            other = cycle_through(circle, edges, name)
            if len(_processes((edge.source for edge in other.witness), nodes)) > 1:
                return other
    return None


def _finding(view: View, circle: Cycle, nodes: dict[str, Node]) -> Found:
    way = circle.witness
    served = next((edge for edge in way if nodes[edge.target].kind is NodeKind.PROCESS), way[0])
    first = nodes[served.target]
    by_memory = any(edge.reason in _MEMORY for edge in way)
    base = Severity.WARNING if by_memory else Severity.ERROR
    low_stake = min(
        (target.low_stake_steps for d in view.daemons if d.process.pid == first.pid for target in d.targets),
        default=0,
    )
    names = [nodes[edge.source] for edge in way]
    return Found(
        base.lowered(low_stake + circle.recovery + (not circle.certain)),
        Subject(SubjectKind.PROCESS, first.name, first.pid),
        f"it waits for itself: {' -> '.join(_words(node) for node in (*names, names[0]))}",
        (
            *(
                Evidence(
                    f"{_words(nodes[edge.source])}, {edge.reason.value} {_words(nodes[edge.target])}",
                    edge.evidence + ("" if edge.certain else " (not certain)"),
                )
                for edge in way[:MOST_NAMED]
            ),
            *more(len(way) - MOST_NAMED, "step"),
        ),
        _remedy(view, way, nodes),
    )


def _words(node: Node) -> str:
    return node.name if node.pid is None else f"{node.name} ({node.pid})"


def _remedy(view: View, way: tuple[Edge, ...], nodes: dict[str, Node]) -> Remedy:
    processes = {process.pid: process for process in view.snapshot.processes}
    words, commands = [], []
    for edge in way:
        process = processes.get(nodes[edge.source].pid or 0)
        if process is None or edge.reason not in _MEMORY:
            continue
        if edge.reason is Reason.RECLAIM:
            commands.append(f"ioflusher set {process.pid}")
            continue
        figures, safe = lock_plan(view, process)
        words.append(f" Of {process.comm} ({process.pid}): {figures}.")
        commands += lock_commands(process) if safe else ()
    if commands or words:
        return Remedy(
            "Give the processes whose memory closes the circle the state and locked memory; or have the "
            "daemon do without them." + "".join(words),
            commands=tuple(dict.fromkeys(commands)),
            unit=("LimitMEMLOCK=infinity",) if words else (),
        )
    return Remedy(
        "Break the circle at one place: move a store, a log or a program to a disk that none of these "
        "processes serves, or a peer to another machine."
    )
