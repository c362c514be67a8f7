"""Edges that are added twice: the sooner and surer wait stays, and equals keep both facts."""

from ioflusher.machine.graph.draft import Draft
from ioflusher.machine.graph.nodes import Edge, Need, NodeKind, Reason


def edge_of(*facts: tuple[str, Need, bool]) -> Edge:
    """The one edge that comes of these."""
    draft = Draft()
    for evidence, need, certain in facts:
        draft.edge("a", "b", Reason.LOG, evidence, need, certain)
    (edge,) = draft.edges()
    return edge


def test_the_sooner_and_surer_stays() -> None:
    """At work before in recovery before at start; certain before not; whatever came first."""
    order = [
        ("one", Need.WORK, True),
        ("two", Need.WORK, False),
        ("three", Need.RECOVERY, True),
        ("four", Need.RECOVERY, False),
        ("five", Need.START, True),
        ("six", Need.START, False),
    ]
    for number, better in enumerate(order):
        for worse in order[number + 1 :]:
            for facts in ((better, worse), (worse, better)):
                edge = edge_of(*facts)
                assert (edge.evidence, edge.need, edge.certain) == better


def test_equals_keep_both_facts() -> None:
    """Each fact once, and no more than can be read."""
    assert edge_of(("one", Need.WORK, True), ("two", Need.WORK, True)).evidence == "one; two"
    assert edge_of(("one", Need.WORK, True), ("one", Need.WORK, True)).evidence == "one"
    for length, more in ((299, "; two"), (300, ""), (301, "")):
        evidence = edge_of(("x" * length, Need.WORK, True), ("two", Need.WORK, True)).evidence
        assert evidence == "x" * length + more


def test_what_is_added_without_more_is_a_certain_wait_at_work() -> None:
    """The default of an edge."""
    draft = Draft()
    draft.edge("a", "b", Reason.LOG, "one")
    assert draft.edges() == (Edge("a", "b", Reason.LOG, "one", Need.WORK, True),)
    assert Edge("a", "b", Reason.LOG, "one") == Edge("a", "b", Reason.LOG, "one", Need.WORK, True, None)


def test_a_node_is_there_once() -> None:
    """The first one of an identifier stays."""
    draft = Draft()
    assert draft.unknown("x", "first", "") == draft.unknown("x", "second", "") == "unknown:x"
    (node,) = draft.nodes()
    assert (node.name, node.kind) == ("first", NodeKind.UNKNOWN)
    assert "unknown:x" in draft
    assert "unknown:y" not in draft
