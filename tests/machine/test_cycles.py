"""Cycles of the storage graph: on machines made by hand, and against an oracle that tries every way."""

from dataclasses import replace

import networkx
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.machine.graphs import SWAP_ON_NBD, TWO_DAEMONS, daemon, machine, mount, nbd, serves, swap_on, talk

from ioflusher.machine.graph.build import storage_graph
from ioflusher.machine.graph.cycles import cycle_through, find_cycles
from ioflusher.machine.graph.nodes import Cycle, Edge, Graph, Need, Node, NodeKind, Reason
from ioflusher.machine.process import FileKind, FileUse
from ioflusher.machine.serving.service import StorageRole

LOG = FileUse("/mnt/daemon.log", FileKind.LOG, "43:0", 30)
ON_NBD = (mount(30, "43:0", "/mnt", "/dev/nbd0"),)


def way(cycle: Cycle) -> list[str]:
    """The nodes of the witness in order."""
    return [edge.source for edge in cycle.witness]


def reasons(graph: Graph) -> list[str]:
    """Of the only cycle's witness."""
    (cycle,) = graph.cycles
    return [edge.reason.name for edge in cycle.witness]


def test_swap_on_its_own_device() -> None:
    """A daemon without the state waits for itself through reclaim and swap."""
    graph = storage_graph(SWAP_ON_NBD, (serves(812, "nbd0"),))
    (cycle,) = graph.cycles
    assert way(cycle) == ["dev:nbd0", "pid:812", "reclaim", "swap:/dev/nbd0"]
    assert (cycle.recovery, cycle.certain, cycle.shortest, cycle.daemons) == (False, True, True, ("pid:812",))


def test_covered_and_locked_there_is_none() -> None:
    """With the state on every thread and memory locked the same machine has no cycle."""
    snapshot = replace(SWAP_ON_NBD, processes=(daemon(812, covered=2),))
    assert storage_graph(snapshot, (serves(812, "nbd0"),)).cycles == ()


def test_covered_but_swapped_out() -> None:
    """The state alone does not help a daemon whose own memory may lie on its device."""
    snapshot = replace(SWAP_ON_NBD, processes=(daemon(812, covered=2, locked=False),))
    graph = storage_graph(snapshot, (serves(812, "nbd0"),))
    assert reasons(graph) == ["SERVED", "SWAPPED", "SWAPPED", "SWAP"]


def test_its_log_on_its_own_device() -> None:
    """A covered daemon that logs to what it serves waits for itself."""
    snapshot = machine((nbd(0),), ON_NBD, processes=(daemon(812, "nbd-server", LOG, covered=2),))
    assert reasons(storage_graph(snapshot, (serves(812, "nbd0"),))) == ["SERVED", "LOG", "LIES_ON"]


def test_through_another_daemon() -> None:
    """One stores on the other's device, whose program lies on the first one's."""
    graph = storage_graph(TWO_DAEMONS, (serves(100, "nbd0"), serves(200, "nbd1")))
    (cycle,) = graph.cycles
    assert cycle.daemons == ("pid:100", "pid:200")
    assert way(cycle) == ["dev:nbd0", "pid:100", "fs:43:1", "dev:nbd1", "pid:200", "fs:43:0"]


def test_through_a_peer() -> None:
    """A hardened daemon that forwards to another process waits with it, where that lacks the state."""
    processes = (daemon(5, covered=2), daemon(6, "store"))
    stores = (talk(5, 6, "127.0.0.1:9000"),)
    for peer, waits in ((processes[1], True), (daemon(6, "store", covered=2), False)):
        snapshot = machine((nbd(0),), (), (swap_on(nbd(0)),), (processes[0], peer), stores)
        graph = storage_graph(snapshot, (serves(5, "nbd0"),))
        assert [way(cycle) for cycle in graph.cycles] == (
            [["dev:nbd0", "pid:5", "pid:6", "reclaim", "swap:/dev/nbd0"]] if waits else []
        )


def test_only_in_recovery() -> None:
    """A daemon that is needed only after a failure makes a cycle of that kind; one at work goes first."""
    snapshot = machine((nbd(0),), ON_NBD, processes=(daemon(5), daemon(6)))
    recovers = serves(5, "nbd0", StorageRole.MULTIPATH, essential=False)
    (cycle,) = storage_graph(snapshot, (recovers,)).cycles
    assert cycle.recovery
    (cycle,) = storage_graph(snapshot, (recovers, serves(6, "nbd0"))).cycles
    assert not cycle.recovery
    assert "pid:6" in way(cycle)
    assert cycle.daemons == ("pid:5", "pid:6")


def test_the_way_through_one_node() -> None:
    """For any node of a cycle there is the shortest way round through it."""
    snapshot = machine((nbd(0), nbd(1)), ON_NBD, (swap_on(nbd(1)),), (daemon(5), daemon(6)))
    graph = storage_graph(snapshot, (serves(5, "nbd0"), serves(6, "nbd1")))
    (cycle,) = graph.cycles
    for node in cycle.nodes:
        through = cycle_through(cycle, graph.edges, node)
        assert way(through)[0] == node
        assert_is_a_way(through, graph.edges)


