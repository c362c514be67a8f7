"""Plays a matrix's tasks: several at once, each half kept as soon as it has ended.

Each task is played by a worker: a process of its own, so that guests are followed and served on several
processors, or a worker of a Dask cluster. Local workers keep the halves themselves, so that whatever ends
this program loses the halves that are running and no more; and they end, with their guests, when it has
gone.
"""

import contextlib
import multiprocessing
import multiprocessing.util
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_any
from pathlib import Path

from ioflusher.lab.errors import LabError
from ioflusher.lab.matrix.prepare import with_hint
from ioflusher.lab.matrix.work import Task
from ioflusher.lab.outcome import Ending, Experiment, OneHalf, Plan, Run
from ioflusher.lab.qemu import Accelerator
from ioflusher.lab.repeat import RunKeeper, play_runs
from ioflusher.lab.session import Lab
from ioflusher.lab.setup import daemon_files
from ioflusher.lab.store import ExperimentStore, StoreError

GIVEN_UP_AFTER = 2  # errors of the lab: then the rest of the cell's runs is left for another time
END_S = 60.0  # that workers have to end their guests after Ctrl-C


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is told.

    Attributes:
        task: what to play.
        store: the file that the halves are put into; None: whoever gets them keeps them.
        experiment: the number under which they are kept.
    """

    task: Task
    store: Path | None
    experiment: int


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a task.

    Attributes:
        task: which.
        run: the halves that were played; None where none was.
        ending: whether all of them were.
        error: why not; None also where the user ended it.
        not_kept: why what was measured is not in the store; None where it is.
    """

    task: Task
    run: Run | None
    ending: Ending
    error: str | None = None
    not_kept: str | None = None


class _TaskKeeper(RunKeeper):
    """Puts the run into its place among those of an experiment that other workers play, too."""

    def __init__(self, order: Order) -> None:
        super().__init__(None, self._note)
        self._order = order
        self._kept = ExperimentStore(order.store) if order.store else None
        self.failed: str | None = None

    def _note(self, error: StoreError) -> None:
        self.failed = with_hint(error)

    def keep(self, plan: Plan, number: int, run: Run) -> None:
        if self._kept is None:
            return
        try:
            self._kept.keep(self._order.experiment, self._order.task.number, run)
        except StoreError as error:
            self._note(error)


class _Worker:
    """What one process plays with; it keeps its labs, because each has walked this machine's directories."""

    def __init__(self) -> None:
        self._labs: dict[tuple[str, Accelerator, tuple[Path, ...]], Lab] = {}
        self._stack = contextlib.ExitStack()
        self._busy = threading.Lock()
        self._stopped = False

    def play(self, order: Order) -> Played:
        """Play a task to its end, or until the process is told to stop."""
        task = order.task
        keeper = _TaskKeeper(order)
        experiment: Experiment | None = None
        ending, error = Ending.INTERRUPTED, None
        with contextlib.suppress(KeyboardInterrupt), self._busy:
            if not self._stopped:
                try:
                    plan = replace(task.trial.plan, only=task.only, runs=1)
                    experiment = play_runs(self._lab(task), plan, keeper=keeper)
                    ending, error = experiment.ending, experiment.error
                except LabError as problem:
                    ending, error = Ending.FAILED, with_hint(problem)
        run = None
        if experiment is not None:
            run = experiment.runs[0] if experiment.runs else experiment.unfinished
        return Played(task, run, ending, error, keeper.failed)

    def _lab(self, task: Task) -> Lab:
        key = (task.trial.boot, task.trial.accelerator, daemon_files(task.trial.plan.definition))
        if key not in self._labs:
            self._labs[key] = self._stack.enter_context(Lab(key[0], accelerator=key[1], shares=key[2]))
        return self._labs[key]

    def attend(self, stop: Connection) -> None:
        """Have this process end what it plays when `stop` is closed, and itself when its parent has gone.

        Ctrl-C on a terminal reaches every process there; only the parent heeds it.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._interrupt)
        multiprocessing.util.Finalize(None, self._stack.close, exitpriority=10)
        threading.Thread(target=self._watch, args=(stop,), daemon=True).start()

    def _interrupt(self, number: int, frame: object) -> None:
        """Handler of SIGTERM: the first one ends what is played."""
        first, self._stopped = not self._stopped, True
        if first and self._busy.locked():
            raise KeyboardInterrupt

    def _watch(self, stop: Connection) -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        wait_for_any([stop, parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for_any([parent.sentinel])
        with self._busy:  # what was played has ended
            self._stack.close()
            os._exit(1)


_worker = _Worker()


def play_order(order: Order) -> Played:
    """Play a task: what a worker does."""
    return _worker.play(order)


def attend(stop: Connection) -> None:
    """What a worker process does first."""
    _worker.attend(stop)


@dataclass(frozen=True, slots=True)
class Workers:
    """Where tasks are played.

    Attributes:
        executor: plays an order.
        stop: ends all that is being played, soon.
        keep_themselves: whether they put the halves into this machine's store.
    """

    executor: Executor
    stop: Callable[[], None]
    keep_themselves: bool


@contextlib.contextmanager
def local_workers(jobs: int) -> Iterator[Workers]:
    """Processes of this machine. What they play ends with the block, however it is left."""
    context = multiprocessing.get_context("spawn")  # this process has threads, with which it must not fork
    receiver, sender = context.Pipe(duplex=False)
    with (
        receiver,
        ProcessPoolExecutor(jobs, mp_context=context, initializer=attend, initargs=(receiver,)) as executor,
        sender,
    ):
        # CPython's pool sees a process die only once it was given something after that process had started
        wait([executor.submit(os.getpid) for _ in range(jobs + 1)])
        yield Workers(executor, sender.close, keep_themselves=True)


class _Ledger:
    """The experiments under which a matrix's runs are kept: one for each trial and choice of halves."""

    def __init__(self, store: ExperimentStore) -> None:
        self._store = store
        self._numbers: dict[tuple[str, OneHalf | None], int] = {}
        self._left: Counter[tuple[str, OneHalf | None]] = Counter()
        self._errors: dict[tuple[str, OneHalf | None], str] = {}

    def number(self, task: Task) -> int:
        """The experiment's, which begins with its first task."""
        key = (task.trial.key, task.only)
        if key not in self._numbers:
            plan = replace(task.trial.plan, only=task.only, runs=task.of)
            self._numbers[key] = self._store.begin(plan)
            self._left[key] = task.of
        return self._numbers[key]

    def ended(self, played: Played) -> None:
        """Note what came of a task; the last one ends its experiment."""
        key = (played.task.trial.key, played.task.only)
        if played.ending is Ending.COMPLETE:
            self._left[key] -= 1
            if not self._left[key]:
                self._store.end(self._numbers.pop(key), Ending.COMPLETE)
        elif played.error:
            self._errors[key] = played.error

    def close(self) -> None:
        """End the others: they failed, or were interrupted."""
        for key, number in self._numbers.items():
            error = self._errors.get(key)
            self._store.end(number, Ending.FAILED if error else Ending.INTERRUPTED, error)


