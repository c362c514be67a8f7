"""What a log's lines add to the facts: the zone that is shortest of memory."""

import pytest

from ioflusher.kernlog.judging.facts import Facts
from ioflusher.kernlog.records import Event, EventKind


@pytest.mark.parametrize(
    ("margins", "worst"),
    [((0, 4096), 0), ((4096, 0), 0), ((0, -8), -8), ((-8, 0), -8), ((12,), 12), ((), None)],
)
def test_the_zone_that_is_shortest_of_memory(margins: tuple[int, ...], worst: int | None) -> None:
    """A margin of 0 KiB is a margin, not an unknown one."""
    facts = Facts()
    for margin in margins:
        facts.learn_event(Event(EventKind.ZONE, "", "node 0 Normal", margin, None, 1, 0))
    assert facts.worst_margin == worst
    assert facts.exhausted is (worst is not None and worst < 0)
