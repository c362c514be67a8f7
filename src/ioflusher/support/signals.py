"""Signals that end a program, for one that has something to end itself: machines, files, other programs.

Python makes a KeyboardInterrupt of SIGINT alone; SIGTERM and SIGHUP kill, and what was started stays behind.
`ending_signals` makes an exception of each, so that `with` blocks and `finally` do their work. `undisturbed`
is for that work: a signal that comes meanwhile is not lost, but waits. `waking_signals` is for who waits for
descriptors.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

# those that ask a program to end; a parent may have them ignored (nohup has SIGHUP), which is respected
ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """A signal asked the program to end: treated as Ctrl-C is, but for the exit status.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class EndingSignals:
    """What came.

    Attributes:
        number: of the first signal that asked the program to end; None where none did.
    """

    number: int | None = None


@contextlib.contextmanager
def ending_signals() -> Iterator[EndingSignals]:
    """Have SIGTERM and SIGHUP raise `Terminated` in the main thread until the end of the block."""
    came = EndingSignals()

    def end(number: int, _: FrameType | None) -> None:
        if came.number is None:
            came.number = number
        raise Terminated(number)

    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        for number, handler in before.items():
            if handler is signal.SIG_DFL:
                signal.signal(number, end)
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def waking_signals() -> Iterator[int | None]:
    """A file descriptor that can be read once a signal came; None outside of the main thread.

    Whoever waits for descriptors waits for it, too, and reads it empty: a signal that comes just before the
    wait begins, or that another thread takes, does not end the wait, and Python's handler runs behind it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    try:
        yield readable
    finally:
        signal.set_wakeup_fd(before)
        os.close(readable)
        os.close(writable)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Signals for which Python has a handler wait until the block is over, each then handled once.

    For short work that must not stop half-way. Outside of the main thread, where no handler runs, it changes
    nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if number not in waiting:
            waiting.append(number)

    set_now = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    handlers = {number: handler for number, handler in set_now.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for came in waiting:
            signal.raise_signal(came)
