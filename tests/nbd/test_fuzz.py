"""A little of what `python -m tests.nbd.fuzz` does by the million, and that it would see a failure."""

import struct
from unittest import mock

import pytest
from tests.nbd import fuzz

from ioflusher.nbd.errors import RemoteProtocolError
from ioflusher.nbd.protocol import chunks, replies


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_the_invariant_holds(name: str) -> None:
    """For as many inputs as a part of a second has room for."""
    fuzz.play(name, 0, 500)


def test_an_answer_that_a_client_refuses_is_seen() -> None:
    """A server that says offset 0 whatever was read is told from one that is right; the input has a name."""
    wrong = mock.patch.object(
        replies, "whole_data", lambda cookie, _, length: replies.data(cookie, 0, length, last=True)
    )
    with wrong, pytest.raises(RemoteProtocolError, match="bytes at 0 for a request") as caught:
        fuzz.play("requests", 0, 2000)
    assert "of 'requests'" in caught.value.__notes__[0]


def test_a_client_that_believes_every_length_is_seen() -> None:
    """One that does not hold a chunk's length against the form that its type has."""
    with mock.patch.object(chunks, "_expect"), pytest.raises(struct.error) as caught:
        fuzz.play("replies", 0, 2000)
    assert "of 'replies'" in caught.value.__notes__[0]
