"""The storage graph while it is being made."""

from dataclasses import replace

from ioflusher.machine.graph.layers import Layer, LayerKind
from ioflusher.machine.graph.nodes import Edge, Need, Node, NodeKind, Reason
from ioflusher.machine.serving.service import Candidate

# Evidence of this length is enough, however many facts say the same.
_LONG = 300
_ORDER = {kind: place for place, kind in enumerate(NodeKind)}


def layer_id(layer: Layer) -> str:
    """The node of a block device or file system."""
    return f"dev:{layer.name}" if layer.kind is LayerKind.DEVICE else f"fs:{layer.name}"


class Draft:
    """Nodes and edges; what is added twice is there once."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._edges: dict[tuple[str, str, Reason], Edge] = {}

    def __contains__(self, node: str) -> bool:
        return node in self._nodes

    def add(self, node: Node) -> str:
        """Adds the node, unless there is one of its identifier, and returns that."""
        self._nodes.setdefault(node.id, node)
        return node.id

    def unknown(self, what: str, name: str, detail: str) -> str:
        """Adds a node for something that is not in the snapshot; `what` makes its identifier."""
        return self.add(Node(f"unknown:{what}", NodeKind.UNKNOWN, name, detail))

    def layer(self, layer: Layer) -> str:
        """The node of a device or file system, an unknown one where the snapshot has no such thing."""
        node = layer_id(layer)
        if node in self._nodes:
            return node
        return self.unknown(node, layer.name, f"a {layer.kind.value} that the snapshot does not have")

    def edge(
        self,
        source: str,
        target: str,
        reason: Reason,
        evidence: str,
        need: Need = Need.WORK,
        certain: bool = True,
        candidate: Candidate | None = None,
    ) -> None:
        """Adds an edge; of two with one reason the one that can wait sooner stays, of equals both facts."""
        new = Edge(source, target, reason, evidence, need, certain, candidate)
        old = self._edges.get((source, target, reason))
        if old is None or _rank(new) < _rank(old):
            self._edges[source, target, reason] = new
        elif _rank(new) == _rank(old) and evidence not in old.evidence and len(old.evidence) < _LONG:
            self._edges[source, target, reason] = replace(old, evidence=f"{old.evidence}; {evidence}")

    def nodes(self) -> tuple[Node, ...]:
        """All nodes, in the order of their kinds, else as they came."""
        return tuple(sorted(self._nodes.values(), key=lambda node: _ORDER[node.kind]))

    def edges(self) -> tuple[Edge, ...]:
        """All edges as they came."""
        return tuple(self._edges.values())


def _rank(edge: Edge) -> tuple[int, bool]:
    return list(Need).index(edge.need), not edge.certain
