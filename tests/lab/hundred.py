"""Many runs in a row in one process, and what they leave: `python -m tests.lab.hundred [--runs N]`.

Runs take turns in how they end: played to the end, both halves at once, frozen and finished, and kept;
interrupted as by Ctrl-C while the guests boot, while they set up, and while they work; ended by an error of
the stage. After each, processes, files and sockets are looked for, and descriptors, threads and memory of
this process: none may be more than after the first turn, which fills what is filled once. Status 1 where
something was left, or where a run did not end as it was to end.
"""

import argparse
import ctypes
import gc
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ioflusher.lab.follower import OnReport, ignore_report
from ioflusher.lab.messages import GuestReport, SettingUp, WorkBegan
from ioflusher.lab.outcome import Ending, Experiment
from ioflusher.lab.repeat import RunKeeper, plan_runs, play_runs
from ioflusher.lab.session import Lab
from ioflusher.lab.store import ExperimentStore
from ioflusher.scenario.file import builtin_scenarios, parse_scenario
from ioflusher.scenario.records import KernelTable, Scenario
from tests.lab.left import look

GROWTH_KIB = 32 << 10  # of this process's memory over all runs, for what allocators keep
BOOTING_S = 1.0  # guests that are interrupted so long after the beginning have said nothing yet
THREADS_END_S = 2.0  # for threads that have done their part and only have to return


def short_scenario() -> Scenario:
    """Frozen by throttling as soon as it works; finished with a few files."""
    text = builtin_scenarios()["ext4-on-nbd-throttled"]
    text = text.replace('size = "96M"', 'size = "24M"').replace("stalled_s = 8", "stalled_s = 2")
    return parse_scenario(text)


def broken(scenario: Scenario) -> Scenario:
    """Its stage cannot be built."""
    return replace(scenario, kernel=KernelTable(sysctl={"vm.no_such_setting": "1"}))


def interrupting(*kinds: type[GuestReport]) -> Callable[[int], OnReport]:
    """Ctrl-C at the first report of such a kind."""

    def heed(io_flusher: bool, report: GuestReport) -> None:
        if isinstance(report, kinds):
            raise KeyboardInterrupt

    return lambda number: heed


@dataclass(frozen=True, slots=True)
class Way:
    """A way in which a run ends.

    Attributes:
        name: for people.
        ending: what the experiment is to say of it.
        change: what is played.
        on_report: may interrupt it.
        after_s: when a signal does; None for no signal.
    """

    name: str
    ending: Ending
    change: Callable[[Scenario], Scenario] = lambda scenario: scenario
    on_report: Callable[[int], OnReport] = lambda number: ignore_report
    after_s: float | None = None


WAYS = (
    Way("played", Ending.COMPLETE),
    Way("interrupted while it boots", Ending.INTERRUPTED, after_s=BOOTING_S),
    Way("interrupted at its set-up", Ending.INTERRUPTED, on_report=interrupting(SettingUp)),
    Way("ended by an error", Ending.FAILED, change=broken),
    Way("interrupted at once", Ending.INTERRUPTED, after_s=0.1),
    Way("interrupted at work", Ending.INTERRUPTED, on_report=interrupting(WorkBegan)),
    Way("interrupted while it boots", Ending.INTERRUPTED, after_s=BOOTING_S / 2),
)


M_ARENA_MAX = -8  # glibc's malloc.h


def one_arena() -> None:
    """Let all threads allocate from one arena of the C library (mallopt(3)).

    Else each of up to 8 for each processor keeps what its threads once used, which looks like a leak.
    """
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def resident_kib() -> int:
    """Memory of this process, VmRSS of /proc/self/status; what is free is given back before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    (line,) = (row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1])


def play_one(lab: Lab, scenario: Scenario, way: Way, store: ExperimentStore) -> Experiment:
    """One run that ends so."""
    plan = plan_runs(lab, way.change(scenario), at_once=True)
    alarm = None
    if way.after_s is not None:
        alarm = threading.Timer(way.after_s, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
        alarm.start()
    try:
        return play_runs(lab, plan, keeper=RunKeeper(store, unkept), on_report=way.on_report)
    finally:
        if alarm is not None:
            alarm.join()


def unkept(error: Exception) -> None:
    """A run that cannot be kept."""
    raise error


def settled_threads(most: int) -> None:
    """Give threads that are over the time to return."""
    until = time.monotonic() + THREADS_END_S
    while threading.active_count() > most and time.monotonic() < until:
        time.sleep(0.01)


def play(runs: int, place: Path) -> list[str]:
    """Play so many runs with `place` as TMPDIR; returns what was left, run by run."""
    complaints: list[str] = []
    before = look(place)
    first_turn, memory_kib = None, 0
    scenario = short_scenario()
    with (
        tempfile.TemporaryDirectory(prefix="hundred-store-", dir="/tmp") as kept,
        Lab(scenario=scenario) as lab,
    ):
        store = ExperimentStore(Path(kept) / "lab.sqlite")
        for number in range(1, runs + 1):
            way = WAYS[(number - 1) % len(WAYS)]
            began = time.monotonic()
            experiment = play_one(lab, scenario, way, store)
            outcomes = [half.outcome.value for run in experiment.runs for half in run.halves]
            said = f"run {number}: {way.name}, {', '.join(outcomes) or experiment.ending.value}"
            print(f"{said}, {time.monotonic() - began:.1f} s, {resident_kib() >> 10} MiB", flush=True)
            if experiment.ending is not way.ending:
                complaints.append(f"run {number}, {way.name}: it was {experiment.ending}: {experiment.error}")
            if first_turn is None and number < len(WAYS):
                continue
            if first_turn is None:
                first_turn, memory_kib = look(place), resident_kib()
            settled_threads(first_turn.threads)
            if more := look(place).beyond(first_turn):
                complaints.append(f"run {number} left {more}")
        grown_kib = resident_kib() - memory_kib
        print(f"the lab still open: {look(place)}; {grown_kib} KiB more than after the first turn")
        if grown_kib > GROWTH_KIB:
            complaints.append(f"this process grew by {grown_kib} KiB")
    settled_threads(before.threads)
    if more := look(place).beyond(before):
        complaints.append(f"in the end there was left {more}")
    return complaints


def main() -> None:
    """Read the command line, play, judge."""
    parser = argparse.ArgumentParser(description="What many runs in a row leave behind.")
    parser.add_argument("--runs", type=int, default=100, help="how many (default: 100)")
    runs = parser.parse_args().runs
    one_arena()
    # a program that a shell started in its background ignores SIGINT
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hundred-", dir="/tmp") as name:
        tempfile.tempdir = os.environ["TMPDIR"] = name
        try:
            complaints = play(runs, Path(name))
        finally:
            tempfile.tempdir = None
    print(f"{runs} runs in {time.monotonic() - began:.0f} s")
    print("\n".join(complaints) or f"nothing was left by {runs} runs")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
