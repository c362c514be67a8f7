"""Simulated events a second of a run, beside SimPy's: python tests/model/benchmark_run.py [ROUNDS].

An event is a step of a task here, and a time-out there. Three in turn: both halves that live of two
scenarios, SimPy with as many processes that do nothing but wait, and the same tasks in the model's engine.
Prints medians of the processor's time, and what `ioflusher model run` takes from the command line.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import simpy

from ioflusher.model.build import build
from ioflusher.model.code import Code
from ioflusher.model.run import run
from ioflusher.model.transitions import TransitionSystem
from ioflusher.scenario.file import builtin_scenarios, parse_scenario

TASKS, TIME_OUTS = 8, 25_000


def scenario_steps(name: str) -> Callable[[], int]:
    """A run of a scenario's half with the state; returns its steps."""
    system = build(parse_scenario(builtin_scenarios()[name]), io_flusher=True, version=(6, 12))
    return lambda: run(system).steps


def engine_steps() -> int:
    """Tasks that wait for time alone, in the model's engine."""
    programs = []
    for number in range(TASKS):
        code = Code()
        with code.loop():
            code.step("", takes_ns=1000 + number)
        programs.append(code.program(f"task-{number}", number + 1, works=True))
    system = TransitionSystem("time-outs", (), tuple(programs))
    return run(system, limit_s=TIME_OUTS * 1000 / 1e9).steps


def simpy_events() -> int:
    """The same with SimPy."""
    world = simpy.Environment()

    def task() -> simpy.events.ProcessGenerator:
        for _ in range(TIME_OUTS):
            yield world.timeout(1000)

    for _ in range(TASKS):
        world.process(task())
    world.run()
    return TASKS * TIME_OUTS


def main() -> None:
    """Measure in turn, print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    peers = {
        "run of ext4-on-nbd-throttled": scenario_steps("ext4-on-nbd-throttled"),
        "run of swap-on-nbd": scenario_steps("swap-on-nbd"),
        "time-outs alone, the model's engine": engine_steps,
        "time-outs alone, SimPy": simpy_events,
    }
    rates: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, play in peers.items():
            begin = time.process_time()
            steps = play()
            rates[name].append(steps / (time.process_time() - begin))
    reference = statistics.median(rates["time-outs alone, SimPy"])
    print("| | events a second | of SimPy's |")
    print("|---|---|---|")
    for name, found in rates.items():
        middle = statistics.median(found)
        print(
            f"| {name} | {middle:,.0f} ({min(found):,.0f} to {max(found):,.0f}) | {middle / reference:.2f} |"
        )
    command = [sys.executable, "-m", "ioflusher", "model", "run", "xfs-on-nbd-5.8"]
    walls = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
        walls.append(time.perf_counter() - begin)
    print(
        f"\n`ioflusher model run xfs-on-nbd-5.8`: {statistics.median(walls):.2f} s ({min(walls):.2f} at best)"
    )


if __name__ == "__main__":
    main()
