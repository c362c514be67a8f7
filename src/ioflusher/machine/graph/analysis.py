"""What follows from one snapshot: who serves what, the layers, the storage graph; each computed once."""

from functools import cached_property

from ioflusher.machine.graph.build import graph_parts
from ioflusher.machine.graph.cycles import find_cycles
from ioflusher.machine.graph.layers import Layers
from ioflusher.machine.graph.nodes import Edge, Graph, Node
from ioflusher.machine.serving.infer import services as infer_services
from ioflusher.machine.serving.service import StorageService
from ioflusher.machine.snapshot import Snapshot


class Analysis:
    """One snapshot with all that is computed from it, when it is first asked for.

    Whoever judges or draws a machine is handed this, and not the snapshot alone.

    Attributes:
        snapshot: the machine.
        services: who serves what on it, as `serving.infer.services` infers it, or as they were handed in.
    """

    def __init__(self, snapshot: Snapshot, services: tuple[StorageService, ...] | None = None) -> None:
        self.snapshot = snapshot
        self.services = infer_services(snapshot) if services is None else services

    @cached_property
    def layers(self) -> Layers:
        """Which device or file system lies on which."""
        return Layers(self.snapshot)

    @cached_property
    def parts(self) -> tuple[tuple[Node, ...], tuple[Edge, ...]]:
        """Nodes and edges of the graph, without a search for cycles."""
        return graph_parts(self.layers, self.services)

    @cached_property
    def graph(self) -> Graph:
        """The storage graph with its cycles."""
        nodes, edges = self.parts
        return Graph(nodes, edges, find_cycles(nodes, edges))
