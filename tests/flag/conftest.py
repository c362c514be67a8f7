"""A stand-in for the kernel's side of the state: one bit a thread, and a capability."""

import errno
import threading
from collections.abc import Iterator

import pytest

from ioflusher.flag import state as room
from ioflusher.kernel.flags import PF_IO_FLUSHER, TaskFlags
from ioflusher.kernel.prctl import PR_GET_IO_FLUSHER, PR_SET_IO_FLUSHER
from ioflusher.kernel.syscalls import ONE, ZERO

Call = tuple[int, bool]


class FakeKernel:
    """Answers prctl as kernel/sys.c does.

    `on` holds the threads (by threading.get_ident) that carry the state; `refusal` is the errno of every
    prctl, or 0; `calls` records option and state of each.
    """

    def __init__(self) -> None:
        self.on: set[int] = set()
        self.refusal = 0
        self.calls: list[Call] = []

    def prctl(self, option: int, *words: object) -> int:
        """As `syscalls.prctl_raw`."""
        state, *unused = words
        assert unused == [ZERO] * 3, "the kernel refuses anything but zeros in arguments 3 to 5"
        self.calls.append((option, state is ONE))
        if self.refusal:
            return -1
        me = threading.get_ident()
        if option == PR_GET_IO_FLUSHER:
            assert state is ZERO
            return int(me in self.on)
        assert option == PR_SET_IO_FLUSHER
        (self.on.add if state is ONE else self.on.discard)(me)
        return 0

    @property
    def mine(self) -> bool:
        """Whether the calling thread carries the state."""
        return threading.get_ident() in self.on


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKernel]:
    """The stand-in, in place of the system call and of the task flags in /proc."""
    fake = FakeKernel()
    monkeypatch.setattr(room, "prctl_raw", fake.prctl)
    monkeypatch.setattr(room, "last_error", lambda: OSError(fake.refusal, errno.errorcode[fake.refusal]))
    monkeypatch.setattr(room, "own_task_flags", lambda: TaskFlags(PF_IO_FLUSHER if fake.mine else 0))
    yield fake
    assert not fake.on, "a test left the state on a thread"
