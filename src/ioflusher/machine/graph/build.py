"""The storage graph of a machine: what waits for what, from swap and mounts to daemons, and round again."""

from ioflusher.machine.graph.cycles import find_cycles
from ioflusher.machine.graph.daemons import Daemons, served_nodes
from ioflusher.machine.graph.draft import Draft
from ioflusher.machine.graph.layers import Layers
from ioflusher.machine.graph.nodes import Graph
from ioflusher.machine.graph.storage import add_storage
from ioflusher.machine.serving.infer import services as infer_services
from ioflusher.machine.serving.service import Service
from ioflusher.machine.snapshot import Snapshot


def storage_graph(snapshot: Snapshot, services: tuple[Service, ...] | None = None) -> Graph:
    """The graph of one snapshot, in time linear in its size, whatever the snapshot holds.

    `services`: who serves what; None: as `serving.infer.services` infers it. What the snapshot names and
    does not have is a node of the kind "unknown".
    """
    layers = Layers(snapshot)
    if services is None:
        services = infer_services(snapshot)
    draft = Draft()
    add_storage(draft, layers, served_nodes(services))
    Daemons(draft, layers, services).add()
    nodes, edges = draft.nodes(), draft.edges()
    return Graph(nodes, edges, find_cycles(nodes, edges))
