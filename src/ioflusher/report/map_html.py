"""Storage graphs as one HTML page that loads nothing: pictures, cycles in words, processes. Needs jinja2."""

from collections.abc import Iterable
from typing import Any

from ioflusher import __version__
from ioflusher.errors import IoflusherError
from ioflusher.machine.graph.nodes import Graph, Node, NodeKind
from ioflusher.machine.snapshot import Snapshot
from ioflusher.report.map_dot import STATES, render_svg
from ioflusher.report.map_view import picture, short, state_of
from ioflusher.report.map_words import headline, name_of, not_read, others, remedies, steps, title
from ioflusher.support.text import printable


def render_html(maps: Iterable[tuple[Snapshot, Graph]], *, everything: bool = False) -> str:
    """The page; everything from the machines is escaped. Without Graphviz it says so, and has all the rest.

    Raises:
        IoflusherError: the package jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise IoflusherError(
            f"reports need a package that is not installed: {error.name}", hint="pip install 'ioflusher[lab]'"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ioflusher.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    records = [_record(snapshot, graph, everything) for snapshot, graph in maps]
    return environment.get_template("map.html.j2").render(maps=records, version=__version__)


def _record(snapshot: Snapshot, graph: Graph, everything: bool) -> dict[str, Any]:
    drawn = picture(graph, everything=everything)
    svg, trouble = "", ""
    try:
        svg = render_svg(drawn, "")
    except IoflusherError as error:
        trouble = f"{error}. {error.hint or ''}"
    nodes = {node.id: node for node in graph.nodes}
    system = snapshot.system
    return {
        "host": printable(system.hostname),
        "kernel": printable(system.release),
        "taken": printable(system.taken),
        "headline": headline(graph),
        "not_read": not_read(snapshot),
        "svg": svg,
        "trouble": printable(trouble),
        "left_out": drawn.left_out,
        "cycles": [
            {
                "title": title(cycle, number, nodes),
                "steps": list(steps(cycle, nodes)),
                "shortest": cycle.shortest,
                "others": list(others(cycle, graph, nodes, " \N{RIGHTWARDS ARROW} ")),
                "remedies": list(remedies(cycle, graph.edges, nodes)),
            }
            for number, cycle in enumerate(graph.cycles, 1)
        ],
        "daemons": _daemons(graph),
    }


def _daemons(graph: Graph) -> list[dict[str, Any]]:
    cycle_of = {node: number for number, cycle in enumerate(graph.cycles, 1) for node in cycle.nodes}
    return [_daemon(node, cycle_of.get(node.id, 0)) for node in graph.nodes if node.kind is NodeKind.PROCESS]


def _daemon(node: Node, cycle: int) -> dict[str, Any]:
    process = node.process
    assert process is not None
    coverage = process.coverage
    state = state_of(coverage)
    locked = {True: "yes", False: "no", None: "unknown"}[process.memory_locked]
    kib = f", {process.locked_kib} KiB" if process.locked_kib else ""
    return {
        "name": name_of(node),
        "role": short(node.detail),
        "state_class": state.name.lower(),
        "sign": STATES[state][3],
        "covered": coverage.covered,
        "threads": len(coverage.threads),
        "half_set": coverage.half_set,
        "locked": locked + kib,
        "swapped": "unknown" if process.swapped_kib is None else f"{process.swapped_kib} KiB",
        "cycle": cycle,
    }
