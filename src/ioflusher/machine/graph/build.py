"""The storage graph of a machine: what waits for what, from swap and mounts to daemons, and round again."""

from ioflusher.machine.graph.cycles import find_cycles
from ioflusher.machine.graph.daemons import Daemons, served_nodes
from ioflusher.machine.graph.draft import Draft
from ioflusher.machine.graph.layers import Layers
from ioflusher.machine.graph.nodes import Edge, Graph, Node
from ioflusher.machine.graph.storage import add_storage
from ioflusher.machine.serving.infer import services as infer_services
from ioflusher.machine.serving.service import StorageService
from ioflusher.machine.snapshot import Snapshot


def storage_graph(snapshot: Snapshot, services: tuple[StorageService, ...] | None = None) -> Graph:
    """The graph of one snapshot, in time linear in its size, whatever the snapshot holds.

    `services`: who serves what; None: as `serving.infer.services` infers it. Who needs the layers or the
    services besides the graph takes `analysis.Analysis`, which computes each once.
    """
    nodes, edges = graph_parts(Layers(snapshot), infer_services(snapshot) if services is None else services)
    return Graph(nodes, edges, find_cycles(nodes, edges))


def graph_parts(
    layers: Layers, services: tuple[StorageService, ...]
) -> tuple[tuple[Node, ...], tuple[Edge, ...]]:
    """Nodes and edges without a search for cycles.

    What the snapshot names and does not have is a node of the kind "unknown".
    """
    draft = Draft()
    add_storage(draft, layers, served_nodes(services))
    Daemons(draft, layers, services).add()
    return draft.nodes(), draft.edges()
