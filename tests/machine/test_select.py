"""Parts of the storage graph: what has to do with one thing."""

import pytest
from tests.machine.graphs import daemon, machine, mount, nbd, serves, swap_on

from ioflusher.errors import IoflusherError
from ioflusher.machine.graph.analysis import Analysis
from ioflusher.machine.graph.nodes import Graph
from ioflusher.machine.graph.select import only_cycles, select
from ioflusher.machine.process import FileKind, FileUse
from ioflusher.machine.storage import Swap

MACHINE = machine(
    (nbd(0), nbd(1), nbd(2)),
    (mount(30, "43:1", "/one", "/dev/nbd1"), mount(31, "43:2", "/two", "/dev/nbd2")),
    (swap_on(nbd(0)), Swap("/swapfile", True, "254:0", 1, 0, -3)),
    (daemon(5, covered=2), daemon(6, "bare"), daemon(7, "good", covered=2)),
)
ANALYSIS = Analysis(MACHINE, (serves(5, "nbd0"), serves(6, "nbd1"), serves(7, "nbd2")))


def names(graph: Graph) -> set[str]:
    """Identifiers of the nodes."""
    return {node.id for node in graph.nodes}


def test_the_whole_has_a_cycle() -> None:
    """The uncovered daemon waits for itself through reclaim."""
    (cycle,) = ANALYSIS.graph.cycles
    assert cycle.daemons == ("pid:6",)


@pytest.mark.parametrize("what", ["/dev/nbd1", "nbd1", "/one", "6", "mount:30"])
def test_around_something_in_a_cycle(what: str) -> None:
    """By device, mount point, process or node: what waits for it, what it waits for, and the way round."""
    part = select(ANALYSIS.graph, ANALYSIS.layers, what)
    assert {"mount:30", "fs:43:1", "dev:nbd1", "pid:6", "reclaim"} <= names(part)
    assert names(part).isdisjoint({"pid:7", "dev:nbd2", "swap:/dev/nbd0"})
    (cycle,) = part.cycles
    assert {edge.source for edge in cycle.witness} <= names(part)
    assert all(edge.source in names(part) and edge.target in names(part) for edge in part.edges)


@pytest.mark.parametrize("what", ["/two", "/dev/nbd2", "7"])
def test_around_something_without_a_cycle(what: str) -> None:
    """A covered daemon's part holds no cycle, for nothing that it waits for is in one."""
    part = select(ANALYSIS.graph, ANALYSIS.layers, what)
    assert part.cycles == ()
    assert names(part) == {"mount:31", "fs:43:2", "dev:nbd2", "pid:7", "fs:254:0", "dev:vda"}


def test_swap_files_have_names() -> None:
    """A swap area is found by its path; one on a device together with that."""
    assert "fs:254:0" in names(select(ANALYSIS.graph, ANALYSIS.layers, "/swapfile"))
    assert {"swap:/dev/nbd0", "pid:5"} <= names(select(ANALYSIS.graph, ANALYSIS.layers, "/dev/nbd0"))


@pytest.mark.parametrize("what", ["/nowhere", "99", "9" * 30, "", "\x1b[31m", "²"])
def test_what_is_not_there_is_an_error(what: str) -> None:
    """The error says what would be understood, and holds nothing that a terminal obeys."""
    with pytest.raises(IoflusherError, match="expected a block device") as caught:
        select(ANALYSIS.graph, ANALYSIS.layers, what)
    assert str(caught.value).isprintable()


def test_the_way_round_is_shown_through_what_was_asked_for() -> None:
    """Of a device and the swap area on it, which one path names, the device is first."""
    uncovered = machine((nbd(0),), swaps=(swap_on(nbd(0)),), processes=(daemon(5),))
    analysis = Analysis(uncovered, (serves(5, "nbd0"),))
    for what, first in (("/dev/nbd0", "dev:nbd0"), ("swap:/dev/nbd0", "swap:/dev/nbd0"), ("5", "pid:5")):
        (cycle,) = select(analysis.graph, analysis.layers, what).cycles
        assert cycle.witness[0].source == first


@pytest.mark.parametrize(("what", "daemons"), [("nbd0", ("pid:5",)), ("nbd1", ("pid:7",))])
def test_of_several_cycles_that_of_what_was_asked_for(what: str, daemons: tuple[str, ...]) -> None:
    """Whichever comes first in the graph."""
    logs = [FileUse(f"/{n}/log", FileKind.LOG, f"43:{n}", 30 + n) for n in (0, 1)]
    mounts = tuple(mount(30 + n, f"43:{n}", f"/{n}", f"/dev/nbd{n}") for n in (0, 1))
    processes = (daemon(5, "a", logs[0], covered=2), daemon(7, "b", logs[1], covered=2))
    snapshot = machine((nbd(0), nbd(1)), mounts, processes=processes)
    analysis = Analysis(snapshot, (serves(5, "nbd0"), serves(7, "nbd1")))
    assert len(analysis.graph.cycles) == 2
    part = select(analysis.graph, analysis.layers, what)
    assert [cycle.daemons for cycle in part.cycles] == [daemons]


def test_cycles_alone() -> None:
    """Only members of the cycle remain."""
    part = only_cycles(ANALYSIS.graph)
    assert names(part) == {"fs:43:1", "dev:nbd1", "pid:6", "reclaim"}
    assert part.cycles == ANALYSIS.graph.cycles
