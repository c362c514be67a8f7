"""A few of the kills that `make faults` does a thousand of; and that lost writes would be seen."""

import pytest
from tests.nbd.faults import KINDS, play

pytestmark = pytest.mark.live


def test_nothing_acknowledged_is_lost() -> None:
    """Each way to break the chain from writer to disk, once."""
    result = play(len(KINDS), seed=7)
    assert result["wrong"] == []
    assert [result[kind] for kind in KINDS] == [1] * len(KINDS)


def test_a_loss_is_seen() -> None:
    """A front without a journal loses what the origin's cache had, and the judge says which write."""
    result = play(8, seed=3, kinds=("origin",), front_options="journal=0")
    wrong = result["wrong"]
    assert isinstance(wrong, list)
    assert "(origin): block" in wrong[0]
