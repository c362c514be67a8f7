"""A back end held against a bytearray: whatever is asked, both have the same bytes."""

import errno
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ioflusher.nbd.backends import Backend, BlockState
from ioflusher.nbd.protocol.connection import aligned_memory
from ioflusher.nbd.protocol.extents import joined

FRACTIONS = st.floats(0, 1, allow_nan=False)


class BackendMachine(RuleBasedStateMachine):
    """Requests in any order; a subclass's `make` opens the back end, which begins with `first` bytes."""

    make: Callable[[], tuple[Backend, bytes]]
    reopen: Callable[[Backend], Backend] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.backend, first = type(self).make()
        assert self.backend.size == len(first)
        self.model = bytearray(first)
        self.known = bytearray(b"\1" * len(first))  # 0: trimmed, and so whatever
        self.round = 0

    def range(self, at: float, span: float) -> tuple[int, int]:
        """Offset and length from two fractions, aligned as the back end wants; short ones more often."""
        block, size = self.backend.minimum_block, self.backend.size
        offset = int(at * (size // block)) * block
        length = min(int(span**3 * (size // block) + 1) * block, size - offset)
        return offset, length

    @rule(at=FRACTIONS, span=FRACTIONS, through=st.booleans(), direct=st.booleans())
    def write(self, at: float, span: float, through: bool, direct: bool) -> None:
        offset, length = self.range(at, span)
        self.round += 1
        data = aligned_memory(max(length, 1))[:length]
        data[:] = bytes([self.round % 255 + 1]) * length
        room = self.backend.memory_for(offset, length) if direct else None
        if room is not None:
            room[:] = data
        elif through and self.backend.can_flush:
            self.backend.write_through(offset, data)
        else:
            self.backend.write(offset, data)
        self.model[offset : offset + length] = data
        self.known[offset : offset + length] = b"\1" * length

    @rule(at=FRACTIONS, span=FRACTIONS)
    def read(self, at: float, span: float) -> None:
        self.compare(*self.range(at, span))

    def compare(self, offset: int, length: int) -> None:
        found = aligned_memory(max(length, 1))[:length]
        self.backend.read_into(offset, found)
        there = self.backend.memory_at(offset, length)
        assert there is None or there == found
        expected = self.model[offset : offset + length]
        if found != expected:
            bytewise = zip(found, expected, self.known[offset : offset + length], strict=True)
            wrong = [at for at, (one, other, known) in enumerate(bytewise, offset) if known and one != other]
            assert not wrong

    @rule(at=FRACTIONS, span=FRACTIONS, may_trim=st.booleans(), fast=st.booleans())
    def zero(self, at: float, span: float, may_trim: bool, fast: bool) -> None:
        if not self.backend.can_zero:
            return
        offset, length = self.range(at, span)
        try:
            if not (fast and self.backend.can_fast_zero):
                raise OSError(errno.EOPNOTSUPP, "not tried")
            self.backend.fast_zero(offset, length, may_trim=may_trim)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self.backend.zero(offset, length, may_trim=may_trim)
        self.model[offset : offset + length] = bytes(length)
        self.known[offset : offset + length] = b"\1" * length

    @rule(at=FRACTIONS, span=FRACTIONS)
    def trim(self, at: float, span: float) -> None:
        if self.backend.can_trim:
            offset, length = self.range(at, span)
            self.backend.trim(offset, length)
            self.known[offset : offset + length] = bytes(length)

    @rule()
    def flush(self) -> None:
        if self.backend.can_flush:
            self.backend.flush()

    @rule(at=FRACTIONS, span=FRACTIONS)
    def cache(self, at: float, span: float) -> None:
        if self.backend.can_cache:
            self.backend.cache(*self.range(at, span))

    @rule(at=FRACTIONS, span=FRACTIONS)
    def extents(self, at: float, span: float) -> None:
        """They lie one behind the other, and what is called zero reads as zeroes."""
        offset, length = self.range(at, span)
        found = list(joined(self.backend.extents(offset, length), length))
        assert length == 0 or found
        for extent in found:
            if extent.flags & BlockState.ZERO:
                room = aligned_memory(extent.length)[: extent.length]
                self.backend.read_into(offset, room)
                assert not any(room), f"called zero: {offset}, {extent.length} bytes"
            offset += extent.length

    @rule()
    def close_and_open(self) -> None:
        reopen = type(self).reopen
        if reopen is not None:
            self.backend.flush()
            self.backend = reopen(self.backend)
            self.compare(0, self.backend.size)

    @invariant()
    def size_stays(self) -> None:
        assert self.backend.size == len(self.model)

    def teardown(self) -> None:
        self.compare(0, self.backend.size)
        self.backend.close()


def hold(
    make: Callable[[], tuple[Backend, bytes]],
    *,
    examples: int = 30,
    steps: int = 30,
    reopen: Callable[[Backend], Backend] | None = None,
) -> None:
    """Hold back ends that `make` opens against the model; `reopen` closes one and opens it again."""
    kind = type(
        "Machine",
        (BackendMachine,),
        {"make": staticmethod(make), "reopen": None if reopen is None else staticmethod(reopen)},
    )
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def content(backend: Backend, offset: int = 0, length: int | None = None) -> bytes:
    """The bytes of a back end."""
    room = aligned_memory(backend.size - offset if length is None else length)
    view = room[: backend.size - offset if length is None else length]
    backend.read_into(offset, view)
    return bytes(view)
