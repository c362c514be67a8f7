"""Commands to the ublk driver, by the numbers that a kernel takes; the ring is not the kernel's."""

import errno
from collections.abc import Callable, Iterator

import pytest

from ioflusher.kernel import ublk
from ioflusher.kernel.ublk_control import UblkControl


class Ring:
    """Answers by what `answer` says of a command's number; keeps the numbers."""

    def __init__(self, answer: Callable[[int], int]) -> None:
        self._answer = answer
        self.numbers: list[int] = []

    def send(self, fd: int, operation: int, command: bytes, tag: int) -> None:
        """Take a command."""
        self.numbers.append(operation)

    def completed(self) -> Iterator[tuple[int, int]]:
        """Its result."""
        yield 0, self._answer(self.numbers[-1])

    def close(self) -> None:
        """Nothing to give back."""


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], int]], tuple[UblkControl, Ring]]:
    """A control device that answers so."""

    def make(answer: Callable[[int], int]) -> tuple[UblkControl, Ring]:
        ring = Ring(answer)
        monkeypatch.setattr("ioflusher.kernel.ublk_control.CommandRing", lambda entries: ring)
        monkeypatch.setattr(ublk, "CONTROL_DEVICE", "/dev/null")
        return UblkControl(), ring

    return make


def old_kernel(number: int) -> int:
    """Before 6.4 no number above a byte is known."""
    return -errno.EOPNOTSUPP if number > 0xFF else 0


Made = Callable[[Callable[[int], int]], tuple[UblkControl, Ring]]


def test_numbers_of_today_and_of_before(control: Made) -> None:
    """What the first command shows holds for all."""
    for answer, add, fetch in (
        (lambda number: 0, 0xC0207504, 0xC0107520),
        (old_kernel, ublk.Control.ADD_DEV, ublk.Io.FETCH_REQ),
    ):
        device, ring = control(answer)
        assert device.add(1, 2, 4096, recoverable=True).features == ublk.RECOVERABLE
        assert ring.numbers[-1] == add
        assert device.number(ublk.Io.FETCH_REQ) == fetch
        asked = len(ring.numbers)
        device.command(ublk.Control.STOP_DEV, 0)
        assert len(ring.numbers) == asked + 1
        device.close()


def test_what_is_refused_is_said(control: Made) -> None:
    """With the command; an error that says nothing of numbers is no reason to try the other ones."""
    device, ring = control(lambda number: -errno.EPERM)
    with pytest.raises(PermissionError, match="GET_DEV_INFO: Operation not permitted"):
        device.info(3)
    assert len(ring.numbers) == 1
    device, ring = control(lambda number: -errno.ENODEV)
    with pytest.raises(OSError, match="GET_DEV_INFO: No such device"):
        device.info(3)
    assert ring.numbers == [0x80207502, ublk.Control.GET_DEV_INFO]
