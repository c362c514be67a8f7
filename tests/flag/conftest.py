"""A stand-in for the kernel's side of the state: one bit a thread, and a capability."""

import errno
import threading
from collections.abc import Iterator

import pytest

from ioflusher.flag import scope as scope_room
from ioflusher.flag import state as room
from ioflusher.kernel.prctl import PR_GET_IO_FLUSHER, PR_SET_IO_FLUSHER
from ioflusher.kernel.syscalls import ONE, ZERO
from ioflusher.kernel.task_flags import PF_IO_FLUSHER, TaskFlags

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

    def prctl(self, option: int, arg2: int = 0, *unused: int) -> int:
        """As `syscalls.prctl`."""
        assert not any(unused), "the kernel refuses anything but zeros in arguments 3 to 5"
        assert type(arg2) in (int, bool)
        self.calls.append((option, bool(arg2)))
        if self.refusal:
            raise OSError(self.refusal, errno.errorcode[self.refusal])
        me = threading.get_ident()
        if option == PR_GET_IO_FLUSHER:
            assert arg2 == 0
            return int(me in self.on)
        assert option == PR_SET_IO_FLUSHER
        (self.on.add if arg2 else self.on.discard)(me)
        return 0

    def prctl_raw(self, option: int, *words: object) -> int:
        """As `syscalls.prctl_raw`."""
        assert len(words) == 4, "a word that is not passed is garbage in the kernel"
        try:
            return self.prctl(option, *({id(ZERO): 0, id(ONE): 1}[id(word)] for word in words))
        except OSError:
            return -1

    @property
    def mine(self) -> bool:
        """Whether the calling thread carries the state."""
        return threading.get_ident() in self.on


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKernel]:
    """The stand-in, in place of the system call and of the task flags in /proc."""
    fake = FakeKernel()
    monkeypatch.setattr(room, "prctl", fake.prctl)
    monkeypatch.setattr(room, "prctl_raw", fake.prctl_raw)
    monkeypatch.setattr(scope_room, "prctl_raw", fake.prctl_raw)
    monkeypatch.setattr(room, "own_task_flags", lambda: TaskFlags(PF_IO_FLUSHER if fake.mine else 0))
    yield fake
    assert not fake.on, "a test left the state on a thread"
