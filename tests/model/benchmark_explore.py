"""Explorations beside spin: python -m tests.model.benchmark_explore [ROUNDS].

Two systems of about a million states: a packaged scenario and locks around a table. Of each, in turn: spin's
program, compiled with gcc -O2, the exploration on one thread, and on all processors; then the same with every
reduction that either has. All count the same states where nothing is reduced, which is asserted. Times are
medians, of the clock and of the processors (user and system); spin's are split into what makes the program
(spin, gcc) and its search. Memory is what the process took beyond its start, for each state. Then how states,
time and memory grow with the depth of the device's queue.
"""

import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ioflusher.model.build import build
from ioflusher.model.explore import NO_REDUCTIONS, Reductions, explore
from ioflusher.model.scale import Scale
from ioflusher.model.transitions import TransitionSystem
from ioflusher.scenario.file import builtin_scenarios, parse_scenario
from tests.model.small_systems import dining
from tests.model.spin import Asked, promela, spin

DEPTHS = (1, 2, 3, 4, 6, 8)


def throttled(queue_depth: int) -> TransitionSystem:
    """ext4-on-nbd-throttled with the state, a dirty limit of 8 units and 10 to write."""
    scenario = parse_scenario(builtin_scenarios()["ext4-on-nbd-throttled"])
    scale = Scale(1 << 20, queue_depth, work_units=10, memory_units=24)
    return build(scenario, io_flusher=True, version=(6, 12), scale=scale)


SYSTEMS: dict[str, Callable[[], TransitionSystem]] = {
    "ext4-on-nbd-throttled": lambda: throttled(3),
    "11 locks around a table": lambda: dining(11, ordered=True),
    **{f"queue depth {depth}": partial(throttled, depth) for depth in DEPTHS},
}


def explored(name: str, threads: int, *, reduced: bool) -> dict[str, float]:
    """One exploration in a process of its own, so that its memory is known."""
    command = [sys.executable, "-m", __spec__.name, "--one", name, str(threads), str(int(reduced))]
    run = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    found: dict[str, float] = json.loads(run.stdout)
    return found


def one(name: str, threads: int, *, reduced: bool) -> None:
    """What that process does: print what it took."""
    system = SYSTEMS[name]()
    explore(dining(3), threads=threads)  # everything is loaded
    before = resource.getrusage(resource.RUSAGE_SELF)
    found = explore(
        system, reductions=Reductions() if reduced else NO_REDUCTIONS, threads=threads, whole=True
    )
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "states": found.states,
                "seconds": found.seconds,
                "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                "bytes": (after.ru_maxrss - before.ru_maxrss) * 1024 / found.states,
                "held": found.bytes_per_state,
                "depth": found.depth,
            }
        )
    )


def spun(name: str, *, reduced: bool) -> dict[str, float]:
    """One search by spin."""
    with tempfile.TemporaryDirectory() as directory:
        model = promela(SYSTEMS[name]())
        found = spin(model, Path(directory), Asked(reduced=reduced, optimised=True, hash_bits=22))
    return {
        "states": found.states,
        "seconds": found.search_s,
        "cpu": found.cpu_s,
        "bytes": found.bytes / found.states,
        "generated": found.generated_s,
    }


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def ways(name: str, cores: int, *, reduced: bool) -> dict[str, Callable[[], dict[str, float]]]:
    """How a system is searched."""
    return {
        "spin": partial(spun, name, reduced=reduced),
        "one thread": partial(explored, name, 1, reduced=reduced),
        f"{cores} threads": partial(explored, name, cores, reduced=reduced),
    }


def beside_spin(rounds: int, cores: int) -> None:
    """Print the table of searches."""
    print("| system | search | states | seconds | processor, s | states a second | beside spin | processor |")
    print("|---|---|---|---|---|---|---|---|")
    for name, reduced in itertools.product(list(SYSTEMS)[:2], (False, True)):
        runs: dict[str, list[dict[str, float]]] = {}
        for _ in range(rounds):
            for way, measure in ways(name, cores, reduced=reduced).items():
                runs.setdefault(way, []).append(measure())
        found = {way: medians(taken) for way, taken in runs.items()}
        judge = found["spin"]
        assert reduced or len({figures["states"] for figures in found.values()}) == 1, found
        for way, figures in found.items():
            states, seconds, cpu = figures["states"], figures["seconds"], figures["cpu"]
            beside = states / seconds * judge["seconds"] / judge["states"]
            of_cpu = states / cpu * judge["cpu"] / judge["states"]
            way += ", reduced" if reduced else ""
            print(
                f"| {name} | {way} | {states:,.0f} | {seconds:.2f} | {cpu:.2f} | "
                f"{states / seconds:,.0f} | {beside:.2f} | {of_cpu:.2f} |",
                flush=True,
            )
        held = ", ".join(f"{way} {figures['bytes']:.0f}" for way, figures in found.items())
        print(f"spin and gcc before: {judge['generated']:.1f} s; bytes a state: {held}", file=sys.stderr)


def by_depth(rounds: int, cores: int) -> None:
    """Print how it grows."""
    print("\n| queue depth | states | depth | seconds | processor, s | bytes a state | of them at the end |")
    print("|---|---|---|---|---|---|---|")
    for depth in DEPTHS:
        runs = [explored(f"queue depth {depth}", cores, reduced=True) for _ in range(rounds)]
        figures = medians(runs)
        print(
            f"| {depth} | {figures['states']:,.0f} | {figures['depth']:.0f} | {figures['seconds']:.2f} | "
            f"{figures['cpu']:.2f} | {figures['bytes']:.0f} | {figures['held']:.0f} |",
            flush=True,
        )


def main() -> None:
    """Measure in turn, print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    cores = len(os.sched_getaffinity(0))
    load, began = os.getloadavg()[0], time.perf_counter()
    beside_spin(rounds, cores)
    by_depth(min(rounds, 3), cores)
    print(f"\n{rounds} rounds, load {load:.1f} on {cores} cores, {time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], int(sys.argv[3]), reduced=sys.argv[4] == "1")
    else:
        main()
