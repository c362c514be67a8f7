"""How soon the program answers: `python tests/cli/benchmark.py [--rounds N]`.

Times `ioflusher --help`, the help of each verb, and `python -c pass`, which is the least there can be, in
turns, each in a process of its own with its output to /dev/null. Bytecode is there, as an installation
writes it. The processor time is what a busy machine changes least.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = str(Path(sys.executable).with_name("ioflusher"))


def commands() -> dict[str, list[str]]:
    """What is timed, by its name."""
    from ioflusher.cli.verbs import VERBS

    helps = {f"ioflusher {verb} --help": [PROGRAM, verb, "--help"] for verb in sorted(VERBS)}
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "python -c 'import click'": [sys.executable, "-c", "import click"],
        "ioflusher --help": [PROGRAM, "--help"],
        **helps,
    }


def milliseconds(command: list[str]) -> tuple[float, float]:
    """How long it takes, by the clock and of the processor."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, timeout=60)
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return clock * 1000, processor * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="How soon the program answers.")
    parser.add_argument("--rounds", type=int, default=20, help="how often (default: 20)")
    rounds = parser.parse_args().rounds
    timed: dict[str, list[tuple[float, float]]] = {name: [] for name in commands()}
    for number in range(rounds + 1):
        for name, command in commands().items():
            took = milliseconds(command)
            if number:  # the first fills caches
                timed[name].append(took)
    print(f"{f'ms, {rounds} rounds':28} {'median':>8} {'least':>8} {'most':>8} {'processor, median':>18}")
    for name, times in timed.items():
        clock, processor = zip(*times, strict=True)
        figures = (statistics.median(clock), min(clock), max(clock))
        shown = " ".join(f"{figure:8.0f}" for figure in figures)
        print(f"{name:28} {shown} {statistics.median(processor):18.0f}")


if __name__ == "__main__":
    main()
