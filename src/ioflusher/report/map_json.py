"""The storage graph as JSON."""

from typing import Any

from ioflusher.machine.graph.nodes import Cycle, Edge, Graph, Node
from ioflusher.machine.process import Process
from ioflusher.machine.snapshot import Snapshot
from ioflusher.report.map_view import state_of


def map_record(snapshot: Snapshot, graph: Graph) -> dict[str, Any]:
    """The whole graph: nodes, edges, cycles, what could not be read, and whose it is."""
    return {
        "host": snapshot.system.hostname,
        "taken": snapshot.system.taken,
        "kernel": snapshot.system.release,
        "nodes": [_node(node) for node in graph.nodes],
        "edges": [_edge(edge) for edge in graph.edges],
        "cycles": [_cycle(cycle) for cycle in graph.cycles],
        "unreadable": [
            {"what": entry.what, "why": entry.why, "pid": entry.pid} for entry in snapshot.unreadable
        ],
    }


def _node(node: Node) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": node.id,
        "kind": node.kind.value,
        "name": node.name,
        "detail": node.detail,
    }
    if node.number is not None:
        record["number"] = node.number
    if node.process is not None:
        record["pid"] = node.process.pid
        record["coverage"] = _coverage(node.process)
    if node.hypothetical:
        record["hypothetical"] = True
    return record


def _coverage(process: Process) -> dict[str, Any]:
    coverage = process.coverage
    return {
        "state": state_of(coverage).value,
        "threads": len(coverage.threads),
        "covered": coverage.covered,
        "half_set": coverage.half_set,
        "memory_locked": process.memory_locked,
        "locked_kib": process.locked_kib,
        "resident_kib": process.resident_kib,
        "swapped_kib": process.swapped_kib,
    }


def _edge(edge: Edge) -> dict[str, Any]:
    record: dict[str, Any] = {
        "source": edge.source,
        "target": edge.target,
        "reason": edge.reason.value,
        "need": edge.need.value,
        "certain": edge.certain,
        "evidence": edge.evidence,
    }
    if edge.candidate is not None:
        record["candidate"] = {
            "confidence": edge.candidate.confidence.value,
            "rank": edge.candidate.rank,
            "number": edge.candidate.number,
            "reason": edge.candidate.reason,
        }
    return record


def _cycle(cycle: Cycle) -> dict[str, Any]:
    return {
        "nodes": list(cycle.nodes),
        "daemons": list(cycle.daemons),
        "recovery": cycle.recovery,
        "certain": cycle.certain,
        "shortest": cycle.shortest,
        "hypothetical": cycle.hypothetical,
        "witness": [_edge(edge) for edge in cycle.witness],
    }
