"""A matrix whose workers play prepared halves: `python -m tests.lab.matrix_workers DIR`.

Each task's half without the state has frozen at once, the one with it goes on until it is ended. In DIR are
the store, and a file for each half that goes on, which its guest takes away when it is ended.
"""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ioflusher.lab import repeat
from ioflusher.lab.errors import Cancelled
from ioflusher.lab.matrix import play
from ioflusher.lab.matrix.play import Order, Played, Workers, local_workers, play_tasks
from ioflusher.lab.matrix.work import Trial, missing_tasks
from ioflusher.lab.outcome import Half
from ioflusher.lab.qemu import Accelerator
from ioflusher.lab.repeat import plan_for
from ioflusher.lab.store import ExperimentStore
from ioflusher.lab.trials import trial_key_of
from ioflusher.scenario.file import find_scenario
from tests.lab.halves import FROZEN


def trials() -> list[Trial]:
    """Two scenarios of the package."""
    plans = [
        plan_for(find_scenario(name), "6.12", Accelerator.TCG, {}, at_once=True)
        for name in ("swap-on-nbd", "ext4-on-nbd-throttled")
    ]
    return [Trial(trial_key_of(plan), plan.scenario, plan, "6.12", Accelerator.TCG) for plan in plans]


class ReadyLab:
    """A lab that needs no kernel."""

    def __init__(self, boot: str, *, accelerator: Accelerator, shares: tuple[Path, ...]) -> None:
        self.kernel, self.accelerator = SimpleNamespace(release=boot), accelerator

    def __enter__(self) -> "ReadyLab":
        return self

    def __exit__(self, *_: object) -> None: ...


class GoesOn:
    """A machine that runs until it is ended; its file is there as long."""

    def __init__(self, place: Path) -> None:
        self._file = place / f"guest-{os.getpid()}"
        self._ended = threading.Event()

    def cancel(self) -> None:
        self._ended.set()

    def follow(self) -> Half:
        self._file.touch()
        self._ended.wait(60)
        self._file.unlink()
        raise Cancelled("ended")


def play_prepared(order: Order) -> Played:
    """What a worker process does with an order here."""
    assert order.store is not None
    place = order.store.parent

    def run_half(
        lab: object, scenario: object, *, io_flusher: bool, on_machine: Callable[[Any], None], **_: object
    ) -> Half:
        if not io_flusher:
            return FROZEN
        machine = GoesOn(place)
        on_machine(machine)
        return machine.follow()

    setattr(repeat, "run_half", run_half)  # noqa: B010 (mypy takes the other way for a mistake)
    setattr(play, "Lab", ReadyLab)  # noqa: B010
    return play.play_order(order)


class Prepared(Executor):
    """Hands orders to workers that play prepared halves."""

    def __init__(self, workers: Executor) -> None:
        self._workers = workers

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **more: Any) -> "Future[Any]":
        assert work is play.play_order
        return self._workers.submit(play_prepared, *arguments, **more)


def main() -> None:
    """Play until Ctrl-C; says so then."""
    place = Path(sys.argv[1])
    tasks = missing_tasks(trials(), {}, runs=2, only=None)
    with local_workers(2) as workers:
        ended = play_tasks(
            tasks,
            Workers(Prepared(workers.executor), workers.stop, workers.keep_themselves),
            jobs=2,
            store=ExperimentStore(place / "lab.sqlite"),
        )
    print("interrupted" if ended.interrupted else "complete", flush=True)


if __name__ == "__main__":
    main()
