"""A matrix on a Dask cluster, with prepared halves: `python -m tests.lab.matrix_cluster DIR HOW`.

HOW is `complete`: every half comes out at once; or `interrupted`: the half with the state goes on until the
matrix is stopped, which Ctrl-C does after a moment.
"""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from distributed import Client, LocalCluster

from ioflusher.lab import repeat
from ioflusher.lab.errors import Cancelled
from ioflusher.lab.matrix import cluster
from ioflusher.lab.matrix.play import play_tasks
from ioflusher.lab.matrix.work import missing_tasks
from ioflusher.lab.messages import Sampled
from ioflusher.lab.outcome import Half
from ioflusher.lab.qemu import Accelerator
from ioflusher.lab.store import ExperimentStore
from tests.lab.halves import FINISHED, FROZEN
from tests.lab.matrix_workers import trials


class ReadyLab:
    """A lab that needs no kernel."""

    def __init__(self, boot: str, *, accelerator: Accelerator, shares: tuple[Path, ...]) -> None:
        self.kernel, self.accelerator = SimpleNamespace(release=boot), accelerator

    def __enter__(self) -> "ReadyLab":
        return self

    def __exit__(self, *_: object) -> None: ...


class Machine:
    """A machine that another thread ends."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def cancel(self) -> None:
        self.ended.set()


def main() -> None:
    """Play, and say how it ended."""
    place, how = Path(sys.argv[1]), sys.argv[2]
    going_on = threading.Event()

    def run_half(
        lab: object,
        scenario: object,
        *,
        io_flusher: bool,
        on_report: Callable[[bool, Any], None],
        on_machine: Callable[[Machine], None],
        **_: object,
    ) -> Half:
        if not io_flusher:
            return FROZEN
        if how == "complete":
            return FINISHED
        machine = Machine()
        on_machine(machine)
        while not machine.ended.wait(0.02):
            on_report(io_flusher, Sampled(completed=1, in_flight=1, memory_kib={}))
            going_on.set()
        raise Cancelled("ended")

    setattr(repeat, "run_half", run_half)  # noqa: B010 (mypy takes the other way for a mistake)
    setattr(cluster, "Lab", ReadyLab)  # noqa: B010

    def began(task: object) -> None:
        if how == "interrupted" and task is tasks[1]:
            going_on.wait(30)
            time.sleep(0.2)
            raise KeyboardInterrupt

    tasks = missing_tasks(trials(), {}, runs=2, only=None)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, silence_logs=50
        ) as local,
        Client(local) as client,
        cluster.cluster_workers(client) as workers,
    ):
        ended = play_tasks(
            tasks, workers, jobs=2, store=ExperimentStore(place / "lab.sqlite"), on_begin=began
        )
    print("interrupted" if ended.interrupted else "complete", ended.errors)


if __name__ == "__main__":
    main()
