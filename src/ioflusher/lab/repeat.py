"""Play a scenario several times; what was measured is kept as soon as it is there, whatever comes after."""

import contextlib
import os
import time
from collections.abc import Callable, Generator
from dataclasses import replace

from ioflusher.errors import IoflusherError
from ioflusher.lab.experiment import run_half
from ioflusher.lab.follower import OnReport, ignore_report
from ioflusher.lab.outcome import Ending, Experiment, Half, HostLoad, OneHalf, Plan, Run
from ioflusher.lab.players import OnMachine, Players
from ioflusher.lab.qemu import Accelerator
from ioflusher.lab.session import Lab
from ioflusher.lab.store import ExperimentStore, StoreError
from ioflusher.lab.versions import versions
from ioflusher.scenario.records import Scenario
from ioflusher.support.sizes import format_size
from ioflusher.support.text import counted

_ACCELERATORS = {"tcg": "emulated", "kvm": "KVM"}

OnHalf = Callable[[int, Half], None]


def plan_runs(
    lab: Lab, scenario: Scenario, *, only: OneHalf | None = None, runs: int = 1, at_once: bool = False
) -> Plan:
    """What is to be played, as reports and the store know it."""
    return plan_for(
        scenario,
        lab.kernel.release,
        lab.accelerator,
        versions(scenario),
        only=only,
        runs=runs,
        at_once=at_once,
    )


def plan_for(
    scenario: Scenario,
    release: str,
    accelerator: Accelerator,
    programs: dict[str, str],
    *,
    only: OneHalf | None = None,
    runs: int = 1,
    at_once: bool = False,
) -> Plan:
    """The same where there is no lab yet, from what it will have; `programs` as of `versions.versions`."""
    return Plan(
        scenario=scenario.name,
        title=scenario.title,
        served=scenario.served,
        pressed=scenario.pressed,
        definition=scenario,
        kernel=release,
        accelerator=_ACCELERATORS[accelerator.value],
        machine=f"{format_size(scenario.machine.memory)}, {counted(scenario.machine.cpus, 'CPU')}",
        only=only,
        runs=runs,
        versions=programs,
        at_once=at_once and only is None,
    )


class RunKeeper:
    """Puts the runs of one experiment into a store; a store that fails stops no experiment.

    `store` None: nothing is kept. `on_error` is called with what was not kept, and why.

    Attributes:
        experiment: the number under which the experiment is kept; None where nothing of it is.
    """

    def __init__(self, store: ExperimentStore | None, on_error: Callable[[StoreError], None]) -> None:
        self._store = store
        self._on_error = on_error
        self._began: int | None = None
        self.experiment: int | None = None

    def keep(self, plan: Plan, number: int, run: Run) -> None:
        """Keep a run, or the first half of one, under its number in the experiment."""
        if self._store is None:
            return
        try:
            if self._began is None:
                self._began = self._store.begin(plan)
            self._store.keep(self._began, number, run)
            self.experiment = self._began
        except StoreError as error:
            self._on_error(error)

    def end(self, ending: Ending, error: str | None) -> None:
        """Keep how the experiment ended."""
        if self._store is None or self._began is None:
            return
        try:
            self._store.end(self._began, ending, error)
        except StoreError as problem:
            self._on_error(problem)


def play_runs(
    lab: Lab,
    plan: Plan,
    *,
    keeper: RunKeeper,
    on_half: OnHalf = lambda number, half: None,
    on_report: Callable[[int], OnReport] = lambda number: ignore_report,
) -> Experiment:
    """Play what is planned: run after run, the halves of each at once or one after the other.

    Each half is kept as soon as it has ended, then shown to `on_half` with the number of its run, from 1.
    Ctrl-C and errors of the lab end the experiment early, and the machines that still run; what was measured
    until then is in the Experiment that is returned, and so is the reason. Everything is called in the thread
    that calls this.

    Args:
        on_report: gives for the number of a run what is called with every report of its guests.
    """
    runs: list[Run] = []
    current = Run(None, None)
    ending, said = Ending.COMPLETE, None
    unheard: list[Half] = []
    try:
        for number in range(1, plan.runs + 1):
            current = Run(None, None, time.time(), _host_load())
            with contextlib.closing(_halves(lab, plan, on_report(number), unheard)) as halves:
                for half in halves:
                    current = _measured(current, half)
                    keeper.keep(plan, number, current)
                    on_half(number, half)
            runs.append(current)
            current = Run(None, None)
    except KeyboardInterrupt:
        ending = Ending.INTERRUPTED
    except IoflusherError as error:
        ending = Ending.FAILED
        said = f"{error} ({error.hint})" if error.hint else str(error)
    for half in unheard:
        current = _measured(current, half)
    if current.halves:
        keeper.keep(plan, len(runs) + 1, current)  # Ctrl-C may have come before it was
        if current.whole(plan.only):
            runs.append(current)
            current = Run(None, None)
    keeper.end(ending, said)
    return Experiment(plan, tuple(runs), current if current.halves else None, ending, said)


def _halves(lab: Lab, plan: Plan, on_report: OnReport, unheard: list[Half]) -> Generator[Half]:
    """The halves of one run, each as it ends; `unheard` gets those that had ended when it is closed early."""

    def play(io_flusher: bool, on_report: OnReport, on_machine: OnMachine) -> Half:
        return run_half(
            lab, plan.definition, io_flusher=io_flusher, on_report=on_report, on_machine=on_machine
        )

    order = _order(plan.only)
    for together in [order] if plan.at_once else [(io_flusher,) for io_flusher in order]:
        players = Players(play, together)
        try:
            with players:
                yield from players.halves(on_report)
        finally:
            unheard.extend(players.unheard())


def _order(only: OneHalf | None) -> tuple[bool, ...]:
    """Which halves to play, by whether the daemon sets the state."""
    return {None: (False, True), "without": (False,), "with": (True,)}[only]


def _host_load() -> HostLoad:
    load = os.getloadavg()[0]
    return HostLoad(os.cpu_count() or 1, load, load)


def _measured(run: Run, half: Half) -> Run:
    """The run with the half, and this machine's load at its end."""
    host = run.host and replace(run.host, after=os.getloadavg()[0])
    return replace(run.with_half(half), host=host)
