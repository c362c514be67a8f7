"""Plays a matrix's tasks on the workers of a Dask cluster. Needs the extra `ioflusher[dask]`.

A worker needs what `ioflusher lab setup` installs, and the kernels; it walks its own machine's directories
for every run and leaves nothing behind. What it measured comes back, and is kept here.
"""

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any

from ioflusher.lab.errors import Cancelled, LabError
from ioflusher.lab.follower import OnReport
from ioflusher.lab.matrix.play import Order, Played, Workers
from ioflusher.lab.matrix.prepare import with_hint
from ioflusher.lab.messages import GuestReport
from ioflusher.lab.outcome import Ending
from ioflusher.lab.repeat import RunKeeper, play_runs
from ioflusher.lab.session import Lab
from ioflusher.lab.setup import daemon_files


@contextlib.contextmanager
def cluster_workers(client: Any) -> Iterator[Workers]:
    """The workers that a distributed.Client knows. What they play ends with the block, soon."""
    from distributed import Event

    name = f"ioflusher-matrix-{uuid.uuid4().hex}"
    stop = Event(name, client=client)
    with client.get_executor(pure=False) as executor:
        try:
            yield Workers(_Cluster(executor, name), stop.set, keep_themselves=False)
        finally:
            stop.set()  # also ends what waits for it beside runs that are over


class _Cluster(Executor):
    """Hands orders to the cluster's workers."""

    def __init__(self, executor: Executor, stop: str) -> None:
        self._executor = executor
        self._stop = stop

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **more: Any) -> "Future[Any]":
        """Have a worker play the order, in its own way."""
        (order,) = arguments
        return self._executor.submit(play_on_cluster, order, self._stop)


def play_on_cluster(order: Order, stop: str) -> Played:
    """What a worker of the cluster does: play the task, unless the event of that name is set meanwhile."""
    from distributed import Event, get_client

    stopped = threading.Event()
    event = Event(stop, client=get_client())

    def watch() -> None:
        with contextlib.suppress(Exception):  # the cluster has gone, and with it whoever wants the run
            event.wait()
        stopped.set()

    threading.Thread(target=watch, daemon=True).start()

    def on_report(number: int) -> OnReport:
        def look(io_flusher: bool, report: GuestReport) -> None:
            if stopped.is_set():
                raise Cancelled("the matrix was interrupted")

        return look

    task = order.task
    plan = replace(task.trial.plan, only=task.only, runs=1)
    shares = daemon_files(plan.definition)
    try:
        with Lab(task.trial.boot, accelerator=task.trial.accelerator, shares=shares) as lab:
            keeper = RunKeeper(None, on_error=lambda error: None)
            experiment = play_runs(lab, plan, keeper=keeper, on_report=on_report)
    except LabError as error:
        return Played(task, None, Ending.FAILED, with_hint(error))
    run = experiment.runs[0] if experiment.runs else experiment.unfinished
    if stopped.is_set() and experiment.ending is not Ending.COMPLETE:
        return Played(task, run, Ending.INTERRUPTED)
    return Played(task, run, experiment.ending, experiment.error)
