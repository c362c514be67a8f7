"""The journal of changes: room, order, and what must be told again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.nbd.backends.journal import Journal, JournalEntry
from ioflusher.nbd.protocol.wire import Cmd

CAPACITY = 64 << 10
SIZE = 64


def note(journal: Journal, offset: int, data: bytes) -> JournalEntry | None:
    return journal.take(Cmd.WRITE, 0, offset, len(data), memoryview(data))


def told(journal: Journal, image: bytes) -> bytes:
    """What an image becomes when all that the journal has is written to it, in any order."""
    result = bytearray(image)
    with journal.held() as changes:
        for change in reversed(changes):
            data = bytes(change.length) if change.data is None else change.data
            result[change.offset : change.offset + change.length] = data
    return bytes(result)


def test_what_was_not_acknowledged_is_not_told() -> None:
    """Changes in flight are sent again by those who wait for them; refused ones by nobody."""
    journal = Journal(CAPACITY, 8)
    done, under_way, refused = (note(journal, at, b"x") for at in (1, 3, 5))
    assert done is not None
    assert under_way is not None
    assert refused is not None
    done.acknowledged = refused.void = True
    assert told(journal, bytes(8)) == b"\0x" + bytes(6)


def test_a_flush_covers_what_was_answered_when_it_began() -> None:
    """The mark stops before the first change that is in flight."""
    journal = Journal(CAPACITY, 8)
    first, second, third = (note(journal, at, b"abc"[at : at + 1]) for at in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    first.acknowledged = third.acknowledged = True
    mark = journal.settled()
    second.acknowledged = True
    journal.forget(mark)
    assert told(journal, bytes(3)) == b"\0bc"
    journal.forget(journal.settled())
    assert len(journal) == 0
    assert told(journal, bytes(3)) == bytes(3)


def test_nothing_is_forgotten_while_it_is_told() -> None:
    """A flush that ends meanwhile frees no memory that is being sent."""
    journal = Journal(CAPACITY, 4)
    entry = note(journal, 0, b"x")
    assert entry is not None
    entry.acknowledged = True
    with journal.held() as changes:
        journal.forget(journal.settled())
        for _ in range(4):
            note(journal, 0, b"y")
        assert [bytes(change.data or b"") for change in changes] == [b"x"]


@given(st.lists(st.integers(1, CAPACITY // 2), max_size=60), st.data())
def test_the_ring_never_mixes_data(lengths: list[int], data: st.DataObject) -> None:
    """Whatever the sizes: what was taken is intact until it is forgotten; an empty ring takes all."""
    journal = Journal(CAPACITY, 16)
    held: list[tuple[JournalEntry, bytes]] = []
    for number, length in enumerate(lengths):
        content = bytes([number % 255 + 1]) * length
        entry = note(journal, 0, content)
        if entry is None:
            assert held
            journal.forget(journal.settled())
            held.clear()
            entry = note(journal, 0, content)
        assert entry is not None
        entry.acknowledged = True
        held.append((entry, content))
        for other, expected in held:
            assert other.data is not None
            assert bytes(other.data) == expected


def test_too_long_for_ever() -> None:
    """What can never fit is refused and not waited for."""
    with pytest.raises(ValueError, match="at most 32768"):
        note(Journal(CAPACITY, 4), 0, bytes(CAPACITY // 2 + 1))


@given(st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, 12), st.booleans()), max_size=30))
def test_told_in_any_order_it_comes_out_alike(changes: list[tuple[int, int, bool]]) -> None:
    """No byte is told twice, and each gets what was written last."""
    journal = Journal(CAPACITY, 32)
    image = bytearray(SIZE + 12)
    for number, (offset, length, zero) in enumerate(changes):
        data = bytes(length) if zero else bytes([number + 1]) * length
        command = Cmd.WRITE_ZEROES if zero else Cmd.WRITE
        entry = journal.take(command, 0, offset, length, None if zero else memoryview(data))
        assert entry is not None
        entry.acknowledged = True
        image[offset : offset + length] = data
    with journal.held() as parts:
        covered = [byte for part in parts for byte in range(part.offset, part.offset + part.length)]
    assert len(covered) == len(set(covered))
    assert told(journal, bytes(SIZE + 12)) == image
