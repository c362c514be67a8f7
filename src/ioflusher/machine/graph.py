"""The storage graph of a machine: what waits for what, from swap and mounts to daemons, and round again."""

from ioflusher.machine.cycles import find_cycles
from ioflusher.machine.draft import Draft
from ioflusher.machine.graph_daemons import Daemons, served_nodes
from ioflusher.machine.graph_storage import add_storage
from ioflusher.machine.layers import Layers
from ioflusher.machine.nodes import Graph
from ioflusher.machine.serving import Service
from ioflusher.machine.serving import services as infer_services
from ioflusher.machine.snapshot import Snapshot


def storage_graph(snapshot: Snapshot, services: tuple[Service, ...] | None = None) -> Graph:
    """The graph of one snapshot, in time linear in its size, whatever the snapshot holds.

    `services`: who serves what; None: as `machine.serving.services` infers it. What the snapshot names and
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
