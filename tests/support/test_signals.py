"""Signals that end a program leave it the time to clean up."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from ioflusher.support.signals import Terminated, ending_signals, undisturbed


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Handlers as a program starts with them, and as they were afterwards."""
    ours = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in ours]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in zip(ours, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_they_are_exceptions(number: signal.Signals) -> None:
    """`finally` runs; the first signal is remembered; the handlers are as before in the end."""
    cleaned = []

    def work() -> None:
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(number)

    with ending_signals() as came:
        assert came.number is None
        with pytest.raises(Terminated, match=number.name) as caught:
            work()
        assert caught.value.number == number
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
        assert came.number == number
    assert cleaned == [number]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_ignored_ones_stay_ignored() -> None:
    """nohup has SIGHUP ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ending_signals() as came:
        signal.raise_signal(signal.SIGHUP)
    assert came.number is None


def test_a_signal_waits_for_the_end_of_the_block() -> None:
    """The work is done, then the exception comes; twice the same signal is one."""
    done = []

    def work(*signals: int) -> None:
        with undisturbed():
            for number in signals:
                os.kill(os.getpid(), number)
            done.append(signals)

    with ending_signals(), pytest.raises(Terminated):
        work(signal.SIGTERM, signal.SIGTERM)
    assert len(done) == 1
    with pytest.raises(KeyboardInterrupt):
        work(signal.SIGINT)
    assert len(done) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_work_is_not_lost() -> None:
    """It stands behind the signal's exception."""

    def work() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            raise ZeroDivisionError

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert isinstance(caught.value.__context__, ZeroDivisionError)


def test_in_another_thread() -> None:
    """Handlers are the main thread's business."""
    seen = []

    def work() -> None:
        with undisturbed():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