@dataclass(frozen=True, slots=True)
class PlayingEnded:
    """How the playing of a matrix ended.

    Attributes:
        interrupted: whether the user ended it.
        errors: trial's key -> what went wrong last, for those that were not played to their end.
    """

    interrupted: bool
    errors: dict[str, str]


def play_tasks(
    tasks: Iterable[Task],
    workers: Workers,
    *,
    jobs: int,
    store: ExperimentStore,
    on_begin: Callable[[Task], None] = lambda task: None,
    on_played: Callable[[Played], None] = lambda played: None,
) -> PlayingEnded:
    """Play the tasks in their order, `jobs` at once. Ctrl-C ends it, with all that is running.

    Raises:
        StoreError: what is measured cannot be kept.
        LabError: a worker was killed.
    """
    ledger = _Ledger(store)
    waiting = deque(tasks)
    running: dict[Future[Played], Task] = {}
    failures: Counter[str] = Counter()
    errors: dict[str, str] = {}

    def finish(done: Iterable[Future[Played]]) -> None:
        for future in done:
            task = running.pop(future)
            played = _result(future, task, workers)
            if not workers.keep_themselves and played.run is not None:
                store.keep(ledger.number(played.task), played.task.number, played.run)
            ledger.ended(played)
            if played.error:
                failures[played.task.trial.key] += 1
                errors[played.task.trial.key] = played.error
            on_played(played)

    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.popleft()
                if failures[task.trial.key] < GIVEN_UP_AFTER:
                    order = Order(task, store.path if workers.keep_themselves else None, ledger.number(task))
                    on_begin(task)
                    running[workers.executor.submit(play_order, order)] = task
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            finish(done)
    except KeyboardInterrupt:
        workers.stop()
        finish(wait(running, timeout=END_S).done)
        return PlayingEnded(True, errors)
    finally:
        ledger.close()
    return PlayingEnded(False, errors)


def _result(future: "Future[Played]", task: Task, workers: Workers) -> Played:
    try:
        return future.result()
    except BrokenExecutor as error:
        raise LabError(
            f"a process that played a run was killed: {error}",
            hint="if memory ran out, give fewer --jobs; the same command goes on where it ended",
        ) from error
    except Exception as error:
        if workers.keep_themselves:
            raise
        # a worker of a cluster is another machine: that it went away is no mistake of this program
        return Played(task, None, Ending.FAILED, f"a worker of the cluster failed: {error!r}")