def assert_is_a_way(cycle: Cycle, edges: tuple[Edge, ...]) -> None:
    """The witness is made of the graph's own edges, each where the one before ended, and no node twice."""
    nodes = way(cycle)
    assert len(set(nodes)) == len(nodes)
    for edge, follower in zip(cycle.witness, nodes[1:] + nodes[:1], strict=True):
        assert edge in edges
        assert edge.target == follower
        assert edge.waits


NODES = tuple(
    Node(f"{kind.name}{n}", kind, "") for kind in (NodeKind.DEVICE, NodeKind.PROCESS) for n in range(3)
)


@st.composite
def small_graphs(draw: st.DrawFn) -> tuple[Edge, ...]:
    """Any edges between three devices and three processes; what leads to a process may serve or not."""
    edges = {}
    names = st.sampled_from([node.id for node in NODES])
    for _ in range(draw(st.integers(0, 14))):
        source, target = draw(names), draw(names)
        reason = draw(st.sampled_from([Reason.SERVED, Reason.LOG]))
        edge = Edge(source, target, reason, "", draw(st.sampled_from(Need)), draw(st.booleans()))
        edges[source, target, reason] = edge
    return tuple(edges.values())


def ways_round(edges: tuple[Edge, ...]) -> list[list[list[Edge]]]:
    """Oracle: every simple cycle on which a process serves, as the edges to choose from at each step."""
    graph = networkx.DiGraph([(edge.source, edge.target) for edge in edges if edge.waits])
    found = []
    for nodes in networkx.simple_cycles(graph):
        pairs = list(zip(nodes, nodes[1:] + nodes[:1], strict=True))
        steps = [[e for e in edges if e.waits and (e.source, e.target) == pair] for pair in pairs]
        if any(e.reason is Reason.SERVED and e.target.startswith("PROCESS") for step in steps for e in step):
            found.append(steps)
    return found


@settings(max_examples=400, deadline=None)
@given(small_graphs())
def test_none_is_missed_and_none_invented(edges: tuple[Edge, ...]) -> None:
    """Every way round lies in a reported cycle; every witness is one, and the shortest of its kind."""
    cycles = find_cycles(NODES, edges)
    every = [steps for steps in ways_round(edges) if len(steps) > 1]
    for steps in every:
        (home,) = (cycle for cycle in cycles if steps[0][0].source in cycle.nodes)
        assert {step[0].source for step in steps} <= set(home.nodes)
    for cycle in cycles:
        assert_is_a_way(cycle, edges)
        first = cycle.witness[0]
        assert first.reason is Reason.SERVED
        assert first.target in cycle.daemons
        mine = [steps for steps in every if steps[0][0].source in cycle.nodes]
        # those that could be walked with edges no worse than the witness's
        good = [s for s in mine if all(any(alike(e, cycle) for e in step) for step in s)]
        good = [s for s in good if any(serving(e) and alike(e, cycle) for step in s for e in step)]
        assert len(cycle.witness) == min(len(steps) for steps in good)


def serving(edge: Edge) -> bool:
    """Whether a process serves its source."""
    return edge.reason is Reason.SERVED and edge.target.startswith("PROCESS")


def alike(edge: Edge, cycle: Cycle) -> bool:
    """Whether the edge is as certain and as early as the whole witness."""
    return (edge.certain or not cycle.certain) and (edge.need is Need.WORK or cycle.recovery)


def test_a_small_budget_still_finds_a_way() -> None:
    """Where not every way can be tried, one is found and said not to be the shortest for sure."""
    nodes = [Node("d", NodeKind.DEVICE, ""), *(Node(f"p{n}", NodeKind.PROCESS, "") for n in range(50))]
    edges = [Edge("d", "p0", Reason.SERVED, ""), Edge("p49", "d", Reason.LOG, "")]
    edges += [Edge(f"p{n}", f"p{n + 1}", Reason.PEER, "") for n in range(49)]
    edges += [Edge("d", "p45", Reason.SERVED, "")]
    (short,) = find_cycles(nodes, edges)
    assert (len(short.witness), short.shortest) == (6, True)
    (any_way,) = find_cycles(nodes, edges, budget=10)
    assert (len(any_way.witness), any_way.shortest) == (51, False)


def ring(*names: str, reason: Reason = Reason.PEER) -> list[Edge]:
    """Edges from each to the next, and from the last to the first."""
    return [Edge(a, b, reason, "") for a, b in zip(names, (*names[1:], names[0]), strict=True)]


def typed(*names: str) -> list[Node]:
    """Nodes: processes where the name begins with p, else devices."""
    return [Node(name, NodeKind.PROCESS if name[0] == "p" else NodeKind.DEVICE, name) for name in names]


