"""Halves that are played at the same time, each in a thread of its own, while one thread hears of them all.

Ctrl-C and signals reach a process's main thread alone. So that one waits for what the others send, in the
order in which it happens, and only it prints, keeps and decides; a player knows its own machine and nothing
else. When the main thread leaves, for whatever reason, the machines that still run are ended, and their
threads have gone.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from ioflusher.lab.errors import Cancelled
from ioflusher.lab.follower import OnReport
from ioflusher.lab.messages import GuestReport
from ioflusher.lab.outcome import Half
from ioflusher.support.signals import undisturbed


class Cancellable(Protocol):
    """A machine that another thread can end."""

    def cancel(self) -> None:
        """Whoever waits for its reports gets `Cancelled`, now and from now on."""
        ...


OnMachine = Callable[[Cancellable], None]
# plays the half with the state, or without, from power-on to its outcome
PlayHalf = Callable[[bool, OnReport, OnMachine], Half]


@dataclass(frozen=True, slots=True)
class _Said:
    """A report, and the half that it is of."""

    io_flusher: bool
    report: GuestReport


class Players:
    """Plays halves at once; a context manager that starts the players and leaves none behind.

    Args:
        play: plays one half; called in a thread of its own for each of `halves`.
        halves: by whether the daemon sets the state.
    """

    def __init__(self, play: PlayHalf, halves: Sequence[bool]) -> None:
        self._play = play
        self._heard: queue.SimpleQueue[_Said | Half | BaseException] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._machines: list[Cancellable] = []
        self._cancelled = False
        self._threads = [
            threading.Thread(
                target=self._run, args=(io_flusher,), name=f"half-{'with' if io_flusher else 'without'}"
            )
            for io_flusher in halves
        ]

    def __enter__(self) -> Self:
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        with undisturbed():
            self._end_all()

    def _end_all(self) -> None:
        with self._lock:
            self._cancelled = True
            machines = list(self._machines)
        for machine in machines:
            machine.cancel()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def halves(self, on_report: OnReport) -> Iterator[Half]:
        """Each half as it ends; meanwhile `on_report` is told of every report.

        Raises:
            BaseException: what one of the players raised; the others are ended with the `with` block.
        """
        left = len(self._threads)
        while left:
            heard = self._heard.get()
            if isinstance(heard, _Said):
                on_report(heard.io_flusher, heard.report)
            elif isinstance(heard, Half):
                left -= 1
                yield heard
            else:
                raise heard

    def unheard(self) -> Iterator[Half]:
        """After the `with` block: halves that had ended when it was left early."""
        while True:
            try:
                heard = self._heard.get_nowait()
            except queue.Empty:
                return
            if isinstance(heard, Half):
                yield heard

    def _run(self, io_flusher: bool) -> None:
        """A player's thread."""
        try:
            self._heard.put(
                self._play(
                    io_flusher, lambda half, report: self._heard.put(_Said(half, report)), self._on_machine
                )
            )
        except Cancelled:
            pass
        except BaseException as error:
            self._heard.put(error)

    def _on_machine(self, machine: Cancellable) -> None:
        with self._lock:
            if self._cancelled:
                raise Cancelled("the other half of the run is over, and with it this one")
            self._machines.append(machine)
