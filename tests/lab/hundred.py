"""Many runs in a row in one process, and what they leave: `python -m tests.lab.hundred [--runs N]`.

Each run is both halves of a short scenario, frozen and finished, at once. After each, processes, files and
sockets are looked for, and this process's descriptors, threads and memory: none may be more than after the
first run, which fills what is filled once. Status 1 where something was left.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from ioflusher.lab.outcome import Ending
from ioflusher.lab.repeat import RunKeeper, plan_runs, play_runs
from ioflusher.lab.scenario import Scenario
from ioflusher.lab.scenario_file import builtin_scenarios, parse_scenario
from ioflusher.lab.session import Lab
from tests.lab.left import look

GROWTH_KIB = 32 << 10  # of this process's memory over all runs, for what allocators keep


def short_scenario() -> Scenario:
    """Frozen by throttling as soon as it works; finished with a few files."""
    text = builtin_scenarios()["ext4-on-nbd-throttled"]
    text = text.replace('size = "96M"', 'size = "12M"').replace("stalled_s = 8", "stalled_s = 2")
    return parse_scenario(text)


def resident_kib() -> int:
    """Memory of this process, VmRSS of /proc/self/status."""
    (line,) = (row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1])


def play(runs: int, place: Path) -> list[str]:
    """Play so many runs with `place` as TMPDIR; returns what was left, run by run."""
    complaints: list[str] = []
    before, after_first, memory_kib = look(place), None, 0
    scenario = short_scenario()
    with Lab(scenario=scenario) as lab:
        plan = plan_runs(lab, scenario, at_once=True)
        for number in range(1, runs + 1):
            experiment = play_runs(lab, plan, keeper=RunKeeper(None, lambda error: None))
            outcomes = [half.outcome.value for run in experiment.runs for half in run.halves]
            print(f"run {number}: {', '.join(outcomes)}", flush=True)
            if experiment.ending is not Ending.COMPLETE:
                complaints.append(f"run {number} failed: {experiment.error}")
            now = look(place)
            if after_first is None:
                after_first, memory_kib = now, resident_kib()
            if more := now.beyond(after_first):
                complaints.append(f"run {number} left {more}")
        grown_kib = resident_kib() - memory_kib
        print(f"after {runs} runs, the lab still open: {now}; {grown_kib} KiB more than after the first")
        if grown_kib > GROWTH_KIB:
            complaints.append(f"this process grew by {grown_kib} KiB")
    if more := look(place).beyond(before):
        complaints.append(f"in the end there was left {more}")
    return complaints


def main() -> None:
    """Read the command line, play, judge."""
    parser = argparse.ArgumentParser(description="What many runs in a row leave behind.")
    parser.add_argument("--runs", type=int, default=100, help="how many (default: 100)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="hundred-", dir="/tmp") as name:
        tempfile.tempdir = os.environ["TMPDIR"] = name
        try:
            complaints = play(runs, Path(name))
        finally:
            tempfile.tempdir = None
    print("\n".join(complaints) or f"nothing was left by {runs} runs")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