def test_the_largest_cycle_comes_first() -> None:
    """By the number of daemons; of as many, in the graph's order."""
    small, large = ring("d1", "p1"), ring("d2", "p2", "d3", "p3")
    edges = [
        replace(edge, reason=Reason.SERVED) if edge.source[0] == "d" else edge for edge in (*small, *large)
    ]
    cycles = find_cycles(typed("d1", "p1", "d2", "p2", "d3", "p3"), edges)
    assert [cycle.daemons for cycle in cycles] == [("p2", "p3"), ("p1",)]
    pairs = (("d1", "p1"), ("p1", "d1"), ("d0", "p0"), ("p0", "d0"))
    twins = [Edge(source, target, Reason.SERVED, "") for source, target in pairs]
    cycles = find_cycles(typed("d1", "p1", "d0", "p0"), twins)
    assert [cycle.daemons for cycle in cycles] == [("p0",), ("p1",)]


def test_the_way_through_a_node_of_a_ring() -> None:
    """All of the ring is walked, from that node, and no edge of which nobody waits at work is used."""
    nodes = ("d0", "p0", "d1", "p1")
    edges = [replace(e, reason=Reason.SERVED) if e.source == "d0" else e for e in ring(*nodes)]
    shortcut = Edge("d1", "d0", Reason.LOG, "", Need.START)
    outside = [Edge("d1", "p9", Reason.PEER, ""), Edge("p9", "d8", Reason.PEER, "")]
    every = (*edges, shortcut, *outside)
    (cycle,) = find_cycles(typed(*nodes, "p9", "d8"), every)
    for number, node in enumerate(nodes):
        through = cycle_through(cycle, every, node)
        assert way(through) == [*nodes[number:], *nodes[:number]]
        assert (through.shortest, through.nodes, through.daemons) == (True, cycle.nodes, cycle.daemons)


def test_a_node_that_is_in_no_way_round_changes_nothing() -> None:
    """The cycle is returned as it was."""
    edges = tuple(ring("d0", "p0", reason=Reason.SERVED))
    (cycle,) = find_cycles(typed("d0", "p0"), edges)
    assert cycle_through(cycle, edges, "p7") is cycle


def test_what_a_budget_allows() -> None:
    """Each edge that is looked at costs one; the first daemon's way is looked for in any case."""
    long = [
        Edge("d", "p0", Reason.SERVED, ""),
        Edge("p0", "x", Reason.PEER, ""),
        Edge("x", "d", Reason.PEER, ""),
    ]
    short = [Edge("d", "p1", Reason.SERVED, ""), Edge("p1", "d", Reason.PEER, "")]
    nodes = typed("d", "p0", "x", "p1")
    found = {}
    for budget in (1, 2, 3, 4):
        (cycle,) = find_cycles(nodes, (*long, *short), budget)
        found[budget] = (len(cycle.witness), cycle.shortest)
    # two edges lie on the first daemon's way; with one more the second is tried, which takes it
    assert found == {1: (3, False), 2: (3, False), 3: (2, False), 4: (2, True)}


def test_a_wait_at_work_says_more_than_a_certain_one() -> None:
    """Of an uncertain way at work and a certain one in recovery the first is the witness."""
    edges = [
        Edge("d", "p0", Reason.SERVED, "", Need.RECOVERY),
        Edge("p0", "d", Reason.LOG, ""),
        Edge("d", "p1", Reason.SERVED, "", certain=False),
        Edge("p1", "x", Reason.PEER, ""),
        Edge("x", "d", Reason.LOG, ""),
    ]
    (cycle,) = find_cycles(typed("d", "p0", "p1", "x"), edges)
    assert way(cycle) == ["d", "p1", "x"]
    assert (cycle.certain, cycle.recovery) == (False, False)
    assert way(cycle_through(cycle, edges, "d")) == ["d", "p1", "x"]


def test_what_is_needed_at_the_start_is_no_way_round() -> None:
    """Also where nothing is certain and nothing at work, so that no way says more than another."""
    nodes = ("d0", "p0", "d1", "p1")
    doubtful = [replace(e, need=Need.RECOVERY, certain=False) for e in ring(*nodes)]
    edges = [replace(e, reason=Reason.SERVED) if e.source == "d0" else e for e in doubtful]
    shortcut = Edge("d1", "d0", Reason.LOG, "", Need.START)
    (cycle,) = find_cycles(typed(*nodes), (*edges, shortcut))
    assert way(cycle) == list(nodes)
    assert way(cycle_through(cycle, (*edges, shortcut), "d0")) == list(nodes)


def test_a_certain_wait_says_more_than_a_short_one() -> None:
    """Of two ways at work the one that is certain is the witness, though it is longer."""
    edges = [
        Edge("d", "p0", Reason.SERVED, ""),
        Edge("p0", "x", Reason.PEER, ""),
        Edge("x", "d", Reason.LOG, ""),
        Edge("d", "p1", Reason.SERVED, "", certain=False),
        Edge("p1", "d", Reason.LOG, ""),
    ]
    (cycle,) = find_cycles(typed("d", "p0", "p1", "x"), edges)
    assert way(cycle) == ["d", "p0", "x"]
    assert (cycle.certain, cycle.recovery) == (True, False)
    assert way(cycle_through(cycle, edges, "d")) == ["d", "p0", "x"]
